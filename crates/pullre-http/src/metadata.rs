//! Which EC2 instance this machine is, as the instance metadata service tells it (IMDSv2).

use std::time::Duration;

use reqwest::redirect;

use crate::client;

/// Where every instance finds its metadata.
pub const ENDPOINT: &str = "http://169.254.169.254";

/// It is on the same machine, more or less; where nobody answers, this is no instance.
const CONNECT: Duration = Duration::from_millis(500);
const ANSWER: Duration = Duration::from_secs(2);

/// This machine's instance id; or why it cannot be told, in words that end a sentence.
pub fn instance_id(endpoint: &str) -> Result<String, String> {
    let id = ask(endpoint, "instance-id").map_err(|e| match e.status() {
        Some(status) => format!("the instance metadata service answers {status}"),
        None => "no instance metadata service answers".to_owned(),
    })?;
    let good = id.starts_with("i-") && id[2..].bytes().all(|b| b.is_ascii_alphanumeric());
    if good { Ok(id) } else { Err("the instance metadata service tells no instance id".into()) }
}

/// The role whose credentials every program on this machine can have; None where it has none.
pub fn role(endpoint: &str) -> Result<Option<String>, String> {
    match ask(endpoint, "iam/security-credentials/") {
        Ok(text) => {
            let name = text.lines().next().unwrap_or_default().trim();
            let fit = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
            Ok((!name.is_empty() && name.bytes().all(fit)).then(|| name.to_owned()))
        }
        Err(e) if e.status().is_some_and(|status| status.as_u16() == 404) => Ok(None),
        Err(e) => Err(e.to_string()),
    }
}

fn ask(endpoint: &str, what: &str) -> reqwest::Result<String> {
    let endpoint = endpoint.trim_end_matches('/');
    let client = client::builder(false)
        // A proxy would answer with its own metadata, or keep the request for ever.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .build()?;
    let token = client
        .put(format!("{endpoint}/latest/api/token"))
        .header("X-aws-ec2-metadata-token-ttl-seconds", "60")
        .send()?
        .error_for_status()?
        .text()?;
    client
        .get(format!("{endpoint}/latest/meta-data/{what}"))
        .header("X-aws-ec2-metadata-token", token)
        .send()?
        .error_for_status()?
        .text()
}

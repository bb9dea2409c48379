//! What EC2 says when it refuses, as one of our few kinds and a sentence for people.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use pullre::domain::InstanceId;
use pullre::ports::ComputeError;
use pullre::words;

/// Longer texts are cut: EC2 appends kilobytes of an encoded message to some.
const LONGEST: usize = 300;

/// `action` is what the policy of the credentials calls it.
pub fn of<E>(action: &str, id: Option<&InstanceId>, error: SdkError<E>) -> ComputeError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match &error {
        SdkError::ServiceError(answer) => {
            let status = answer.raw().status().as_u16();
            let code = answer.err().code().unwrap_or_default();
            let message = short(answer.err().message().unwrap_or_default());
            refusal(action, id, status, code, message)
        }
        SdkError::TimeoutError(_) => {
            ComputeError::Unavailable("EC2 does not answer in time".into())
        }
        other => match credentials_fault(other) {
            Some(why) => ComputeError::Denied(format!(
                "there are no usable AWS credentials ({why}); set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_KEY in app.ini, or give this machine an instance role"
            )),
            None => ComputeError::Unavailable(causes(other)),
        },
    }
}

/// What a request says that was only rehearsed: that it was permitted is an error too.
pub fn of_rehearsal<T, E>(
    action: &str,
    id: &InstanceId,
    answer: Result<T, SdkError<E>>,
) -> Result<(), ComputeError>
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    match answer {
        Err(e) if e.code() == Some("DryRunOperation") => Ok(()),
        Err(e) => Err(of(action, Some(id), e)),
        // Nothing more may be rehearsed there: it was really done.
        Ok(_) => Err(ComputeError::Refused(format!(
            "what answers at `aws_endpoint_url` knows no DryRun: {action} of {id} was carried out"
        ))),
    }
}

fn refusal(
    action: &str,
    id: Option<&InstanceId>,
    status: u16,
    code: &str,
    message: String,
) -> ComputeError {
    let said = format!("{message} ({code})");
    match (code, id) {
        ("InvalidInstanceID.NotFound" | "InvalidInstanceID.Malformed", Some(id)) => {
            ComputeError::NoInstance(id.clone())
        }
        ("IncorrectInstanceState" | "IncorrectState", Some(id)) => {
            ComputeError::WrongState { id: id.clone(), detail: said }
        }
        (
            "InsufficientInstanceCapacity"
            | "InsufficientHostCapacity"
            | "InsufficientReservedInstanceCapacity"
            | "InsufficientCapacityOnHost"
            | "InstanceLimitExceeded"
            | "VcpuLimitExceeded"
            | "MaxSpotInstanceCountExceeded",
            Some(id),
        ) => ComputeError::NoCapacity { id: id.clone(), detail: said },
        ("UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException", _) => {
            ComputeError::Denied(format!(
                "the AWS credentials lack {action}: {said}; docs/EC2.md has the policy that they need"
            ))
        }
        ("ExpiredToken" | "ExpiredTokenException" | "RequestExpired", _) => {
            ComputeError::Denied(format!(
                "the AWS credentials have expired, or this machine's clock is wrong: {said}; renew \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_KEY in app.ini"
            ))
        }
        (
            "AuthFailure"
            | "InvalidClientTokenId"
            | "InvalidAccessKeyId"
            | "MissingAuthenticationToken"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException"
            | "OptInRequired",
            _,
        ) => ComputeError::Denied(format!(
            "EC2 does not accept the AWS credentials: {said}; check AWS_ACCESS_KEY_ID, \
             AWS_SECRET_KEY and aws_region in app.ini, and this machine's clock"
        )),
        ("RequestLimitExceeded" | "Throttling" | "ThrottlingException", _) => {
            ComputeError::Unavailable(format!("EC2 is asked too often: {said}"))
        }
        ("", _) => ComputeError::Unavailable(format!("EC2 answers with status {status}")),
        _ if status >= 500 => ComputeError::Unavailable(said),
        _ => ComputeError::Refused(said),
    }
}

/// What is wrong with the credentials, where the request was never sent for that reason.
fn credentials_fault(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<CredentialsError>() {
            return Some(causes(error));
        }
        cause = error.source();
    }
    None
}

/// An error and what caused it, each once.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    short(&text)
}

fn short(text: &str) -> String {
    let text = text.split("Encoded authorization failure message").next().unwrap_or_default();
    words::plain(text.trim()).trim_end_matches('.').chars().take(LONGEST).collect()
}

//! EC2 as `moto` plays it: one server for each test binary, on a port of its own, nothing left
//! behind. Regions know nothing of each other: a test takes one of its own.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use pullre::domain::InstanceId;

/// How long a loaded machine may take to bring it up.
const START_TIMEOUT: Duration = Duration::from_secs(120);

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../.setup/moto/bin/moto_server");

/// The shell stands between us and the server: when we end, in whatever way, its input ends, and
/// it stops the server.
const WATCHDOG: &str = r#"
"$@" >/dev/null 2>&1 </dev/null &
server=$!
read -r _
kill -9 "$server"
wait "$server"
"#;

#[derive(Debug)]
pub struct Moto {
    port: u16,
    watchdog: Child,
    /// Closing it stops the server.
    _line: Option<ChildStdin>,
}

impl Moto {
    /// The server that all tests of this binary share.
    ///
    /// # Panics
    /// With a sentence that says what is missing, where no server can be started.
    pub fn shared() -> &'static Moto {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        SHARED.get_or_init(|| Moto::start().unwrap_or_else(|e| panic!("{e}")))
    }

    fn start() -> io::Result<Moto> {
        if !Path::new(PROGRAM).exists() {
            return Err(io::Error::other("these tests need moto: run `scripts/setup test`"));
        }
        // Another process may take the port before the server does; then it does not come up, and
        // the tests say so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCHDOG, "moto-watchdog", PROGRAM, "-H", "127.0.0.1", "-p"])
            .arg(port.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let line = watchdog.stdin.take();
        let moto = Moto { port, watchdog, _line: line };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > START_TIMEOUT {
                return Err(io::Error::other("moto_server does not come up"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(moto)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes instances, all of one reservation.
    pub fn run_instances(&self, region: &str, count: usize, name: Option<&str>) -> Vec<InstanceId> {
        let tag = name.map_or(String::new(), |name| {
            format!(
                "&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=Name\
                 &TagSpecification.1.Tag.1.Value={name}"
            )
        });
        let form = format!(
            "Action=RunInstances&ImageId=ami-12c6146b&MinCount={count}&MaxCount={count}{tag}"
        );
        let answer = self.ask(region, &form).expect("moto answers");
        let mut ids: Vec<_> = answer
            .split("<instanceId>")
            .skip(1)
            .filter_map(|rest| Some(InstanceId(rest.split_once('<')?.0.to_owned())))
            .collect();
        ids.dedup();
        assert_eq!(ids.len(), count, "{answer}");
        ids
    }

    /// One call of the EC2 API, in its own words.
    pub fn ask(&self, region: &str, form: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        // It believes any signature, but reads service and region in it.
        write!(
            stream,
            "POST / HTTP/1.0\r\nHost: ec2.{region}.amazonaws.com\r\n\
             Authorization: AWS4-HMAC-SHA256 Credential=test/20260101/{region}/ec2/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n\
             Version=2016-11-15&{form}",
            form.len() + "Version=2016-11-15&".len(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self._line = None;
        // It only reaps: the watchdog ends by itself.
        let _ = self.watchdog.wait();
    }
}

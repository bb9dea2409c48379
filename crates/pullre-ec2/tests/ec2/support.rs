//! EC2's end of the line, for what moto never says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pullre::config::Secret;
use pullre_ec2::{Ec2, Ec2Access, Timings};

/// What one request asks: the form of the EC2 API.
#[derive(Debug, Clone)]
pub struct Asked(pub String);

impl Asked {
    pub fn action(&self) -> &str {
        self.values("Action=").next().unwrap_or_default()
    }

    /// The values of all fields whose `name=` begins so; they hold nothing that needs decoding.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.0.split('&').filter(move |field| field.starts_with(name));
        fields.filter_map(|field| Some(field.split_once('=')?.1))
    }
}

pub enum Answer {
    Xml(u16, String),
    /// Half of what it promised.
    Cut(String),
    /// Nothing at all, until the other side gives up.
    Silence,
}

/// EC2's XML around an error.
pub fn error(status: u16, code: &str, message: &str) -> Answer {
    Answer::Xml(
        status,
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code>\
             <Message>{message}</Message></Error></Errors><RequestID>r-1</RequestID></Response>"
        ),
    )
}

/// A page of instances, one in each reservation; `more` is XML after the list.
pub fn page(instances: &[String], more: &str) -> String {
    let items: String = instances
        .iter()
        .map(|instance| {
            format!(
                "<item><reservationId>r-1</reservationId><instancesSet><item>{instance}</item>\
                 </instancesSet></item>"
            )
        })
        .collect();
    format!(
        "<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>r-1</requestId><reservationSet>{items}</reservationSet>{more}\
         </DescribeInstancesResponse>"
    )
}

/// The least that EC2 says of an instance.
pub fn instance(id: &str, state: &str) -> String {
    format!("<instanceId>{id}</instanceId><instanceState><name>{state}</name></instanceState>")
}

#[derive(Debug, Clone)]
pub struct FakeEc2 {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl FakeEc2 {
    pub fn new(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> FakeEc2 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        FakeEc2 { url, asked }
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub fn client(&self) -> Ec2 {
        // Whoever waits for an answer that never comes need not wait long.
        self.patient_client(Duration::from_secs(600))
    }

    pub fn impatient_client(&self) -> Ec2 {
        self.patient_client(Duration::from_millis(200))
    }

    fn patient_client(&self, operation: Duration) -> Ec2 {
        let timings =
            Timings { operation, backoff: Duration::from_millis(1), ..Timings::default() };
        client(&self.url, "ap-northeast-1", timings)
    }
}

pub fn client(url: &str, region: &str, timings: Timings) -> Ec2 {
    Ec2::new(Ec2Access {
        region: region.into(),
        endpoint_url: Some(url.into()),
        keys: Some((Secret::new("AKIAKEYID"), Secret::new("s3cr3t"))),
        timings,
    })
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked) -> Answer) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut length = 0;
    loop {
        let mut line = String::new();
        // A client that leaves early is part of the tests.
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let asked = Asked(String::from_utf8(body).unwrap());
    log.lock().unwrap().push(asked.clone());
    let (status, body, sent) = match answer(&asked) {
        Answer::Xml(status, body) => (status, body.clone(), body),
        Answer::Cut(body) => (200, body.clone(), body[..body.len() / 2].to_owned()),
        Answer::Silence => {
            let _ = reader.read(&mut [0]);
            return;
        }
    };
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: text/xml\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{sent}",
        body.len()
    );
}

//! What a probe says of what it finds.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use pullre_http::probe::{ProbeError, Prober, without_credentials};

const LONG: Duration = Duration::from_secs(10);

/// Answers one connection with these bytes, in a thread that ends with it. The thread hands back
/// the request.
fn answering(answer: Vec<u8>) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap();
        // The client may have seen enough before all is written.
        let _ = stream.write_all(&answer);
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    (address, thread)
}

fn http(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn every_status_is_an_answer_and_a_redirect_is_not_followed() {
    for (status, headers) in [
        ("200 OK", ""),
        ("302 Found", "location: http://127.0.0.1:1/\r\n"),
        ("404 Not Found", ""),
        ("500 Internal Server Error", ""),
    ] {
        let (address, _) = answering(http(status, headers, b"here"));
        let answer = Prober::new().probe(&format!("http://{address}/"), LONG).unwrap();
        assert!(status.starts_with(&answer.status.to_string()));
        assert_eq!(answer.body, "here");
    }
}

#[test]
fn a_body_is_read_up_to_64_kib_and_need_not_be_text() {
    let (address, _) = answering(http("200 OK", "", &vec![b'x'; 1 << 20]));
    let answer = Prober::new().probe(&format!("http://{address}"), LONG).unwrap();
    assert_eq!(answer.body.len(), 64 << 10);
    let (address, _) = answering(http("200 OK", "", b"a\xffb"));
    let answer = Prober::new().probe(&format!("http://{address}"), LONG).unwrap();
    assert_eq!(answer.body, "a\u{fffd}b");
}

#[test]
fn a_name_and_password_in_the_url_are_sent_and_never_shown() {
    let (address, server) = answering(http("200 OK", "", b""));
    let url = format!("http://bob:hunter2@{address}/");
    Prober::new().probe(&url, LONG).unwrap();
    let request = server.join().unwrap().to_lowercase();
    assert!(request.contains("authorization: basic "), "{request}");

    // Nobody listens on port 1; other tests may listen by now where that server was.
    let err = Prober::new().probe("http://bob:hunter2@127.0.0.1:1/", LONG).unwrap_err();
    let url = "http://127.0.0.1:1/".to_owned();
    assert_eq!(err, ProbeError::Refused { url });
    assert!(!format!("{err} {err:?}").contains("hunter2"));
}

#[test]
fn silence_and_a_body_that_trickles_time_out() {
    let short = Duration::from_millis(100);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let err = Prober::new().probe(&url, short).unwrap_err();
    assert_eq!(err.to_string(), format!("{url} does not answer within 100ms"));

    let trickling = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", trickling.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut stream, _) = trickling.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        let mut chunk: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n";
        // Ends when the client has gone.
        while stream.write_all(chunk).is_ok() {
            chunk = b"x";
            thread::sleep(Duration::from_millis(20));
        }
    });
    let err = Prober::new().probe(&url, short).unwrap_err();
    assert!(matches!(err, ProbeError::TimedOut { .. }), "{err:?}");
    server.join().unwrap();
}

#[test]
fn tls_that_fails_is_called_tls() {
    let (address, _) = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec());
    let err = Prober::new().probe(&format!("https://{address}/"), LONG).unwrap_err();
    let text = err.to_string();
    assert!(text.contains("no TLS that can be trusted"), "{text}");
}

#[test]
fn what_is_no_url_is_said_without_its_password() {
    for bad in ["", "stg1", "ftp://bob:hunter2@x/", "bob:hunter2@stg1", "http://bob:hunter2@:80x/"]
    {
        let err = Prober::new().probe(bad, LONG).unwrap_err();
        assert!(matches!(err, ProbeError::BadUrl { .. }), "{bad}: {err:?}");
        assert!(!format!("{err} {err:?}").contains("hunter2"), "{err:?}");
    }
}

#[test]
fn a_url_is_shown_without_its_credentials() {
    for (url, shown) in [
        ("https://bob:hunter2@stg1.example/a?b=c@d", "https://stg1.example/a?b=c@d"),
        ("http://bob@stg1:8080", "http://stg1:8080/"),
        ("http://stg1/", "http://stg1/"),
        ("http://bob:p/w@stg1:99999/", "http://stg1:99999/"),
        ("bob:hunter2@stg1", "stg1"),
        ("a\u{1b}[31mb", "a[31mb"),
    ] {
        assert_eq!(without_credentials(url), shown);
    }
}

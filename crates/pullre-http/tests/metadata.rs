//! Asking a machine which EC2 instance it is.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use pullre_http::metadata::instance_id;

/// A metadata service that gives `id` to those who show its token, and its URL.
fn service(id: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).unwrap().to_lowercase();
            let (status, body) = if request.starts_with("put /latest/api/token")
                && request.contains("x-aws-ec2-metadata-token-ttl-seconds:")
            {
                ("200 OK", "secret-token")
            } else if request.contains("x-aws-ec2-metadata-token: secret-token") {
                ("200 OK", id)
            } else {
                ("401 Unauthorized", "")
            };
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close");
            write!(stream, "{head}\r\n\r\n{body}").unwrap();
        }
    });
    url
}

#[test]
fn an_instance_is_told_its_id_after_it_has_shown_a_token() {
    assert_eq!(instance_id(&service("i-0abc123")), Ok("i-0abc123".to_owned()));
}

#[test]
fn where_nobody_answers_it_is_no_instance() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(instance_id(&url).unwrap_err(), "no instance metadata service answers");
}

#[test]
fn what_is_no_instance_id_is_not_taken_for_one() {
    let why = instance_id(&service("<html>captive portal</html>")).unwrap_err();
    assert_eq!(why, "the instance metadata service tells no instance id");
}

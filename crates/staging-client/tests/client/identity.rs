//! A machine of its own finds out which server it is, where the control database is MySQL.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use crate::world::{World, assert_says};

/// A metadata service that says `id` to whoever asks for it with its token, and that the machine
/// has a role; its URL.
pub fn metadata_service(id: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let request: Vec<_> =
                lines.by_ref().map(Result::unwrap).take_while(|line| !line.is_empty()).collect();
            let body = match request[0].starts_with("PUT") {
                true => "token",
                false if request[0].contains("security-credentials") => "web-server\n",
                false => id,
            };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}", body.len());
            write!(stream, "{head}\r\nconnection: close\r\n\r\n{body}").unwrap();
        }
    });
    url
}

#[test]
fn by_its_metadata_an_instance_finds_itself_and_deploys() {
    let mut world = World::on_mariadb();
    world.by_hand("UPDATE servers SET instance_id = 'i-0abc' WHERE name = 'stg1'");
    world.push_and_offer(&[("version", "one")]);
    let mut client = world.client(&[]);
    client.env_remove("AWS_EC2_METADATA_DISABLED");
    client.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata_service("i-0abc"));
    let output = client.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    world.assert_serves("one");
}

#[test]
fn a_machine_that_cannot_tell_who_it_is_says_what_to_set() {
    let mut world = World::on_mariadb();
    world.by_hand("UPDATE servers SET private_ip = '127.0.0.1'");
    world.push_and_offer(&[("version", "one")]);
    let ran = world.tick().fails();
    assert_says(&ran.err, &["AWS_EC2_METADATA_DISABLED", "private_ip", "set `instance_id`"]);
    world.set("instance_id", "i-9");
    assert_says(&world.tick().fails().err, &["\"i-9\"", "stg1"]);
    world.set("instance_id", "stg1");
    world.tick().ok();
    world.assert_serves("one");
}

#[test]
fn by_one_of_its_addresses_a_machine_finds_itself() {
    let mut world = World::on_mariadb();
    // The address by which others would reach this machine; nothing is sent to find it out.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let outside = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    let Ok(address) = outside.map(|address| address.ip()) else {
        return; // A machine without any network has no address to be found by.
    };
    world.by_hand(&format!("UPDATE servers SET private_ip = '{address}'"));
    world.push_and_offer(&[("version", "one")]);
    if address.is_loopback() {
        world.tick().fails();
    } else {
        world.tick().ok();
        world.assert_serves("one");
    }
}

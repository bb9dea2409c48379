//! EC2 as `moto` plays it: one server for each test binary, on a port of its own, nothing left
//! behind. Regions know nothing of each other: a test takes one of its own.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

use pullre::domain::InstanceId;

use crate::peer::{Peer, installed};

#[derive(Debug)]
pub struct Moto {
    peer: Peer,
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
        let program = installed("moto/bin/moto_server")?;
        let args = |port: &str| ["-H", "127.0.0.1", "-p", port].map(str::to_owned).to_vec();
        Ok(Moto { peer: Peer::start(&program, args)? })
    }

    pub fn url(&self) -> String {
        self.peer.url()
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

    /// Makes an instance that has a role of this name.
    pub fn run_instance_with_role(&self, region: &str, role: &str) -> InstanceId {
        let form =
            format!("Version=2010-05-08&Action=CreateInstanceProfile&InstanceProfileName={role}");
        self.call("iam", region, &form).expect("moto answers");
        let id = self.run_instances(region, 1, None).remove(0);
        let form = format!(
            "Action=AssociateIamInstanceProfile&InstanceId={id}&IamInstanceProfile.Name={role}"
        );
        let answer = self.ask(region, &form).expect("moto answers");
        assert!(answer.contains("<state>associat"), "{answer}");
        id
    }

    /// One call of the EC2 API, in its own words.
    pub fn ask(&self, region: &str, form: &str) -> io::Result<String> {
        self.call("ec2", region, &format!("Version=2016-11-15&{form}"))
    }

    fn call(&self, service: &str, region: &str, form: &str) -> io::Result<String> {
        // It believes any signature, but reads service and region in it.
        let headers = format!(
            "Host: {service}.{region}.amazonaws.com\r\n\
             Authorization: AWS4-HMAC-SHA256 \
             Credential=test/20260101/{region}/{service}/aws4_request, \
             SignedHeaders=host, Signature=0\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n"
        );
        Ok(self.peer.ask("POST", "/", &headers, form)?.1)
    }

    /// The state of each instance of the region.
    pub fn states(&self, region: &str) -> BTreeMap<InstanceId, String> {
        let answer = self.ask(region, "Action=DescribeInstances").expect("moto answers");
        let text = |rest: &str, end: &str| rest.split(end).next().unwrap_or_default().to_owned();
        let instances = answer.split("<instanceId>").skip(1);
        instances
            .filter_map(|rest| {
                let (_, state) = rest.split_once("<instanceState>")?;
                let (_, name) = state.split_once("<name>")?;
                Some((InstanceId(text(rest, "<")), text(name, "<")))
            })
            .collect()
    }
}

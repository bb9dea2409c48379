//! What is read of EC2's answers.

use std::collections::BTreeSet;

use crate::support::{Answer, Asked, FakeEc2, instance, page};
use pullre::domain::{Instance, InstanceId, InstanceState};
use pullre::ports::Compute;

/// An EC2 where everything that is asked for exists and is stopped.
fn everything_exists() -> FakeEc2 {
    FakeEc2::new(|asked: &Asked| {
        let values: Vec<_> =
            asked.values("Filter.1.Value.").map(|id| instance(id, "stopped")).collect();
        Answer::Xml(200, page(&values, ""))
    })
}

#[test]
fn four_hundred_and_fifty_servers_take_three_requests() {
    let fake = everything_exists();
    let ids: Vec<_> = (0..450).map(|n| InstanceId(format!("i-{n:017x}"))).collect();
    let found = fake.client().describe(&ids).unwrap();

    let found: BTreeSet<_> = found.into_iter().map(|instance| instance.id).collect();
    assert_eq!(found, ids.into_iter().collect());
    let asked: Vec<_> = fake.asked().iter().map(|a| a.values("Filter.1.Value.").count()).collect();
    assert_eq!(asked, [200, 200, 50]);
}

#[test]
fn no_server_takes_no_request() {
    let fake = everything_exists();
    assert!(fake.client().describe(&[]).unwrap().is_empty());
    assert!(fake.asked().is_empty());
}

#[test]
fn a_name_that_is_no_instance_id_is_never_asked_for() {
    let fake = everything_exists();
    let ids = ["*", "stg1", "i-0123456789abcdef0"].map(|id| InstanceId(id.into()));
    let found = fake.client().describe(&ids).unwrap();
    assert_eq!(found.len(), 1);
    let asked = fake.asked();
    assert_eq!(asked[0].values("Filter.1.Value.").collect::<Vec<_>>(), ["i-0123456789abcdef0"]);
}

#[test]
fn the_whole_account_is_read_page_by_page() {
    let fake = FakeEc2::new(|asked: &Asked| {
        let (id, more) = match asked.values("NextToken=").next() {
            None => ("i-1", "<nextToken>two</nextToken>"),
            Some("two") => ("i-2", "<nextToken>three</nextToken>"),
            Some(_) => ("i-3", "<nextToken/>"),
        };
        Answer::Xml(200, page(&[instance(id, "running")], more))
    });
    let found = fake.client().list().unwrap();
    assert_eq!(found.iter().map(|i| i.id.0.as_str()).collect::<Vec<_>>(), ["i-1", "i-2", "i-3"]);
    assert_eq!(fake.asked().len(), 3);
    assert!(fake.asked().iter().all(|asked| asked.action() == "DescribeInstances"));
}

#[test]
fn a_bare_instance_is_an_instance() {
    let body = page(&[instance("i-1", "shutting-down")], "");
    let found = FakeEc2::new(move |_| Answer::Xml(200, body.clone())).client().list().unwrap();
    let expected = Instance {
        id: InstanceId("i-1".into()),
        // It never comes back.
        state: InstanceState::Terminated,
        name: None,
        private_ip: None,
        reason: None,
        role: None,
    };
    assert_eq!(found, [expected]);
}

#[test]
fn the_role_of_an_instance_is_read() {
    const ARN: &str = "arn:aws:iam::123456789012:instance-profile/builder";
    let profile = format!(
        "{}<iamInstanceProfile><arn>{ARN}</arn><id>AIPA</id></iamInstanceProfile>",
        instance("i-1", "running")
    );
    let body = page(&[profile], "");
    let found = FakeEc2::new(move |_| Answer::Xml(200, body.clone())).client().list().unwrap();
    assert_eq!(found[0].role.as_deref(), Some(ARN));
}

#[test]
fn why_an_instance_fell_back_is_read() {
    let fallen = format!(
        "{}<reason/><stateReason><code>Server.InsufficientInstanceCapacity</code>\
         <message>Server.InsufficientInstanceCapacity: no capacity</message></stateReason>",
        instance("i-1", "stopped")
    );
    let body = page(&[fallen], "");
    let found = FakeEc2::new(move |_| Answer::Xml(200, body.clone())).client().list().unwrap();
    let reason = found[0].reason.as_deref();
    assert_eq!(reason, Some("Server.InsufficientInstanceCapacity: no capacity"));
}

#[test]
fn a_state_that_nobody_knows_is_not_guessed_at() {
    let body = page(&[instance("i-1", "hibernating")], "");
    let e = FakeEc2::new(move |_| Answer::Xml(200, body.clone())).client().list().unwrap_err();
    assert!(e.to_string().contains("hibernating"), "{e}");
}

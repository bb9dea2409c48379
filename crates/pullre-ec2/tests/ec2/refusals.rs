//! What EC2 refuses, and how it fails.

use crate::support::{Answer, FakeEc2, error, page};
use pullre::domain::InstanceId;
use pullre::ports::{Compute, ComputeError};

fn id() -> InstanceId {
    InstanceId("i-0123456789abcdef0".into())
}

/// What comes of a start that EC2 refuses so.
fn start(status: u16, code: &'static str, message: &'static str) -> ComputeError {
    let fake = FakeEc2::new(move |_| error(status, code, message));
    fake.client().start(&id()).unwrap_err()
}

#[test]
fn a_stopping_instance_cannot_be_started_yet() {
    let e = start(
        400,
        "IncorrectInstanceState",
        "The instance 'i-0123456789abcdef0' is not in a state from which it can be started.",
    );
    assert_eq!(
        e.to_string(),
        "instance i-0123456789abcdef0 cannot do that now: The instance 'i-0123456789abcdef0' is \
         not in a state from which it can be started (IncorrectInstanceState); the next tick tries \
         again"
    );
    assert!(matches!(e, ComputeError::WrongState { .. }));
}

#[test]
fn a_full_zone_and_a_full_account_are_a_lack_of_capacity() {
    for (status, code) in [
        (500, "InsufficientInstanceCapacity"),
        (400, "InstanceLimitExceeded"),
        (400, "VcpuLimitExceeded"),
    ] {
        let e = start(status, code, "There is no Spot capacity.");
        let ComputeError::NoCapacity { detail, .. } = &e else { panic!("{e:?}") };
        assert_eq!(*detail, format!("There is no Spot capacity ({code})"));
    }
}

#[test]
fn a_missing_permission_is_named_and_the_remedy_too() {
    let e = start(
        403,
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. Encoded authorization failure message: 4Q",
    );
    assert_eq!(
        e,
        ComputeError::Denied(
            "the AWS credentials lack ec2:StartInstances: You are not authorized to perform this \
             operation (UnauthorizedOperation); docs/EC2.md has the policy that they need"
                .into()
        )
    );
}

#[test]
fn a_rehearsal_tells_which_permission_is_missing_and_switches_nothing() {
    let permitted = "Request would have succeeded, but DryRun flag is set.";
    let fake = FakeEc2::new(move |asked| {
        assert_eq!(asked.values("DryRun=").next(), Some("true"));
        match asked.action() {
            "StartInstances" => error(412, "DryRunOperation", permitted),
            _ => error(403, "UnauthorizedOperation", "You are not authorized."),
        }
    });
    let e = fake.client().may_switch(&id()).unwrap_err();
    assert!(e.to_string().contains("lack ec2:StopInstances"), "{e}");
    let fake = FakeEc2::new(move |_| error(412, "DryRunOperation", permitted));
    fake.client().may_switch(&id()).unwrap();
}

#[test]
fn a_rehearsal_that_was_carried_out_is_no_permission_and_is_not_repeated() {
    let done = "<StartInstancesResponse><instancesSet/></StartInstancesResponse>";
    let fake = FakeEc2::new(move |_| Answer::Xml(200, done.into()));
    let e = fake.client().may_switch(&id()).unwrap_err();
    assert!(e.to_string().contains("was carried out"), "{e}");
    assert_eq!(fake.asked().len(), 1);
}

#[test]
fn wrong_and_expired_credentials_are_told_apart() {
    let wrong = start(401, "AuthFailure", "AWS was not able to validate the credentials");
    assert!(wrong.to_string().contains("EC2 does not accept the AWS credentials"), "{wrong}");
    for code in ["ExpiredToken", "RequestExpired"] {
        let expired = start(400, code, "Request has expired.");
        assert!(expired.to_string().contains("have expired"), "{expired}");
        assert!(matches!(expired, ComputeError::Denied(_)));
    }
}

#[test]
fn an_unknown_instance_is_said_to_be_unknown() {
    for code in ["InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed"] {
        assert_eq!(start(400, code, "no"), ComputeError::NoInstance(id()));
    }
}

#[test]
fn what_only_a_person_can_change_is_not_called_a_fault_of_the_line() {
    let e = start(400, "OperationNotPermitted", "The instance has no usable root volume.");
    assert_eq!(
        e.to_string(),
        "the compute provider refuses it: The instance has no usable root volume \
         (OperationNotPermitted)"
    );
}

#[test]
fn who_asks_too_often_is_heard_at_the_next_try() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let fake = FakeEc2::new(move |_| {
        if first.swap(false, std::sync::atomic::Ordering::Relaxed) {
            error(503, "RequestLimitExceeded", "Request limit exceeded.")
        } else {
            Answer::Xml(200, page(&[crate::support::instance(&id().0, "stopped")], ""))
        }
    });
    assert_eq!(fake.client().describe(&[id()]).unwrap().len(), 1);
    assert_eq!(fake.asked().len(), 2);
}

#[test]
fn who_asks_too_often_for_too_long_is_told_so() {
    let fake = FakeEc2::new(|_| error(503, "RequestLimitExceeded", "Request limit exceeded."));
    let e = fake.client().describe(&[id()]).unwrap_err();
    assert_eq!(
        e,
        ComputeError::Unavailable(
            "EC2 is asked too often: Request limit exceeded (RequestLimitExceeded)".into()
        )
    );
    assert_eq!(fake.asked().len(), 3);
}

#[test]
fn silence_has_an_end() {
    let e = FakeEc2::new(|_| Answer::Silence).impatient_client().list().unwrap_err();
    assert_eq!(e, ComputeError::Unavailable("EC2 does not answer in time".into()));
}

#[test]
fn half_an_answer_is_none() {
    let body = page(&[crate::support::instance(&id().0, "running")], "");
    let e = FakeEc2::new(move |_| Answer::Cut(body.clone())).client().list().unwrap_err();
    assert!(matches!(e, ComputeError::Unavailable(_)), "{e:?}");
}

#[test]
fn an_answer_about_something_else_does_not_read_as_no_instances() {
    for body in ["<html><body>Sign in</body></html>", "", "<DescribeInstancesResponse/>", "{}"] {
        let e = FakeEc2::new(move |_| Answer::Xml(200, body.into())).client().list().unwrap_err();
        assert!(matches!(e, ComputeError::Unavailable(_)), "{body}: {e:?}");
    }
}

#[test]
fn a_list_without_end_is_given_up() {
    let body = page(&[], "<nextToken>again</nextToken>");
    let e = FakeEc2::new(move |_| Answer::Xml(200, body.clone())).client().list().unwrap_err();
    assert!(e.to_string().contains("does not end"), "{e}");
}

#[test]
fn an_address_where_nobody_listens_is_a_fault_of_the_line() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let timings =
        pullre_ec2::Timings { backoff: std::time::Duration::from_millis(1), ..Default::default() };
    let ec2 = crate::support::client(&format!("http://{free}"), "ap-northeast-1", timings);
    let e = ec2.list().unwrap_err();
    assert!(matches!(e, ComputeError::Unavailable(_)), "{e:?}");
    assert!(e.to_string().contains("refused"), "{e}");
}

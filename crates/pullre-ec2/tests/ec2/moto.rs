//! Against an EC2 that somebody else wrote.

use pullre::domain::{InstanceId, InstanceState};
use pullre::ports::{Compute, ComputeError};
use pullre_ec2::{Ec2, Timings};
use testkit::moto::Moto;

fn ec2(region: &str) -> Ec2 {
    crate::support::client(&Moto::shared().url(), region, Timings::default())
}

#[test]
fn an_instance_is_stopped_and_started() {
    let region = "ap-northeast-1";
    let id = Moto::shared().run_instances(region, 1, None).remove(0);
    let ec2 = ec2(region);
    let state = || ec2.describe(std::slice::from_ref(&id)).unwrap()[0].state;
    assert_eq!(state(), InstanceState::Running);
    // Twice is no error.
    ec2.stop(&id).unwrap();
    ec2.stop(&id).unwrap();
    assert_eq!(state(), InstanceState::Stopped);
    ec2.start(&id).unwrap();
    ec2.start(&id).unwrap();
    assert_eq!(state(), InstanceState::Running);
}

#[test]
fn instances_of_several_reservations_are_found_by_name_and_address() {
    let (moto, region) = (Moto::shared(), "eu-west-1");
    let named = moto.run_instances(region, 2, Some("web"));
    let bare = moto.run_instances(region, 1, None);
    let found = ec2(region).describe(&[named.clone(), bare.clone()].concat()).unwrap();
    assert_eq!(found.len(), 3);
    for instance in found {
        let name = (!bare.contains(&instance.id)).then_some("web");
        assert_eq!(instance.name.as_deref(), name);
        assert!(instance.private_ip.is_some());
    }
}

#[test]
fn a_vanished_instance_hides_no_other() {
    let region = "us-east-1";
    let here = Moto::shared().run_instances(region, 1, None).remove(0);
    let gone = InstanceId("i-0fffffffffffffff0".into());
    let found = ec2(region).describe(&[gone.clone(), here.clone()]).unwrap();
    assert_eq!(found.into_iter().map(|i| i.id).collect::<Vec<_>>(), [here]);
    assert_eq!(ec2(region).start(&gone), Err(ComputeError::NoInstance(gone)));
}

#[test]
fn a_terminated_instance_is_told_apart_from_a_stopped_one() {
    let (moto, region) = (Moto::shared(), "us-west-2");
    let id = moto.run_instances(region, 1, None).remove(0);
    moto.ask(region, &format!("Action=TerminateInstances&InstanceId.1={id}")).unwrap();
    let found = ec2(region).describe(&[id]).unwrap();
    assert_eq!(found[0].state, InstanceState::Terminated);
}

#[test]
fn the_list_has_every_instance_of_the_account() {
    let (moto, region) = (Moto::shared(), "eu-central-1");
    let mut ids = moto.run_instances(region, 30, None);
    ids.extend(moto.run_instances(region, 5, Some("last")));
    let mut found: Vec<_> = ec2(region).list().unwrap().into_iter().map(|i| i.id).collect();
    ids.sort();
    found.sort();
    assert_eq!(found, ids);
}

use std::time::Duration;
#[derive(Debug)]
pub struct CloneOutcome {
    pub bytes: u64,
    pub elapsed: Duration,
}

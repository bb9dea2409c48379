//! Looking again and again within one run of cron, `poll_seconds` apart.

use std::time::Duration;

/// How many seconds a run goes on: cron starts the next one then.
const RUN: u64 = 55;

/// When the next look is due, counted from the run's beginning: at whole multiples, so that looks
/// that take their time open no gap at the end of the minute. None when the run is over, or was
/// never to look again.
pub fn next_look(elapsed: Duration, every: u32) -> Option<Duration> {
    next(elapsed, every, 0)
}

/// The same for the staging client. cron starts both programs at the same second: a second after
/// the controller's look what it has found is there to be taken up, and not a whole pause later.
pub fn next_look_behind(elapsed: Duration, every: u32) -> Option<Duration> {
    next(elapsed, every, if every > 2 { 1 } else { 0 })
}

fn next(elapsed: Duration, every: u32, behind: u64) -> Option<Duration> {
    let every = Some(u64::from(every)).filter(|every| *every > 0)?;
    let number = match elapsed.as_secs().checked_sub(behind) {
        Some(since) => since / every + 1,
        None => u64::from(behind == 0),
    };
    let next = number * every + behind;
    (next <= RUN + behind).then(|| Duration::from_secs(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_at_whole_multiples_up_to_the_end_of_the_run() {
        let next = |elapsed: u64, every| {
            next_look(Duration::from_millis(elapsed), every).map(|next| next.as_secs())
        };
        assert_eq!(next(30, 5), Some(5));
        assert_eq!(next(5_040, 5), Some(10));
        // A look that took long.
        assert_eq!(next(17_000, 5), Some(20));
        assert_eq!(next(50_900, 5), Some(55));
        assert_eq!(next(55_040, 5), None);
        assert_eq!(next(3_000_000, 5), None);
        assert_eq!(next(10, 0), None);
        assert_eq!(next(10, 55), Some(55));
    }

    #[test]
    fn a_client_looks_a_second_after_the_controller_and_as_often() {
        let mut looks = Vec::new();
        let mut at = Duration::ZERO;
        while let Some(next) = next_look_behind(at, 5) {
            looks.push(next.as_secs());
            at = next + Duration::from_millis(30);
        }
        assert_eq!(looks, [1, 6, 11, 16, 21, 26, 31, 36, 41, 46, 51, 56]);
        assert_eq!(next_look_behind(Duration::ZERO, 1), Some(Duration::from_secs(1)));
        assert_eq!(next_look_behind(Duration::ZERO, 0), None);
    }
}

//! Looking again and again within one run of cron, `poll_seconds` apart.

use std::time::Duration;

/// How long a run goes on: cron starts the next one then.
const RUN: Duration = Duration::from_secs(55);

/// When the next look is due, counted from the run's beginning: at whole multiples, so that looks
/// that take their time open no gap at the end of the minute. None when the run is over, or was
/// never to look again.
pub fn next_look(elapsed: Duration, every: u32) -> Option<Duration> {
    let every = Some(every).filter(|every| *every > 0)?;
    let number = u32::try_from(elapsed.as_secs()).ok()? / every + 1;
    let next = Duration::from_secs(u64::from(number) * u64::from(every));
    (next <= RUN).then_some(next)
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
}

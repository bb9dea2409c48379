//! How far a clone is, on stderr.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use pullre::schema_clone::{Phase, Progress};
use pullre::words;

/// One line on a terminal that counts up while a clone runs, with the time that is left; elsewhere
/// one line for each phase; with `--json` nothing.
#[derive(Debug)]
pub struct ProgressLine {
    form: Form,
    phase: Option<Phase>,
    /// Since when rows are copied.
    copying: Instant,
    drawn: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Redrawn,
    Lines,
    Silent,
}

impl ProgressLine {
    pub fn new(as_json: bool) -> ProgressLine {
        let form = match as_json {
            true => Form::Silent,
            false if io::stderr().is_terminal() => Form::Redrawn,
            false => Form::Lines,
        };
        ProgressLine { form, phase: None, copying: Instant::now(), drawn: None }
    }

    pub fn show(&mut self, progress: Progress) {
        let now = Instant::now();
        let new_phase = self.phase != Some(progress.phase);
        if new_phase {
            self.phase = Some(progress.phase);
            self.copying = now;
        }
        let due = self.drawn.is_none_or(|at| now - at >= Duration::from_millis(200));
        // Whoever closed our stderr wants no more lines; the clone goes on all the same.
        let _ = match self.form {
            Form::Redrawn if new_phase || due => {
                self.drawn = Some(now);
                let text = sentence(&progress, now - self.copying);
                write!(io::stderr(), "\r\x1b[K{text}")
            }
            Form::Lines if new_phase => {
                writeln!(io::stderr(), "{}", sentence(&progress, Duration::ZERO))
            }
            Form::Redrawn | Form::Lines | Form::Silent => Ok(()),
        };
    }

    pub fn end(&mut self) {
        if self.drawn.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

fn sentence(p: &Progress, elapsed: Duration) -> String {
    let what = p.phase.word();
    if p.phase != Phase::Copying {
        return what.to_owned();
    }
    if p.copied_bytes == 0 {
        return match p.total_tables {
            0 => format!("{what} {}", words::bytes(p.total_bytes)),
            tables => format!("{what} {tables} tables, {}", words::bytes(p.total_bytes)),
        };
    }
    let (copied, total) = (words::bytes(p.copied_bytes), words::bytes(p.total_bytes));
    let tables = match p.total_tables {
        0 => String::new(),
        all => format!("{} of {all} tables, {} rows, ", p.tables, p.rows),
    };
    let left = left(p.copied_bytes, p.total_bytes, elapsed);
    let left = left.map_or(String::new(), |left| format!(", {} left", words::duration(left)));
    format!("{what}: {tables}{copied} of {total}{left}")
}

/// Not told before there is something to reckon with.
fn left(copied: u64, total: u64, elapsed: Duration) -> Option<Duration> {
    if copied == 0 || elapsed < Duration::from_secs(1) {
        return None;
    }
    let rate = copied as f64 / elapsed.as_secs_f64();
    Duration::try_from_secs_f64((total.saturating_sub(copied)) as f64 / rate).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_done_and_how_long_the_rest_takes() {
        let copying = Progress {
            phase: Phase::Copying,
            copied_bytes: 100_000_000,
            total_bytes: 400_000_000,
            tables: 12,
            total_tables: 60,
            rows: 34_000,
        };
        let said = sentence(&copying, Duration::from_secs(10));
        assert_eq!(said, "copying: 12 of 60 tables, 34000 rows, 100.0 MB of 400.0 MB, 30 s left");
        let begun = Progress { copied_bytes: 0, tables: 0, rows: 0, ..copying };
        assert_eq!(sentence(&begun, Duration::ZERO), "copying 60 tables, 400.0 MB");
        let swapping = Progress { phase: Phase::Swapping, ..copying };
        assert_eq!(sentence(&swapping, Duration::ZERO), "putting the clone in place");
        assert_eq!(left(10, 5, Duration::from_secs(2)), Some(Duration::ZERO));
        assert_eq!(left(10, 50, Duration::from_millis(10)), None);
    }
}

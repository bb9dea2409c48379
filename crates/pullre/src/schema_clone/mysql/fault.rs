//! What is told of a failure.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Job;
use super::source::READING_OURS;
use crate::schema_clone::CloneError;
use crate::store::StoreError;

/// A failure before it is known what it means for the clone.
#[derive(Debug)]
pub(super) enum Fault {
    Sql {
        doing: &'static str,
        object: Option<String>,
        error: mysql::Error,
    },
    TimedOut {
        doing: &'static str,
    },
    /// The source is not any more what was read; says what. Another try may succeed.
    Altered(String),
    /// The same of what is in the destination.
    Disturbed(String),
    Told(CloneError),
}

impl From<CloneError> for Fault {
    fn from(e: CloneError) -> Fault {
        Fault::Told(e)
    }
}

impl Fault {
    pub fn code(&self) -> Option<u16> {
        match self {
            Fault::Sql { error: mysql::Error::MySqlError(e), .. } => Some(e.code),
            _ => None,
        }
    }

    /// Whether the connection is of no use any more.
    pub fn is_lost(&self) -> bool {
        match self {
            Fault::Sql { .. } => {
                self.code().is_none_or(|code| matches!(code, 1053 | 1317 | 1927 | 4031))
            }
            _ => false,
        }
    }

    /// Names what it was about, where that is not known yet.
    pub fn about(self, name: &str) -> Fault {
        match self {
            Fault::Sql { doing, object: None, error } => {
                Fault::Sql { doing, object: Some(name.to_owned()), error }
            }
            other => other,
        }
    }

    /// The login may not do it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.code(), Some(1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1418 | 1419 | 1290))
    }

    /// A function that copies may not be made, or is not understood.
    pub fn makes_no_function(&self) -> bool {
        self.is_forbidden() || self.code() == Some(1064)
    }

    /// Somebody else has a lock.
    pub fn is_busy(&self) -> bool {
        matches!(self.code(), Some(1205 | 1213))
    }

    /// Says more exactly what was being done.
    pub fn doing(self, doing: &'static str) -> Fault {
        match self {
            Fault::Sql { object, error, .. } => Fault::Sql { doing, object, error },
            other => other,
        }
    }

    /// As [`Fault::or_altered`], of a schema of ours.
    pub fn or_disturbed(self) -> Fault {
        match self.or_altered() {
            Fault::Altered(why) => Fault::Disturbed(why),
            other => other,
        }
    }

    /// A failure to read what was there when the source was listed.
    pub fn or_altered(self) -> Fault {
        match &self {
            Fault::Sql { object, error, .. }
                if matches!(
                    self.code(),
                    Some(
                        1054 | 1146 | 1412 | 1049 | 1305 | 1360 | 1539 | 1602 | 1109 | 1136 | 1356
                    )
                ) =>
            {
                let name = object.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
                Fault::Altered(format!("{name}{error}"))
            }
            _ => self,
        }
    }
}

const UNCHANGED: &str = "What the schema held before is still there; the clone can be tried again";

const MOVED: &str = "The new tables are in place already; the next clone into it finishes the rest";

impl Job<'_> {
    /// What a caller is told.
    pub(super) fn tell(&self, fault: Fault) -> CloneError {
        let place = self.access.place().to_owned();
        let unchanged = if self.moved.load(Ordering::Relaxed) { MOVED } else { UNCHANGED };
        let (doing, object, error) = match fault {
            Fault::Told(error) => return error,
            Fault::TimedOut { doing } => return self.timed_out(doing),
            Fault::Altered(message) => {
                return CloneError::SourceAltered { schema: self.source.clone(), place, message };
            }
            Fault::Disturbed(message) => {
                let (schema, doing) = (self.destination.clone(), READING_OURS);
                let remedy = "Let whoever is at work on it come to an end. If nobody is, it is damaged: \
                              drop the schema, and the next clone makes it anew";
                return CloneError::Other { schema, place, doing, message, remedy };
            }
            Fault::Sql { doing, object, error } => (doing, object, error),
        };
        if self.remaining().is_zero() || is_time_out(&error) {
            return self.timed_out(doing);
        }
        let about = object.map(|object| format!("{object}: ")).unwrap_or_default();
        let (code, text) = match &error {
            mysql::Error::MySqlError(e) => {
                (e.code, format!("{} (error {})", without_values(e.code, &e.message), e.code))
            }
            other => (0, other.to_string()),
        };
        let message = format!("{about}{text}");
        let schema = self.destination.clone();
        let full = is_disk_full(code, &text);
        tracing::debug!("while {doing}: {message}");
        match code {
            _ if full => CloneError::NoSpace {
                schema,
                place,
                bytes: self.source_bytes.load(Ordering::Relaxed),
                free: None,
            },
            1044 | 1045 | 1142 | 1143 | 1227 | 1370 | 1410 | 1419 | 1290 => {
                CloneError::Forbidden { schema, place, doing, message }
            }
            1205 | 1213 => {
                let remedy = "Somebody holds a lock: end that session, or try again later";
                CloneError::Other { schema, place, doing, message, remedy }
            }
            0 | 1053 | 1927 | 4031 | 1158..=1161 => {
                let remedy = "The connection was lost; look at the server's log, then try again";
                CloneError::Other { schema, place, doing, message, remedy }
            }
            1062 if !self.mask.is_empty() => {
                let remedy = "A masking rule makes rows alike that a key keeps apart: let its \
                              expression give each row a value of its own";
                CloneError::Other { schema, place, doing, message, remedy }
            }
            1822 | 1005 | 1025 if text.contains("150") || code == 1822 => {
                let remedy = "A foreign key leads to columns that no key of its parent begins with: \
                              add that key, or drop the foreign key";
                CloneError::Other { schema, place, doing, message, remedy }
            }
            _ if doing == READING_OURS => {
                let remedy = "Repair it, or drop the schema: the next clone makes it anew";
                CloneError::Other { schema, place, doing, message, remedy }
            }
            _ => CloneError::Other { schema, place, doing, message, remedy: unchanged },
        }
    }

    pub(super) fn connect_fault(&self, error: StoreError) -> Fault {
        Fault::Told(CloneError::Other {
            schema: self.destination.clone(),
            place: self.access.place().to_owned(),
            doing: "connecting",
            message: error.to_string(),
            remedy: UNCHANGED,
        })
    }

    pub(super) fn timed_out(&self, doing: &'static str) -> CloneError {
        CloneError::TimedOut {
            schema: self.source.clone(),
            place: self.access.place().to_owned(),
            timeout: self.timeout,
            doing,
        }
    }

    pub(super) fn remaining(&self) -> Duration {
        // A day at most: the system counts time-outs of sockets in fewer bits than a clock.
        const MOST: Duration = Duration::from_secs(24 * 60 * 60);
        self.deadline.map_or(MOST, |end| end.saturating_duration_since(Instant::now()).min(MOST))
    }

    pub(super) fn check_time(&self, doing: &'static str) -> Result<(), Fault> {
        if self.remaining().is_zero() { Err(Fault::TimedOut { doing }) } else { Ok(()) }
    }
}

/// These errors quote what stood in a row, and what is told of a clone goes to places that its data
/// must not reach.
fn without_values(code: u16, message: &str) -> Cow<'_, str> {
    // From the end, and whole: a value can hold any words, and a quote follows it.
    let behind = |word: &str| message.rfind(word).map_or("", |at| &message[at..]);
    let row = |tail: &&str| {
        let number = tail.rsplit_once(" at row ").map_or("", |(_, number)| number);
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let place = || {
        let function = Some(behind(" for function ")).filter(|tail| !tail.contains('\''));
        Some(behind(" for column ")).filter(row).or(function).unwrap_or("")
    };
    match code {
        1062 | 1586 => format!("two rows are alike{}", behind(" for key ")).into(),
        1292 | 1366 | 1367 | 1411 | 1525 => format!("a value does not fit{}", place()).into(),
        1526 => "a row fits no partition".into(),
        _ => message.into(),
    }
}

/// Whether the server found no room on its disk. Of a temporary file that could not grow (14) it tells
/// a number that is no errno; another reason than a full disk was not seen.
fn is_disk_full(code: u16, text: &str) -> bool {
    matches!(code, 14 | 20 | 1021 | 1114)
        || (matches!(code, 3 | 1026 | 1030) && text.contains("28"))
        || text.contains("No space left")
}

fn is_time_out(error: &mysql::Error) -> bool {
    let mysql::Error::IoError(io) = error else { return false };
    matches!(io.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_known_however_the_server_tells_of_it() {
        for (code, text) in [
            (1114, "The table 't' is full"),
            (1030, "Got error 28 \"No space left on device\" from storage engine InnoDB"),
            (3, "Error writing file '/tmp/ML8f' (Errcode: 28 \"No space left on device\")"),
            (1021, "Disk full (/tmp/ML8f); waiting for someone to free some space..."),
            (20, "Disk is full writing '/tmp/ML8f'. Waiting for someone to free space..."),
            (14, "Can't change size of file (Errcode: 1409651232 \"Unknown error 1409651232\")"),
        ] {
            assert!(is_disk_full(code, text), "{code} {text}");
        }
        assert!(!is_disk_full(1030, "Got error 176 \"Read page with wrong checksum\""));
    }

    #[test]
    fn what_stood_in_a_row_is_not_told() {
        let value = "alice's for key secret for column x for function y";
        for (code, message, told) in [
            (
                1062,
                format!("Duplicate entry '{value}' for key 'mail'"),
                "two rows are alike for key 'mail'",
            ),
            (
                1586,
                format!("Duplicate entry '{value}' for key 'mail'"),
                "two rows are alike for key 'mail'",
            ),
            (
                1366,
                format!("Incorrect integer value: '{value}' for column `s`.`t`.`n` at row 1"),
                "a value does not fit for column `s`.`t`.`n` at row 1",
            ),
            (1292, format!("Truncated incorrect DOUBLE value: '{value}'"), "a value does not fit"),
            (
                1411,
                format!("Incorrect datetime value: '{value}' for function str_to_date"),
                "a value does not fit for function str_to_date",
            ),
            (1525, format!("Incorrect DATE value: '{value}'"), "a value does not fit"),
            (1526, format!("Table has no partition for value {value}"), "a row fits no partition"),
        ] {
            let said = without_values(code, &message);
            assert!(!said.contains("alice") && !said.contains("secret"), "{code}: {said}");
            assert_eq!(said, told, "{code}");
        }
        assert_eq!(without_values(1146, "Table 's.t' doesn't exist"), "Table 's.t' doesn't exist");
    }
}

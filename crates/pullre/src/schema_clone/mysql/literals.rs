//! Quoted strings in the server's own texts.

use std::borrow::Cow;

use super::ddl::past_quotes;

/// The text with literals as numbers where they are not UTF-8, which is what we speak: defaults of
/// binary columns are shown as the bytes that they are.
pub(super) fn sayable(sql: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(sql).is_ok() {
        return Cow::Borrowed(sql);
    }
    let (mut said, mut i) = (Vec::with_capacity(sql.len()), 0);
    while i < sql.len() {
        let mut end = past_quotes(sql, i);
        while sql[i] == b'\'' && sql.get(end) == Some(&b'\'') {
            end = past_quotes(sql, end);
        }
        let piece = &sql[i..end];
        if sql[i] == b'\'' && std::str::from_utf8(piece).is_err() {
            let hex = unescaped(piece).iter().map(|byte| format!("{byte:02X}")).collect::<String>();
            said.extend_from_slice(format!("X'{hex}'").as_bytes());
        } else {
            said.extend_from_slice(piece);
        }
        i = end;
    }
    Cow::Owned(said)
}

/// What a quoted string stands for.
fn unescaped(literal: &[u8]) -> Vec<u8> {
    let mut bytes = literal[1..literal.len() - 1].iter().copied();
    let mut value = Vec::new();
    while let Some(byte) = bytes.next() {
        value.push(match byte {
            b'\\' => match bytes.next() {
                Some(b'0') => 0,
                Some(b'n') => b'\n',
                Some(b'r') => b'\r',
                Some(b't') => b'\t',
                Some(b'b') => 8,
                Some(b'Z') => 26,
                other => other.unwrap_or(b'\\'),
            },
            // Doubled.
            b'\'' => bytes.next().unwrap_or(b'\''),
            byte => byte,
        });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_defaults_are_said_as_numbers() {
        let sql =
            b"`b'` binary(9) DEFAULT '\xff''\\0\\\\\\n',\n  `c` char(9) DEFAULT '\xc3\xa4''\\0'";
        assert_eq!(
            std::str::from_utf8(&sayable(sql)).unwrap(),
            "`b'` binary(9) DEFAULT X'FF27005C0A',\n  `c` char(9) DEFAULT 'ä''\\0'"
        );
    }
}

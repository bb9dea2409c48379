//! Passwords are kept as argon2 hashes; pullre-kun's unsalted SHA-512 is still understood.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use ring::{digest, hmac};

/// How a password is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Stored {
    /// A PHC string, `$argon2id$...`.
    Argon2(String),
    /// pullre-kun's: hexadecimal, without salt.
    Sha512(Vec<u8>),
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stored::Argon2(_) => "Argon2(***)",
            Stored::Sha512(_) => "Sha512(***)",
        })
    }
}

/// Whoever asks for a name that is not there waits as long as for one that is.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRvZm91cnM$\
                       D0NDyiYB5Y/ITgdVCZnRGxYRUfaIpUFyHEm0aoYhM4g";

impl Stored {
    /// None where the text is no hash that we know.
    pub fn parse(text: &str) -> Option<Stored> {
        if text.starts_with("$argon2") {
            return PasswordHash::new(text).ok().map(|_| Stored::Argon2(text.to_owned()));
        }
        let hex = text.len() == 128 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).ok();
        hex.then(|| (0..128).step_by(2).filter_map(byte).collect()).map(Stored::Sha512)
    }

    /// Takes as long for a wrong password as for the right one.
    pub fn verify(&self, password: &str) -> bool {
        match self {
            Stored::Argon2(phc) => argon2_is(phc, password),
            Stored::Sha512(expected) => {
                let found = digest::digest(&digest::SHA512, password.as_bytes());
                // An old hash must not be told from a new one by the time that it takes.
                argon2_is(NOBODYS, password);
                same(expected, found.as_ref())
            }
        }
    }
}

/// What is asked of a name that is not there.
pub fn verify_nobody(password: &str) -> bool {
    argon2_is(NOBODYS, password);
    false
}

fn argon2_is(phc: &str, password: &str) -> bool {
    PasswordHash::new(phc)
        .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

/// Whether two texts are the same, in a time that does not tell where they differ.
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    hmac::verify(&key, one, hmac::sign(&key, other).as_ref()).is_ok()
}

/// The value for `basic_password`.
pub fn hash(password: &str) -> anyhow::Result<String> {
    hash_at_cost(password, Params::DEFAULT_M_COST, Params::DEFAULT_T_COST)
}

/// Likewise, with the memory in kB and the number of rounds.
pub fn hash_at_cost(password: &str, memory: u32, rounds: u32) -> anyhow::Result<String> {
    let failed = |e: &dyn std::fmt::Display| anyhow::anyhow!("cannot hash the password: {e}");
    let params = Params::new(memory, rounds, 1, None).map_err(|e| failed(&e))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash: PasswordHash = argon2.hash_password(password.as_bytes()).map_err(|e| failed(&e))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_one_password_and_never_the_same_twice() {
        let (one, other) = (hash("pässwörd:with colon").unwrap(), hash("x").unwrap());
        assert!(one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert_ne!(other, hash("x").unwrap());
        let stored = Stored::parse(&one).unwrap();
        assert!(stored.verify("pässwörd:with colon"));
        assert!(!stored.verify("passwörd:with colon") && !stored.verify(""));
    }

    #[test]
    fn the_ancestors_hash_is_understood_in_either_case() {
        // sha512("hunter2")
        let hex = "6b97ed68d14eb3f1aa959ce5d49c7dc612e1eb1dafd73b1e705847483fd6a6c8\
                   09f2ceb4e8df6ff9984c6298ff0285cace6614bf8daa9f0070101b6c89899e22";
        for text in [hex.to_owned(), hex.to_uppercase()] {
            let stored = Stored::parse(&text).unwrap();
            assert!(stored.verify("hunter2") && !stored.verify("hunter3"));
        }
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        for text in ["", "hunter2", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv", &"g".repeat(128)]
        {
            assert_eq!(Stored::parse(text), None, "{text}");
        }
        assert!(PasswordHash::new(NOBODYS).is_ok(), "or a missing name answers at once");
    }
}

//! Users of the console, and the hashes of passwords.

use std::io::{self, BufRead, IsTerminal, Write};

use jiff::Timestamp;
use nix::sys::termios::SpecialCharacterIndices as Key;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use pullre::store::ConsoleUser;
use pullre::words;

use crate::cli::ConsoleUserCommand;
use crate::commands::{Failure, Result, operator, say};
use crate::installation::Installation;
use crate::print;

/// `update-pull hash-token`.
pub fn hash_token() -> Result {
    let password = ask("Password: ")?;
    say(&pullre_console::password::hash(&password)?)
}

/// One line: from the keyboard without echo, else from the pipe.
fn ask(prompt: &str) -> Result<String> {
    let failed =
        |e: &dyn std::fmt::Display| Failure::Failed(format!("cannot read a password: {e}"));
    let stdin = io::stdin();
    let mut line = String::new();
    if stdin.is_terminal() {
        let before = tcgetattr(&stdin).map_err(|e| failed(&e))?;
        let mut silent = before.clone();
        // A signal from the keyboard would leave the terminal like this, so none is sent: its keys
        // end the line.
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ISIG);
        let key = |key: Key| before.control_chars[key as usize];
        let ends = [key(Key::VINTR), key(Key::VQUIT)];
        silent.control_chars[Key::VEOL as usize] = ends[0];
        silent.control_chars[Key::VEOL2 as usize] = ends[1];
        eprint!("{prompt}");
        io::stderr().flush().map_err(|e| failed(&e))?;
        tcsetattr(&stdin, SetArg::TCSAFLUSH, &silent).map_err(|e| failed(&e))?;
        let read = typed(&mut stdin.lock(), ends);
        let echo = tcsetattr(&stdin, SetArg::TCSAFLUSH, &before);
        eprintln!();
        echo.map_err(|e| failed(&e))?;
        line = read.map_err(|e| failed(&e))?;
    } else {
        stdin.lock().read_line(&mut line).map_err(|e| failed(&e))?;
    }
    let password = line.trim_end_matches(['\n', '\r']);
    if password.chars().any(char::is_control) {
        return Err(Failure::Usage("the password holds a control character".into()));
    }
    match password.chars().count() {
        0 => Err(Failure::Usage("the password is empty".into())),
        1..8 => Err(Failure::Usage("the password has fewer than 8 characters".into())),
        _ => Ok(password.to_owned()),
    }
}

/// A line of a terminal; an error where one of `ends` ended it.
fn typed(keyboard: &mut impl BufRead, ends: [u8; 2]) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        let piece = match keyboard.fill_buf() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            piece => piece?,
        };
        let (length, last) = (piece.len(), piece.last().copied());
        line.extend_from_slice(piece);
        keyboard.consume(length);
        match last {
            Some(b) if ends.contains(&b) => return Err(io::Error::other("interrupted")),
            None | Some(b'\n') => return String::from_utf8(line).map_err(io::Error::other),
            Some(_) => {}
        }
    }
}

pub fn run(command: ConsoleUserCommand, installation: &Installation, now: Timestamp) -> Result {
    let mut store = installation.store()?;
    match command {
        ConsoleUserCommand::Add { name, role } => {
            let good = !name.is_empty()
                && name.chars().count() <= 128
                && !name.contains(':')
                && !name.chars().any(char::is_control);
            if !good {
                return Err(Failure::Usage(format!(
                    "{name:?} cannot be a name: no colon in it, at most 128 characters"
                )));
            }
            let password =
                pullre_console::password::hash(&ask(&format!("Password for {name}: "))?)?;
            let user = ConsoleUser { name: name.clone(), password, role };
            operator(&mut store, now).console_user_set(&user)?;
            say(&format!("{}: {role}", words::plain(&name)))
        }
        ConsoleUserCommand::List(listing) => {
            print::console_users(&store.console_users()?, listing.json)
        }
        ConsoleUserCommand::Remove { name } => {
            operator(&mut store, now).console_user_remove(&name)?;
            say(&format!("{}: removed", words::plain(&name)))
        }
    }
}

//! What can go wrong, and which HTTP status says so.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Everything that ends a request without its answer.
///
/// The `Display` text is what the client reads; it never holds a path or a
/// system error of ours. [`Error::log_line`] is what the administrator reads.
#[derive(Debug)]
pub enum Error {
    /// The request is not one of the protocol's (400).
    BadRequest(String),
    /// A right must be shown and was not (401). For every reason the same, so
    /// that nobody learns what is wrong with a forged token.
    Unauthorized,
    /// It is not allowed, and why (403).
    Forbidden(&'static str),
    /// The method is none of those we answer (405, RFC 9110 §15.5.6).
    MethodNotAllowed,
    /// A body came without its length (411, RFC 3875 §4.1.2 needs it).
    LengthRequired,
    /// The body was not complete at its deadline (408, RFC 9110 §15.5.9).
    BodyTooSlow,
    /// The body is longer than this many bytes (413).
    BodyTooLong(usize),
    /// The query is longer than this many bytes (414).
    QueryTooLong(usize),
    /// The message is longer than this many bytes (413).
    MessageTooLong(usize),
    /// The body is of a type that we do not read (415).
    UnsupportedBody,
    /// An environment variable of ours holds nonsense (503).
    Config {
        /// The variable's name.
        variable: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// The key of the tokens cannot be used (503).
    Key {
        /// Its file; none if there is no such file.
        path: Option<PathBuf>,
        /// What is wrong with it.
        why: String,
    },
    /// The store does not let us do our work (503).
    Store {
        /// What was being done.
        doing: &'static str,
        /// The file or directory it was done to.
        path: PathBuf,
        /// Why it failed.
        cause: io::Error,
    },
    /// The server that keeps the store does not let us do our work (503).
    Server {
        /// Which.
        store: String,
        /// Why it failed.
        cause: io::Error,
    },
    /// The file system has no room but the share that is kept free (507).
    NoRoom {
        /// A directory on it.
        path: PathBuf,
        /// That share, in percent.
        percent: u8,
    },
    /// The directory has as many event files as it may have (507).
    TooManyTopics {
        /// Which.
        path: PathBuf,
        /// How many.
        limit: usize,
    },
    /// The kernel does not let us count who waits (503).
    Slots(io::Error),
    /// Something that is not a regular file stands where an event file should (503).
    NotAFile(PathBuf),
    /// The file has another name as well: somebody planted a hard link to it (503).
    Linked(PathBuf),
    /// The process cannot give up what `NOVCOMET_SANDBOX=require` takes from it (503).
    Sandbox {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        cause: io::Error,
    },
    /// Another publisher has held the topic's lock for too long (503).
    LockHeld(PathBuf),
    /// The topic stands ahead of the clock, and no later time can be set: only
    /// the file's owner may (503, utimensat(2)), or it is the last there is.
    TimeAhead(PathBuf),
}

impl Error {
    /// The HTTP status code (RFC 9110 §15, RFC 4918 §11.5 for 507).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Unauthorized => 401,
            Self::Forbidden(_) => 403,
            Self::MethodNotAllowed => 405,
            Self::BodyTooSlow => 408,
            Self::LengthRequired => 411,
            Self::BodyTooLong(_) | Self::MessageTooLong(_) => 413,
            Self::QueryTooLong(_) => 414,
            Self::UnsupportedBody => 415,
            Self::Store { cause, .. } | Self::Server { cause, .. } if is_full(cause) => 507,
            Self::NoRoom { .. } | Self::TooManyTopics { .. } => 507,
            Self::Slots(_)
            | Self::Config { .. }
            | Self::Key { .. }
            | Self::Store { .. }
            | Self::Server { .. }
            | Self::NotAFile(_)
            | Self::Linked(_)
            | Self::Sandbox { .. }
            | Self::LockHeld(_)
            | Self::TimeAhead(_) => 503,
        }
    }

    /// The line for the server's error log, if the fault is ours and not the
    /// client's. It is one line, and of characters that can be seen.
    #[must_use]
    pub fn log_line(&self) -> Option<String> {
        self.text_for_the_log().map(|text| one_line(&text))
    }

    fn text_for_the_log(&self) -> Option<String> {
        Some(match self {
            Self::Config { variable, value, expected } => format!(
                "{variable}={value:?} is not {expected}; correct it in the server's configuration"
            ),
            Self::Key { path: Some(path), why } => {
                format!("NOVCOMET_TOKEN_KEY: {} {why}", shown(path))
            }
            Self::Key { path: None, why } => format!(
                "NOVCOMET_TOKEN_KEY: its value, which is not shown because it may be a secret, {why}; name a key file"
            ),
            Self::Store { doing, path, cause } => {
                format!("cannot {doing} {}: {cause}; {}", shown(path), advice(doing, cause))
            }
            Self::Server { store, cause } => {
                format!("cannot use {store}: {cause}; {}", server_advice(cause))
            }
            Self::NoRoom { path, percent } => format!(
                "less than {percent} % of the file system of {} is free; make room there, or lower NOVCOMET_KEEP_FREE",
                shown(path)
            ),
            Self::TooManyTopics { path, limit } => format!(
                "{} has {limit} event files; remove some, or raise NOVCOMET_MAX_TOPICS",
                shown(path)
            ),
            Self::Slots(cause) => format!(
                "cannot count who waits: {cause}; allow the server Unix sockets, or set NOVCOMET_MAX_WAITERS and NOVCOMET_MAX_WAITERS_PER_ADDRESS to 0"
            ),
            Self::NotAFile(path) => {
                format!("{} is not a regular file; remove it, it is not ours", shown(path))
            }
            Self::Linked(path) => format!(
                "{} has another name too (a hard link); remove it, it is not ours",
                shown(path)
            ),
            Self::Sandbox { doing, cause } => {
                format!("cannot {doing}: {cause}; NOVCOMET_SANDBOX=on does without")
            }
            Self::LockHeld(path) => format!(
                "{} is locked by another process; end that process (fuser -v shows it)",
                shown(path)
            ),
            Self::TimeAhead(path) => format!(
                "{} has a time ahead of the clock, and no later one can be set; set the clock, or remove the file",
                shown(path)
            ),
            _ => return None,
        })
    }
}

fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}

/// A name, a setting and what a server said may hold any character: a line feed
/// would forge a line, and an escape would colour the terminal that shows it.
fn one_line(text: &str) -> String {
    let is_plain = |character| matches!(character, '"' | '\'' | '\\');
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match is_plain(character) {
            true => line.push(character),
            false => line.extend(character.escape_debug()),
        }
    }
    line
}

fn is_full(cause: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(cause.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// What to do. An event file that is there and that we may not open is another user's.
fn advice(doing: &str, cause: &io::Error) -> &'static str {
    use io::ErrorKind::{
        InvalidData, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem,
    };
    match cause.kind() {
        NotFound | NotADirectory => "create the directory, or name another in NOVCOMET_STORE",
        PermissionDenied if doing == "open" => {
            "another user owns it: give it to the web server's user (chown) or let that user write (chmod), or name a directory of NovComet's own in NOVCOMET_STORE"
        }
        PermissionDenied | ReadOnlyFilesystem => {
            "let the web server's user write there, or name another directory in NOVCOMET_STORE"
        }
        InvalidData => "it holds no messages; remove it, it is not ours",
        _ if is_full(cause) => "make room on that file system",
        _ => "see the system's log",
    }
}

fn server_advice(cause: &io::Error) -> &'static str {
    use io::ErrorKind::{
        AddrNotAvailable, AlreadyExists, InvalidData, InvalidInput, NotFound, PermissionDenied,
        ReadOnlyFilesystem, Unsupported,
    };
    match cause.kind() {
        PermissionDenied => "correct the user and password in NOVCOMET_STORE",
        NotFound => "correct the address, or the number of the database, in NOVCOMET_STORE",
        InvalidInput => "correct its certificate, or ca, cert and key in NOVCOMET_STORE",
        AlreadyExists => "remove that key, it is not ours, or set another prefix in NOVCOMET_STORE",
        ReadOnlyFilesystem => "name the server that takes writes in NOVCOMET_STORE",
        AddrNotAvailable => "name a server of the cluster as redis://host:port in NOVCOMET_STORE",
        Unsupported => "use Redis 7 or later",
        InvalidData => "see that NOVCOMET_STORE names a Redis 7, or a memcached 1.6, or later",
        _ if is_full(cause) => "give it more memory, or lower NOVCOMET_KEEP_BYTES",
        _ => "see that it runs and answers",
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRequest(why) => f.write_str(why),
            Self::Unauthorized => f.write_str("this needs a valid token"),
            Self::Forbidden(why) => f.write_str(why),
            Self::MethodNotAllowed => f.write_str("use GET, HEAD, POST or OPTIONS"),
            Self::LengthRequired => f.write_str("send the body with a Content-Length"),
            Self::BodyTooSlow => f.write_str("the body did not come in time"),
            Self::BodyTooLong(limit) => write!(f, "a body has at most {limit} bytes"),
            Self::MessageTooLong(limit) => write!(f, "a message has at most {limit} bytes"),
            Self::QueryTooLong(limit) => write!(f, "a query has at most {limit} bytes"),
            Self::UnsupportedBody => {
                f.write_str("send a form as application/x-www-form-urlencoded, or text as UTF-8")
            }
            Self::Config { .. } | Self::Key { .. } | Self::Sandbox { .. } => {
                f.write_str("the server is misconfigured; its error log says how")
            }
            Self::Store { cause, .. } | Self::Server { cause, .. } if is_full(cause) => {
                f.write_str("the store is full; nothing was published")
            }
            Self::NoRoom { .. } => f.write_str("the store is full; nothing was published"),
            Self::TooManyTopics { .. } => {
                f.write_str("the store has no room for another topic; nothing was published")
            }
            Self::Slots(_) => f.write_str("nobody can wait; the server's error log says why"),
            Self::LockHeld(_) => f.write_str("the topic is busy; try again"),
            Self::Store { .. }
            | Self::Server { .. }
            | Self::NotAFile(_)
            | Self::Linked(_)
            | Self::TimeAhead(_) => {
                f.write_str("the store cannot be used; the server's error log says why")
            }
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(errno: i32) -> Error {
        Error::Store {
            doing: "open",
            path: "/dev/shm/a.comet".into(),
            cause: io::Error::from_raw_os_error(errno),
        }
    }

    #[test]
    fn a_full_store_is_507_and_any_other_fault_503() {
        assert_eq!(store(libc::ENOSPC).status(), 507);
        assert_eq!(store(libc::EDQUOT).status(), 507);
        assert_eq!(store(libc::EACCES).status(), 503);
    }

    #[test]
    fn only_our_own_faults_are_logged() {
        assert!(Error::BadRequest("no".into()).log_line().is_none());
        let line = store(libc::EACCES).log_line().unwrap();
        assert!(line.starts_with("cannot open /dev/shm/a.comet: Permission denied"));
        assert!(line.contains("another user owns it") && line.ends_with("NOVCOMET_STORE"));
    }

    /// Every kind of fault, with this text wherever a foreign one may stand.
    fn all_with(text: &str) -> Vec<Error> {
        let path = || PathBuf::from(text);
        let cause = || io::Error::other(text.to_owned());
        vec![
            Error::BadRequest("no".into()),
            Error::Unauthorized,
            Error::Forbidden("no"),
            Error::MethodNotAllowed,
            Error::LengthRequired,
            Error::BodyTooSlow,
            Error::BodyTooLong(1),
            Error::QueryTooLong(1),
            Error::MessageTooLong(1),
            Error::UnsupportedBody,
            Error::Config { variable: "NOVCOMET_STORE", value: text.into(), expected: "x" },
            Error::Key { path: Some(path()), why: text.into() },
            Error::Store { doing: "open", path: path(), cause: cause() },
            Error::Server { store: text.into(), cause: cause() },
            Error::NoRoom { path: path(), percent: 5 },
            Error::TooManyTopics { path: path(), limit: 1 },
            Error::Slots(cause()),
            Error::NotAFile(path()),
            Error::Linked(path()),
            Error::Sandbox { doing: "limit", cause: cause() },
            Error::LockHeld(path()),
            Error::TimeAhead(path()),
        ]
    }

    /// A variant that is added belongs into `all_with`.
    #[test]
    fn every_kind_of_fault_is_tried() {
        let kinds = include_str!("error.rs").split("pub enum Error {").nth(1).unwrap();
        let kinds = kinds.split("\n}\n").next().unwrap().lines();
        let is_kind =
            |line: &&str| line.starts_with("    ") && line.as_bytes()[4].is_ascii_uppercase();
        assert_eq!(all_with("x").len(), kinds.filter(is_kind).count());
    }

    #[test]
    fn a_line_of_the_log_is_one_line() {
        let bidi = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        let foreign = format!(
            "/é x\nnovcomet: FORGED \x1b[31m\r\0\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\u{feff}{bidi}"
        );
        let mut lines = 0;
        for line in all_with(&foreign).iter().filter_map(Error::log_line) {
            lines += 1;
            let is_hidden =
                |c: char| c.is_control() || foreign.contains(c) && !c.is_ascii() && c != 'é';
            assert!(!line.contains(is_hidden), "{line:?}");
            assert!(line.contains(r"/é x\nnovcomet: FORGED \u{1b}[31m\r\0"), "{line}");
        }
        assert_eq!(lines, 12);
    }

    #[test]
    fn the_client_reads_nothing_of_the_system() {
        for error in all_with("/dev/shm Permission denied (os error 13)") {
            let text = error.to_string();
            let is_told = ["/dev/shm", "denied", "os error"].iter().any(|it| text.contains(it));
            assert!(!text.is_empty() && !is_told, "{text}");
        }
    }

    #[test]
    fn a_hint_is_about_what_is_wrong() {
        let hint = |kind: io::ErrorKind| {
            let store = "Redis at h".into();
            Error::Server { store, cause: kind.into() }.log_line().unwrap()
        };
        assert!(hint(io::ErrorKind::NotFound).contains("number of the database"));
        assert!(hint(io::ErrorKind::AlreadyExists).contains("remove that key"));
        assert!(hint(io::ErrorKind::TimedOut).ends_with("see that it runs and answers"));
    }
}

//! Errors by class. The class decides the HTTP status, and the room that fails
//! words the texts.

use std::fmt;

/// Everything that ends a request without its answer.
///
/// The `Display` text is what the client reads. It never holds a path or a system
/// error: where the server is at fault, it is one of a few fixed texts.
/// [`Error::log_line`] is what the administrator reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The request breaks a rule of the protocol, named here (400).
    BadRequest(String),
    /// A token is missing (401).
    Unauthorized,
    /// The token does not count (401). The text never says why, because a reason
    /// would help to forge one.
    InvalidToken,
    /// The request is not allowed. The text is the reason (403).
    Forbidden(&'static str),
    /// The program has nothing at this URL (404).
    NotFound,
    /// The server does not answer this method (405, RFC 9110 §15.5.6).
    MethodNotAllowed,
    /// The body was not complete at its deadline (408, RFC 9110 §15.5.9).
    BodyTooSlow,
    /// The body is longer than this number of bytes (413).
    BodyTooLong(usize),
    /// The query is longer than this number of bytes (414).
    QueryTooLong(usize),
    /// A part of the request is above the limit that is named here (413).
    TooLarge(String),
    /// The message is longer than this number of bytes (413).
    MessageTooLong(usize),
    /// The body is neither a form nor text (415).
    UnsupportedBody,
    /// The configured store cannot do it; the text says what (501).
    NotImplemented(&'static str),
    /// A setting, or a file that a setting names, cannot be used (503).
    Misconfigured {
        /// The line for the log.
        log: String,
    },
    /// Something that the request needs does not work (503).
    Unavailable {
        /// The text for the client.
        detail: &'static str,
        /// The line for the log.
        log: String,
    },
    /// There is no space, or a limit is reached (507, RFC 4918 §11.5).
    Full {
        /// The text for the client.
        detail: &'static str,
        /// The line for the log.
        log: String,
    },
}

impl Error {
    /// A request that breaks the rule in `detail`.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::BadRequest(detail.into())
    }

    /// A setting with a value that is not what was `expected`.
    #[must_use]
    pub fn setting(variable: &str, value: &str, expected: &str) -> Self {
        let what = format!("{variable}={value:?} is not {expected}");
        Self::misconfigured(&what, "correct it in the server's configuration")
    }

    /// `what` is wrong with the installation; `hint` says what to do.
    #[must_use]
    pub fn misconfigured(what: &str, hint: &str) -> Self {
        Self::Misconfigured { log: format!("{what}; {hint}") }
    }

    /// `what` failed; `hint` says what to do.
    #[must_use]
    pub fn unavailable(detail: &'static str, what: &str, hint: &str) -> Self {
        Self::Unavailable { detail, log: format!("{what}; {hint}") }
    }

    /// `what` is full; `hint` says what to do.
    #[must_use]
    pub fn full(detail: &'static str, what: &str, hint: &str) -> Self {
        Self::Full { detail, log: format!("{what}; {hint}") }
    }

    /// The HTTP status code (RFC 9110 §15).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::BadRequest(_) => 400,
            Self::Unauthorized | Self::InvalidToken => 401,
            Self::Forbidden(_) => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTooSlow => 408,
            Self::BodyTooLong(_) | Self::TooLarge(_) | Self::MessageTooLong(_) => 413,
            Self::QueryTooLong(_) => 414,
            Self::UnsupportedBody => 415,
            Self::NotImplemented(_) => 501,
            Self::Misconfigured { .. } | Self::Unavailable { .. } => 503,
            Self::Full { .. } => 507,
        }
    }

    /// The line for the server's error log, if the server and not the client is
    /// at fault: one line of visible characters.
    #[must_use]
    pub fn log_line(&self) -> Option<String> {
        match self {
            Self::Misconfigured { log }
            | Self::Unavailable { log, .. }
            | Self::Full { log, .. } => Some(escaped(log)),
            _ => None,
        }
    }
}

/// Names, settings and replies of servers may hold any character. A line feed
/// would forge a line of the log, and an escape sequence would colour the
/// terminal that shows it.
#[must_use]
pub fn escaped(text: &str) -> String {
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

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadRequest(detail) | Self::TooLarge(detail) => detail,
            Self::Forbidden(detail)
            | Self::NotImplemented(detail)
            | Self::Unavailable { detail, .. }
            | Self::Full { detail, .. } => detail,
            Self::Unauthorized | Self::InvalidToken => "this needs a valid token",
            Self::NotFound => "there is nothing at this URL",
            Self::MethodNotAllowed => "this method cannot be used here",
            Self::BodyTooSlow => "the body did not come in time",
            Self::BodyTooLong(limit) => return write!(f, "a body has at most {limit} bytes"),
            Self::MessageTooLong(limit) => return write!(f, "a message has at most {limit} bytes"),
            Self::QueryTooLong(limit) => return write!(f, "a query has at most {limit} bytes"),
            Self::UnsupportedBody => {
                "send a form as application/x-www-form-urlencoded, or text as UTF-8"
            }
            Self::Misconfigured { .. } => "the server is misconfigured; its error log says how",
        })
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of error, with this text in its log line.
    fn all_with(text: &str) -> Vec<Error> {
        vec![
            Error::bad_request("no"),
            Error::Unauthorized,
            Error::InvalidToken,
            Error::Forbidden("no"),
            Error::NotFound,
            Error::TooLarge("no".into()),
            Error::MethodNotAllowed,
            Error::BodyTooSlow,
            Error::BodyTooLong(1),
            Error::QueryTooLong(1),
            Error::MessageTooLong(1),
            Error::UnsupportedBody,
            Error::NotImplemented("x"),
            Error::setting("NOVCOMET_STORE", text, "x"),
            Error::misconfigured(text, text),
            Error::unavailable("no", text, text),
            Error::full("no", text, text),
        ]
    }

    /// A variant that is added belongs into `all_with`.
    #[test]
    fn every_kind_is_tried() {
        let kinds = include_str!("error.rs").split("pub enum Error {").nth(1).unwrap();
        let kinds = kinds.split("\n}\n").next().unwrap().lines();
        let is_kind =
            |line: &&str| line.starts_with("    ") && line.as_bytes()[4].is_ascii_uppercase();
        let tried: std::collections::HashSet<_> =
            all_with("x").iter().map(std::mem::discriminant).collect();
        assert_eq!(tried.len(), kinds.filter(is_kind).count());
    }

    #[test]
    fn only_server_faults_are_logged() {
        for error in all_with("x") {
            // 501 is no fault: the store is what it is.
            assert_eq!(error.log_line().is_some(), error.status() > 501, "{error:?}");
        }
    }

    #[test]
    fn log_line_is_one_visible_line() {
        let bidi = "\u{61c}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}";
        let foreign = format!(
            "/é x\nnovcomet: FORGED \x1b[31m\r\0\u{7f}\u{85}\u{9b}\u{2028}\u{2029}\u{feff}{bidi}"
        );
        let lines: Vec<_> = all_with(&foreign).iter().filter_map(Error::log_line).collect();
        for line in &lines {
            let is_hidden =
                |c: char| c.is_control() || foreign.contains(c) && !c.is_ascii() && c != 'é';
            assert!(!line.contains(is_hidden), "{line:?}");
            assert!(line.contains(r"/é x\nnovcomet: FORGED \u{1b}[31m\r\0"), "{line}");
        }
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn client_reads_no_system_text() {
        for error in all_with("/dev/shm Permission denied (os error 13)") {
            let text = error.to_string();
            let is_told = ["/dev/shm", "denied", "os error"].iter().any(|it| text.contains(it));
            assert!(!text.is_empty() && !is_told, "{text}");
        }
    }
}

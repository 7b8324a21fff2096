//! Problem details for HTTP APIs (RFC 9457).

use serde_json::json;

use crate::cgi::{Head, METHODS, Response, status_line};
use crate::error::Error;

/// RFC 9457 §3.
const PROBLEM: &str = "application/problem+json";

/// Seconds after which a store that failed may be asked again (RFC 9110 §10.2.3).
const RETRY_AFTER: u32 = 2;

/// The answer to a request that cannot be served.
#[must_use]
pub fn problem(error: &Error) -> Response {
    let status = error.status();
    let head = Head::new(status, PROBLEM);
    let head = match error {
        Error::MethodNotAllowed => head.header("Allow", METHODS),
        _ if status >= 500 => head.retry_after(Some(RETRY_AFTER)),
        Error::Unauthorized | Error::InvalidToken => head.header("WWW-Authenticate", "Bearer"),
        _ => head,
    };
    head.body(details(error))
}

/// The JSON of `error` (RFC 9457 §3.1).
#[must_use]
pub fn details(error: &Error) -> String {
    let status = error.status();
    let title = status_line(status).split_once(' ').map(|(_, phrase)| phrase);
    json!({"title": title, "status": status, "detail": error.to_string()}).to_string()
}

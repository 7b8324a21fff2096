//! Problem details for HTTP APIs (RFC 9457).

use serde::Deserialize;
use serde_json::json;

use crate::cgi::{FieldValue, Head, METHODS, Response, status_line};
use crate::error::Error;

/// RFC 9457 §3.
const PROBLEM: &str = "application/problem+json";

/// Seconds after which a store that failed may be asked again (RFC 9110 §10.2.3).
const RETRY_AFTER: u32 = 2;

/// The answer to a request that cannot be served.
#[must_use]
pub fn problem(error: &Error) -> Response {
    let needs_token = matches!(error, Error::Unauthorized | Error::InvalidToken);
    challenged(error, METHODS, needs_token.then_some("Bearer"))
}

/// The same, where the server answers `methods`, and with a challenge (RFC 6750 §3).
#[must_use]
pub fn challenged(
    error: &Error,
    methods: &'static str,
    challenge: Option<&'static str>,
) -> Response {
    let status = error.status();
    let mut head = Head::new(status, PROBLEM);
    let mut detail = error.to_string();
    if *error == Error::MethodNotAllowed {
        head = head.header("Allow", methods);
        detail = format!("use {methods}");
    }
    if let Some(challenge) = challenge {
        head = head.header("WWW-Authenticate", FieldValue::from(challenge));
    }
    let retry_after = (status >= 500).then_some(RETRY_AFTER);
    head.retry_after(retry_after).body(json(status, &detail))
}

/// A problem with this text, of a server that may work again soon.
#[must_use]
pub fn problem_with(status: u16, detail: &str) -> Response {
    Head::new(status, PROBLEM).retry_after(Some(RETRY_AFTER)).body(json(status, detail))
}

/// The JSON of `error` (RFC 9457 §3.1).
#[must_use]
pub fn details(error: &Error) -> String {
    json(error.status(), &error.to_string())
}

/// The text of such an answer, of this type and with this body; `None` for another answer.
#[must_use]
pub fn detail(content_type: &str, body: &[u8]) -> Option<String> {
    let problem: Details = serde_json::from_slice(body).ok()?;
    (content_type == PROBLEM).then_some(problem.detail)
}

#[derive(Deserialize)]
struct Details {
    detail: String,
}

fn json(status: u16, detail: &str) -> String {
    let title = status_line(status).split_once(' ').map(|(_, phrase)| phrase);
    json!({"title": title, "status": status, "detail": detail}).to_string()
}

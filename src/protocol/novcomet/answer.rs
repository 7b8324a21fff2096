//! The answer to a request that is no stream, and to one that cannot be served.

use serde_json::json;

use super::parse::Command;
use super::state::{newest, quiet, state};
use super::stream;
use crate::cgi::{Head, METHODS, Method, Response, status_line};
use crate::error::Error;
use crate::event::Event;
use crate::hub::Outcome;

const JSON: &str = "application/json; charset=utf-8";

/// RFC 9457 §3.
const PROBLEM: &str = "application/problem+json";

/// Seconds after which a store that failed may be asked again (RFC 9110 §10.2.3).
const RETRY_AFTER: u32 = 2;

/// The answer to a command that was carried out, and when a client that would
/// have waited is to ask again; `None` when nobody is there.
#[must_use]
pub fn answer(method: Method, outcome: &Outcome, retry_after: Option<u32>) -> Option<Response> {
    let body = match outcome {
        Outcome::Published(_) if method == Method::Get => "true".to_owned(),
        Outcome::Published(events) => {
            state(1, events.iter().map(|Event { topic, cursor }| (topic, cursor)))
        }
        Outcome::News(news) => newest(news),
        Outcome::Quiet(topics) => quiet(topics),
        Outcome::ClientGone => return None,
    };
    Some(Head::new(200, JSON).retry_after(retry_after).body(body))
}

/// The answer to HEAD, where GET would want `command`.
#[must_use]
pub fn head(command: &Command) -> Response {
    match command {
        Command::Stream(..) => stream::head().body(""),
        _ => Head::new(200, JSON).body(""),
    }
}

/// The answer to OPTIONS: which methods there are and, to the page of another
/// origin that is ours, what it may send (a preflight, WHATWG Fetch §3.3.1).
#[must_use]
pub fn options(preflight: bool) -> Response {
    let head = Head::new(204, JSON).header("Allow", METHODS);
    let head = match preflight {
        true => head
            .header("Access-Control-Allow-Methods", METHODS)
            .header("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
            .header("Access-Control-Max-Age", "600"),
        false => head,
    };
    head.body("")
}

/// The answer to what cannot be done (RFC 9457).
#[must_use]
pub fn refusal(error: &Error) -> Response {
    let status = error.status();
    let head = Head::new(status, PROBLEM);
    let head = match error {
        Error::MethodNotAllowed => head.header("Allow", METHODS),
        _ if status >= 500 => head.retry_after(Some(RETRY_AFTER)),
        Error::Unauthorized => head.header("WWW-Authenticate", "Bearer"),
        _ => head,
    };
    let title = status_line(status).split_once(' ').map(|(_, phrase)| phrase);
    head.body(json!({"title": title, "status": status, "detail": error.to_string()}).to_string())
}

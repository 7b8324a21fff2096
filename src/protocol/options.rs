//! The answer to OPTIONS (RFC 9110 §9.3.7).

use crate::cgi::{Head, Response};

/// Headers that a page may send. Several libraries for event streams send `Cache-Control`, and
/// axios in Laravel `X-Requested-With`.
const SENT: &str = "Authorization, Cache-Control, Content-Type, Last-Event-ID, X-Requested-With";

/// Says that the server answers `methods`. To the page of a configured origin it is the
/// answer to a preflight (WHATWG Fetch §3.3.1), and says what that page may send.
#[must_use]
pub fn options(methods: &'static str, preflight: bool) -> Response {
    let head = Head::new(204, "application/json; charset=utf-8").header("Allow", methods);
    let head = match preflight {
        true => head
            .header("Access-Control-Allow-Methods", methods)
            .header("Access-Control-Allow-Headers", SENT)
            .header("Access-Control-Max-Age", "600"),
        false => head,
    };
    head.body("")
}

//! The answer to OPTIONS (RFC 9110 §9.3.7).

use crate::cgi::{Head, Response};

/// Says that the server answers `methods`. To the page of a configured origin it is the
/// answer to a preflight (WHATWG Fetch §3.3.1), and says what that page may send.
#[must_use]
pub fn options(methods: &'static str, preflight: bool) -> Response {
    let head = Head::new(204, "application/json; charset=utf-8").header("Allow", methods);
    let head = match preflight {
        true => head
            .header("Access-Control-Allow-Methods", methods)
            .header("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
            .header("Access-Control-Max-Age", "600"),
        false => head,
    };
    head.body("")
}

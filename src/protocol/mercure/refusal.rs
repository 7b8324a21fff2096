//! The answer to a request that cannot be served, of both generations.

use crate::cgi::Response;
use crate::error::Error;
use crate::protocol::problem::challenged;

/// The methods that a hub answers.
pub const METHODS: &str = "GET, HEAD, POST, QUERY, OPTIONS";

/// The problem, and what a client can do about its token (RFC 6750 §3.1). Clients of 0.x
/// ignore the challenge.
#[must_use]
pub fn refusal(error: &Error) -> Response {
    let challenge = match error {
        Error::Unauthorized => Some("Bearer"),
        Error::InvalidToken => Some(r#"Bearer error="invalid_token""#),
        Error::Forbidden(_) => Some(r#"Bearer error="insufficient_scope""#),
        _ => None,
    };
    challenged(error, METHODS, challenge)
}

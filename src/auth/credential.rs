//! Where a request carries its token: the `Authorization` header or a cookie.

use url::form_urlencoded;

use crate::cgi::{Body, Request};

/// The cookie in which the libraries of Mercure put a token.
const COOKIE: &[u8] = b"mercureAuthorization=";

/// Parameters that carry a token elsewhere. Logs and histories keep URLs, so a
/// token in a URL is refused.
const IN_URLS: [&str; 3] = ["authorization", "access_token", "token"];

/// Where a token was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TokenLocation {
    /// In `Authorization: Bearer`.
    Header,
    /// In the cookie.
    Cookie,
}

/// A Bearer header counts, and then no cookie. Another scheme is between the
/// browser and the server (`Require valid-user`).
pub fn credential(request: &Request) -> Option<(&[u8], TokenLocation)> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, token) = request.authorization.split_at_checked(SCHEME.len()).unwrap_or_default();
    match token {
        [] | [b' ', ..] if scheme.eq_ignore_ascii_case(SCHEME) => {
            Some((token.trim_ascii(), TokenLocation::Header))
        }
        _ => cookie(&request.cookie).map(|token| (token, TokenLocation::Cookie)),
    }
}

/// Of two cookies with the name, one was set by another host of the domain: none counts.
fn cookie(cookies: &[u8]) -> Option<&[u8]> {
    let parts = cookies.split(|&byte| byte == b';');
    let mut found = parts.filter_map(|part| part.trim_ascii().strip_prefix(COOKIE));
    found.next().filter(|_| found.next().is_none())
}

/// Whether the query or the form has a token.
pub fn is_in_parameters(request: &Request) -> bool {
    let is_in_form = matches!(&request.body, Body::Form(form) if has_token(form.as_bytes()));
    is_in_form || has_token(&request.query)
}

/// Whether a query or a form has a parameter that carries a token elsewhere.
fn has_token(encoded: &[u8]) -> bool {
    form_urlencoded::parse(encoded).any(|(name, _)| IN_URLS.contains(&name.as_ref()))
}

//! Where a request carries its token: the `Authorization` header, a cookie, or the URL.

use std::borrow::Cow;

use url::form_urlencoded;

use super::claims::Generation;
use crate::cgi::Request;
use crate::error::Error;

/// The cookie in which the libraries of Mercure put a token, for 0.x and for our own wire.
const COOKIE: &str = "mercureAuthorization";
/// The cookie of 1.0. Browsers send it by TLS only.
const SECURE_COOKIE: &str = "__Secure-mercure_access_token";

/// The parameter of 0.x that carries a token.
const PARAMETER: &str = "authorization";

/// Parameters that carry a token elsewhere. Logs and histories keep URLs, so a
/// token in a URL is refused.
const IN_URLS: [&str; 3] = [PARAMETER, "access_token", "token"];

/// Where a token was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenLocation {
    /// In `Authorization: Bearer`.
    Header,
    /// In the URL.
    Url,
    /// In the cookie.
    Cookie,
}

/// A token, and its place.
pub type Credential<'a> = (Cow<'a, [u8]>, TokenLocation);

/// The places where a token counts, besides the header.
#[derive(Clone, Copy)]
pub struct Places {
    /// Only the first of these cookies that is present counts.
    cookies: &'static [&'static str],
    parameters: Parameters,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parameters {
    /// A token in a query or a form is refused.
    Refused,
    /// A token in a query is refused. A publisher may give a form any field.
    RefusedInUrl,
    /// The token in [`PARAMETER`] of the query counts.
    InUrl,
}

impl Places {
    /// Those of our own wire.
    pub const OWN: Self = Self { cookies: &[COOKIE], parameters: Parameters::Refused };

    /// Those of a generation of Mercure, and those of both for a publisher.
    pub fn of_mercure(generation: Option<Generation>, url_token: bool) -> Self {
        let cookies: &[_] = match generation {
            Some(Generation::V0) => &[COOKIE],
            Some(Generation::V1) => &[SECURE_COOKIE],
            None => &[SECURE_COOKIE, COOKIE],
        };
        let is_in_url = url_token && generation != Some(Generation::V1);
        let parameters = if is_in_url { Parameters::InUrl } else { Parameters::RefusedInUrl };
        Self { cookies, parameters }
    }

    fn refuse(self, request: &Request) -> bool {
        let is_in_form = request.form().is_some_and(|form| has_token(form.as_bytes()));
        match self.parameters {
            Parameters::Refused => is_in_form || has_token(&request.query),
            Parameters::RefusedInUrl => has_token(&request.query),
            Parameters::InUrl => false,
        }
    }
}

/// The token of a request; `None` without one. A Bearer header counts, and then nothing
/// else. Another scheme is between the browser and the server (`Require valid-user`).
///
/// # Errors
/// 401 for a token where none may be.
pub fn credential(request: &Request, places: Places) -> Result<Option<Credential<'_>>, Error> {
    if places.refuse(request) {
        return Err(Error::InvalidToken);
    }
    if let Some(token) = bearer(&request.authorization) {
        return Ok(Some((token.into(), TokenLocation::Header)));
    }
    let is_in_url = places.parameters == Parameters::InUrl;
    if let Some(token) = is_in_url.then(|| parameter(&request.query)).flatten() {
        return Ok(Some((token.into_bytes().into(), TokenLocation::Url)));
    }
    let token = places.cookies.iter().find_map(|name| cookie(&request.cookie, name));
    Ok(token.map(|token| (token.into(), TokenLocation::Cookie)))
}

/// RFC 6750 §2.1, RFC 9110 §11.1.
fn bearer(authorization: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, token) = authorization.split_at_checked(SCHEME.len())?;
    let is_bearer = matches!(token, [] | [b' ', ..]) && scheme.eq_ignore_ascii_case(SCHEME);
    is_bearer.then(|| token.trim_ascii())
}

/// Of two parameters, nobody can say which one counts. So none does.
fn parameter(query: &[u8]) -> Option<String> {
    let parameters = form_urlencoded::parse(query);
    let found = parameters.filter(|(name, _)| name == PARAMETER).map(|(_, token)| token);
    only(found).map(Cow::into_owned)
}

/// Of two cookies with the name, one was set by another host of the domain: none counts.
fn cookie<'a>(cookies: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let parts = cookies.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    only(parts.filter_map(|part| part.strip_prefix(name.as_bytes())?.strip_prefix(b"=")))
}

/// The only one, or the empty token, which is invalid.
fn only<T: Default>(mut found: impl Iterator<Item = T>) -> Option<T> {
    let first = found.next()?;
    Some(if found.next().is_none() { first } else { T::default() })
}

/// Whether a query or a form has a parameter that carries a token elsewhere.
fn has_token(encoded: &[u8]) -> bool {
    form_urlencoded::parse(encoded).any(|(name, _)| IN_URLS.contains(&name.as_ref()))
}

//! Who may publish, and who may listen. A shell that calls us may both: it can
//! open the event files without us.

use std::time::Duration;

use url::form_urlencoded;

use crate::access::{Origin, Publish, Subscribe, Topics};
use crate::cgi::{Caller, Method, Request};
use crate::config::Access;
use crate::error::Error;
use crate::event::{Cursor, Topic};
use crate::token::{Grants, Key};

/// The cookie in which the libraries of Mercure put a token.
const COOKIE: &[u8] = b"mercureAuthorization=";

/// Parameters in which others take a token. A URL stands in logs and
/// histories; whoever puts a token there shall notice.
const IN_URLS: [&str; 3] = ["authorization", "access_token", "token"];

/// What one caller may do.
pub struct Rights<'a> {
    access: &'a Access,
    caller: &'a Caller,
}

/// What a subscriber may hear, and until when.
#[derive(Default)]
pub struct Pass {
    private: Topics,
    grants: Option<Grants>,
}

/// The configured origin that the caller's page has: only its pages may read
/// our answers (CORS). It is the configuration's text, never the request's.
#[must_use]
pub fn reader<'a>(origins: &'a [Origin], caller: &Caller) -> Option<&'a Origin> {
    find(origins, caller.origin.as_deref()?)
}

impl<'a> Rights<'a> {
    /// The rights of `caller`.
    #[must_use]
    pub fn new(access: &'a Access, caller: &'a Caller) -> Self {
        Self { access, caller }
    }

    /// Whether an event may be made to happen in each of `topics`.
    ///
    /// # Errors
    /// 401 without a valid token where one is needed, 403 for whom it is
    /// forbidden, 503 when the key cannot be used.
    pub fn publish(&self, request: &Request, topics: &[Topic], now: Cursor) -> Result<(), Error> {
        let rule = if self.caller.under_server { self.access.publish } else { Publish::Any };
        match rule {
            Publish::Any => Ok(()),
            Publish::None => forbid("nobody publishes here"),
            Publish::Post if request.method != Method::Post => forbid("publish by POST"),
            Publish::Post | Publish::SameSite => self.same_site(),
            Publish::Token => {
                let (grants, from) = self.grants(request, now)?;
                // A browser sends a cookie for whichever site asks it to.
                if from == Source::Cookie {
                    self.same_site()?;
                }
                granted(topics.iter().all(|topic| grants.may_publish(topic)))
            }
        }
    }

    /// Whether each of `topics` may be listened to.
    ///
    /// # Errors
    /// As for [`Rights::publish`].
    pub fn subscribe(
        &self,
        request: &Request,
        topics: &[&Topic],
        now: Cursor,
    ) -> Result<Pass, Error> {
        let private = &self.access.private;
        if self.caller.under_server && self.access.subscribe == Subscribe::None {
            return Err(Error::Forbidden("nobody subscribes at this URL"));
        }
        if !self.caller.under_server || !topics.iter().any(|topic| private.contains(topic)) {
            return Ok(Pass::default());
        }
        let (grants, _) = self.grants(request, now)?;
        let pass = Pass { private: private.clone(), grants: Some(grants) };
        pass.check(topics.iter().copied(), now).map(|()| pass)
    }

    /// Refuses what a browser says comes from a foreign site. Browsers say it
    /// with `Sec-Fetch-Site`, older ones and all on plain HTTP with `Origin`,
    /// and where that is not sent either, on GET, with `Referer`.
    fn same_site(&self) -> Result<(), Error> {
        let caller = self.caller;
        let ours = match (&caller.fetch_site, &caller.origin, origin_of(&caller.referer)) {
            (_, Some(origin), _) if self.is_trusted(origin) => true,
            (Some(site), _, _) => {
                matches!(site.as_slice(), b"same-origin" | b"same-site" | b"none")
            }
            (None, Some(origin), _) => is_at(origin, &caller.host),
            (None, None, Some(origin)) => self.is_trusted(origin) || is_at(origin, &caller.host),
            (None, None, None) => true,
        };
        if ours { Ok(()) } else { forbid("the request comes from a foreign site") }
    }

    fn is_trusted(&self, origin: &[u8]) -> bool {
        find(&self.access.origins, origin).is_some()
    }

    /// What the caller's token grants, and where it was.
    fn grants(&self, request: &Request, now: Cursor) -> Result<(Grants, Source), Error> {
        let key = Key::read(self.access.token.as_ref().ok_or(Error::Unauthorized)?)?;
        let is_bare = !form_urlencoded::parse(&request.query)
            .any(|(name, _)| IN_URLS.contains(&name.as_ref()));
        let (token, source) = credential(self.caller).ok_or(Error::Unauthorized)?;
        let grants = key.open(token, now).filter(|_| is_bare).ok_or(Error::Unauthorized)?;
        Ok((grants, source))
    }
}

impl Pass {
    /// Whether events of `topics` may still be delivered.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 for a topic that it does not grant.
    pub fn check<'t>(
        &self,
        topics: impl IntoIterator<Item = &'t Topic>,
        now: Cursor,
    ) -> Result<(), Error> {
        let Some(grants) = &self.grants else { return Ok(()) };
        if grants.expires() <= now {
            return Err(Error::Unauthorized);
        }
        let may = |topic| !self.private.contains(topic) || grants.may_subscribe(topic);
        granted(topics.into_iter().all(may))
    }

    /// How long it lasts.
    #[must_use]
    pub fn lasts(&self, now: Cursor) -> Duration {
        self.grants.as_ref().map_or(Duration::MAX, |grants| now.age(grants.expires()))
    }
}

/// Where a token was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Header,
    Cookie,
}

/// A Bearer header counts, and then no cookie. Another scheme is between the
/// browser and the server (`Require valid-user`).
fn credential(caller: &Caller) -> Option<(&[u8], Source)> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, token) = caller.authorization.split_at_checked(SCHEME.len()).unwrap_or_default();
    match token {
        [] | [b' ', ..] if scheme.eq_ignore_ascii_case(SCHEME) => {
            Some((token.trim_ascii(), Source::Header))
        }
        _ => cookie(&caller.cookie).map(|token| (token, Source::Cookie)),
    }
}

/// Of two cookies with the name, one was set by another host of the domain: none counts.
fn cookie(cookies: &[u8]) -> Option<&[u8]> {
    let parts = cookies.split(|&byte| byte == b';');
    let mut found = parts.filter_map(|part| part.trim_ascii().strip_prefix(COOKIE));
    found.next().filter(|_| found.next().is_none())
}

fn granted(all: bool) -> Result<(), Error> {
    if all { Ok(()) } else { forbid("the token does not grant this") }
}

fn forbid(why: &'static str) -> Result<(), Error> {
    Err(Error::Forbidden(why))
}

fn find<'a>(origins: &'a [Origin], origin: &[u8]) -> Option<&'a Origin> {
    origins.iter().find(|known| known.as_str().as_bytes() == origin)
}

/// The origin in the URL of a page; a part of none is none of ours.
fn origin_of(referer: &[u8]) -> Option<&[u8]> {
    let path = referer.windows(3).position(|three| three == b"://").map_or(0, |at| at + 3);
    let ends = |byte: &u8| b"/?#".contains(byte);
    let length = referer[path..].iter().position(ends).map_or(referer.len(), |at| path + at);
    (!referer.is_empty()).then(|| &referer[..length])
}

/// Whether `origin` is on the host that the request was sent to. Its scheme
/// does not count: a proxy in front of us may have taken TLS away.
fn is_at(origin: &[u8], host: &[u8]) -> bool {
    let is_at = |scheme: &[u8], port: &[u8]| {
        let bare = |authority: &[u8]| authority.strip_suffix(port).unwrap_or(authority).to_vec();
        let authority = origin.strip_prefix(scheme).filter(|authority| !authority.is_empty());
        authority.is_some_and(|authority| bare(authority).eq_ignore_ascii_case(&bare(host)))
    };
    is_at(b"http://", b":80") || is_at(b"https://", b":443")
}

//! Who may publish, and who may listen. A shell that calls us may both: it can
//! open the event files without us.

use std::time::Duration;

use url::form_urlencoded;

use super::access::{Access, Origin, Publish, Subscribe, Topics};
use crate::auth::token::{Grants, Key};
use crate::cgi::{Body, Method, Request};
use crate::error::Error;
use crate::event::{Cursor, Topic};

/// The cookie in which the libraries of Mercure put a token.
const COOKIE: &[u8] = b"mercureAuthorization=";

/// Parameters in which others take a token. A URL stands in logs and
/// histories; whoever puts a token there shall notice.
const IN_URLS: [&str; 3] = ["authorization", "access_token", "token"];

const FOREIGN: &str = "the request comes from a foreign site";
// A browser sends the cookie for every site that has it ask.
const NO_CONSENT_TO_PUBLISH: &str = "the token in the cookie publishes from pages of this site: \
    send Sec-Fetch-Site: same-origin or this site's Origin (a POST has it), \
    or the token in Authorization: Bearer";
const NO_CONSENT_TO_SUBSCRIBE: &str = "the token in the cookie subscribes from pages of this site: \
    send Sec-Fetch-Site: same-origin or this site's Origin or Referer, \
    or the token in Authorization: Bearer";

/// What one caller may do.
pub struct Rights<'a> {
    access: &'a Access,
    request: &'a Request,
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
pub fn reader<'a>(origins: &'a [Origin], request: &Request) -> Option<&'a Origin> {
    find(origins, request.origin.as_deref()?)
}

impl<'a> Rights<'a> {
    /// The rights of the client that sent `request`.
    #[must_use]
    pub fn new(access: &'a Access, request: &'a Request) -> Self {
        Self { access, request }
    }

    /// Whether an event may be made to happen in each of `topics`.
    ///
    /// # Errors
    /// 401 without a valid token where one is needed, 403 for whom it is
    /// forbidden, 503 when the key cannot be used.
    pub fn publish(&self, topics: &[Topic], now: Cursor) -> Result<(), Error> {
        let rule = if self.request.is_cgi { self.access.publish } else { Publish::Any };
        match rule {
            Publish::Any => Ok(()),
            Publish::None => forbid("nobody publishes here"),
            Publish::Post if self.request.method != Method::Post => forbid("publish by POST"),
            Publish::Post | Publish::SameSite if self.site() != Site::Foreign => Ok(()),
            Publish::Post | Publish::SameSite => forbid(FOREIGN),
            Publish::Token => {
                let (grants, from) = self.grants(now)?;
                // A redirect passes our page's Referer on, so it is not enough here.
                if from == Source::Cookie && self.sender() != Site::Ours {
                    return forbid(NO_CONSENT_TO_PUBLISH);
                }
                granted(topics.iter().all(|topic| grants.may_publish(topic)))
            }
        }
    }

    /// Whether each of `topics` may be listened to.
    ///
    /// # Errors
    /// As for [`Rights::publish`].
    pub fn subscribe(&self, topics: &[&Topic], now: Cursor) -> Result<Pass, Error> {
        let private = &self.access.private;
        if self.request.is_cgi && self.access.subscribe == Subscribe::None {
            forbid("nobody subscribes at this URL")?;
        }
        if !self.request.is_cgi || !topics.iter().any(|topic| private.contains(topic)) {
            return Ok(Pass::default());
        }
        let (grants, from) = self.grants(now)?;
        if from == Source::Cookie && self.site() != Site::Ours {
            forbid(NO_CONSENT_TO_SUBSCRIBE)?;
        }
        let pass = Pass { private: private.clone(), grants: Some(grants) };
        pass.check(topics.iter().copied(), now).map(|()| pass)
    }

    /// Whether a browser says that a foreign site had it ask. Such a subscriber
    /// cannot read the answer and takes no slot from those who can.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        self.sender() == Site::Foreign
    }

    /// The site that had the browser send the request, by headers that a redirect
    /// does not pass on. Browsers send `Sec-Fetch-Site` by TLS and to the machine
    /// itself, and `Origin` with each POST and each request of another origin's script.
    fn sender(&self) -> Site {
        match (self.request.fetch_site.as_deref(), self.request.origin.as_deref()) {
            (_, Some(origin)) if self.is_trusted(origin) => Site::Ours,
            (Some(b"same-origin"), _) => Site::Ours,
            // Typed by a person, or a link in another program, a mail for instance.
            (Some(b"none"), _) | (None, None) => Site::Unsaid,
            (None, Some(origin)) if is_at(origin, &self.request.host) => Site::Ours,
            // A sibling host (same-site) is ours if it is configured.
            _ => Site::Foreign,
        }
    }

    /// The same, by `Referer` where a browser sends nothing better: by GET on plain HTTP.
    fn site(&self) -> Site {
        match (self.sender(), &self.request.fetch_site, origin_of(&self.request.referer)) {
            (Site::Unsaid, None, Some(origin)) if self.is_ours(origin) => Site::Ours,
            (Site::Unsaid, None, Some(_)) => Site::Foreign,
            (site, ..) => site,
        }
    }

    fn is_ours(&self, origin: &[u8]) -> bool {
        self.is_trusted(origin) || is_at(origin, &self.request.host)
    }

    fn is_trusted(&self, origin: &[u8]) -> bool {
        find(&self.access.origins, origin).is_some()
    }

    /// What the caller's token grants, and where it was.
    fn grants(&self, now: Cursor) -> Result<(Grants, Source), Error> {
        let key = Key::read(self.access.token.as_ref().ok_or(Error::Unauthorized)?)?;
        let is_bare = !has_token(&self.request.query)
            && !matches!(&self.request.body, Body::Form(form) if has_token(form.as_bytes()));
        let (token, source) = credential(self.request).ok_or(Error::Unauthorized)?;
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

/// Where the page is from that had a browser send the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    /// The host that the request was sent to, or an origin that is configured.
    Ours,
    Foreign,
    /// Nothing says it: a script, an old browser, or a page that suppresses it.
    Unsaid,
}

/// A Bearer header counts, and then no cookie. Another scheme is between the
/// browser and the server (`Require valid-user`).
fn credential(request: &Request) -> Option<(&[u8], Source)> {
    const SCHEME: &[u8] = b"bearer";
    let (scheme, token) = request.authorization.split_at_checked(SCHEME.len()).unwrap_or_default();
    match token {
        [] | [b' ', ..] if scheme.eq_ignore_ascii_case(SCHEME) => {
            Some((token.trim_ascii(), Source::Header))
        }
        _ => cookie(&request.cookie).map(|token| (token, Source::Cookie)),
    }
}

/// Of two cookies with the name, one was set by another host of the domain: none counts.
fn cookie(cookies: &[u8]) -> Option<&[u8]> {
    let parts = cookies.split(|&byte| byte == b';');
    let mut found = parts.filter_map(|part| part.trim_ascii().strip_prefix(COOKIE));
    found.next().filter(|_| found.next().is_none())
}

/// Whether a query or a form has a parameter in which others take a token.
fn has_token(encoded: &[u8]) -> bool {
    form_urlencoded::parse(encoded).any(|(name, _)| IN_URLS.contains(&name.as_ref()))
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

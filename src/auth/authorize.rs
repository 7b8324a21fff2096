//! Decides whether a client may publish or subscribe. A shell may do both, because it can open
//! the event files without this program.

use std::net::IpAddr;

use super::access::{Origin, Policy, Publish, Subscribe, TellStore, Topics};
use super::credential::{TokenLocation, credential, is_in_parameters};
use super::grant::{Grant, Granted};
use super::mercure::Generation;
use super::token::{Claims, Key};
use crate::cgi::{FieldValue, Method, Request, Route};
use crate::error::Error;
use crate::event::{Cursor, Topic};

const FOREIGN: &str = "the request comes from a foreign site";
// A browser sends the cookie with a request that any site causes.
const NO_CONSENT_TO_PUBLISH: &str = "the token in the cookie publishes from pages of this site: \
    send Sec-Fetch-Site: same-origin or this site's Origin (a POST has it), \
    or the token in Authorization: Bearer";
const NO_CONSENT_TO_SUBSCRIBE: &str = "the token in the cookie subscribes from pages of this site: \
    send Sec-Fetch-Site: same-origin or this site's Origin or Referer, \
    or the token in Authorization: Bearer";

/// The rights that a request needs.
pub enum Access<'a> {
    /// Nothing that a store knows.
    None,
    /// To publish to these topics.
    Publish(Vec<&'a Topic>),
    /// To subscribe to these topics.
    Subscribe(Vec<&'a Topic>),
    /// To subscribe by pattern.
    Follow,
    /// To publish to these topics as a client of Mercure. Its token says of which generation.
    MercurePublish(Vec<&'a Topic>),
    /// To follow topics as a client of this generation of Mercure.
    MercureFollow(Generation),
}

/// Whether `policy` allows the client that sent `request` what it asks for.
///
/// # Errors
/// 401 without a valid token where one is needed, 403 for what is forbidden, 503
/// when the key cannot be used.
pub fn authorize(
    policy: &Policy,
    request: &Request,
    access: &Access,
    now: Cursor,
) -> Result<Grant, Error> {
    let rights = Rights { policy, request };
    let origin = allowed_origin(&policy.origins, request).cloned();
    let (action, claims) = match access {
        Access::None => (Granted::Nothing, None),
        Access::MercurePublish(_) => {
            let has_token = credential(request).is_some();
            let refuse = |error| if has_token { Error::InvalidToken } else { error };
            (Granted::Publish, Some(rights.claims(now).map_err(refuse)?.0))
        }
        Access::MercureFollow(_) => (Granted::Subscribe, None),
        Access::Publish(_) => (Granted::Publish, rights.publish(now)?),
        Access::Subscribe(topics) => (Granted::Subscribe, rights.subscribe(topics, now)?),
        Access::Follow => (Granted::Subscribe, rights.subscribe(&[], now)?),
    };
    let private = if claims.is_some() || matches!(access, Access::Follow) {
        policy.private.clone()
    } else {
        Topics::default()
    };
    let grant = Grant::new(action, private, claims, rights.is_foreign(), origin);
    match access {
        Access::None | Access::Follow | Access::MercureFollow(_) => {}
        Access::Publish(topics) | Access::MercurePublish(topics) => {
            grant.check_publish(topics.iter().copied())?;
        }
        Access::Subscribe(topics) => grant.check_subscribe(topics.iter().copied(), now)?,
    }
    Ok(grant)
}

/// Whether the client that sent `request` may know the directory of the events. On the
/// server's own machine it can find that anyway. A page of another site that has rebound its
/// name to this machine names another host.
#[must_use]
pub fn may_know_store(policy: &Policy, request: &Request) -> bool {
    match policy.tell_store {
        TellStore::On => true,
        TellStore::Off => false,
        TellStore::Auto => {
            let from_here = is_loopback(&request.address) && is_own_host(&request.host);
            !request.is_cgi || from_here && request.route == Route::Direct
        }
    }
}

fn is_loopback(address: &str) -> bool {
    address.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
}

/// Whether `host` names this machine itself, with any port.
fn is_own_host(host: &[u8]) -> bool {
    let host = std::str::from_utf8(host).unwrap_or_default();
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let name = host.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(host, |(it, _)| it);
    let address = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || is_loopback(address)
}

/// The configured origin of the page that sent `request`: only its pages may read
/// the answer (CORS). It is the configuration's text, never the request's.
#[must_use]
pub fn allowed_origin<'a>(origins: &'a [Origin], request: &Request) -> Option<&'a FieldValue> {
    find(origins, request.origin.as_deref()?).map(Origin::field_value)
}

/// A policy, applied to one request.
struct Rights<'a> {
    policy: &'a Policy,
    request: &'a Request,
}

impl Rights<'_> {
    /// The claims that publishing needs, if it does; their topics are not checked.
    fn publish(&self, now: Cursor) -> Result<Option<Claims>, Error> {
        let rule = if self.request.is_cgi { self.policy.publish } else { Publish::Any };
        match rule {
            Publish::Any => Ok(None),
            Publish::None => forbid("nobody publishes here"),
            Publish::Post if self.request.method != Method::Post => forbid("publish by POST"),
            Publish::Post | Publish::SameSite if self.site() != Site::Foreign => Ok(None),
            Publish::Post | Publish::SameSite => forbid(FOREIGN),
            Publish::Token => {
                let (claims, from) = self.claims(now)?;
                // A redirect passes this site's Referer on, so that is not enough here.
                if from == TokenLocation::Cookie && self.sender() != Site::Trusted {
                    return forbid(NO_CONSENT_TO_PUBLISH);
                }
                Ok(Some(claims))
            }
        }
    }

    /// The claims that subscribing needs, if one of `topics` is private.
    fn subscribe(&self, topics: &[&Topic], now: Cursor) -> Result<Option<Claims>, Error> {
        let private = &self.policy.private;
        if self.request.is_cgi && self.policy.subscribe == Subscribe::None {
            return forbid("nobody subscribes at this URL");
        }
        if !self.request.is_cgi || !topics.iter().any(|topic| private.contains(topic)) {
            return Ok(None);
        }
        let (claims, from) = self.claims(now)?;
        if from == TokenLocation::Cookie && self.site() != Site::Trusted {
            return forbid(NO_CONSENT_TO_SUBSCRIBE);
        }
        Ok(Some(claims))
    }

    /// Whether a browser says that a foreign site caused the request.
    fn is_foreign(&self) -> bool {
        self.sender() == Site::Foreign
    }

    /// The site that caused the request, by headers that a redirect does not pass on.
    /// Browsers send `Sec-Fetch-Site` by TLS and to the machine itself, and `Origin`
    /// with each POST and each request of another origin's script.
    fn sender(&self) -> Site {
        match (self.request.fetch_site.as_deref(), self.request.origin.as_deref()) {
            (_, Some(origin)) if self.is_trusted(origin) => Site::Trusted,
            (Some(b"same-origin"), _) => Site::Trusted,
            // A typed URL, or a link in another program, such as a mail.
            (Some(b"none"), _) | (None, None) => Site::Unknown,
            (None, Some(origin)) if is_at(origin, &self.request.host) => Site::Trusted,
            // A sibling host (same-site) is trusted only if it is configured.
            _ => Site::Foreign,
        }
    }

    /// The same, by `Referer` where a browser sends nothing better: by GET on plain HTTP.
    fn site(&self) -> Site {
        match (self.sender(), &self.request.fetch_site, origin_of(&self.request.referer)) {
            (Site::Unknown, None, Some(origin)) if self.is_this_site(origin) => Site::Trusted,
            (Site::Unknown, None, Some(_)) => Site::Foreign,
            (site, ..) => site,
        }
    }

    fn is_this_site(&self, origin: &[u8]) -> bool {
        self.is_trusted(origin) || is_at(origin, &self.request.host)
    }

    fn is_trusted(&self, origin: &[u8]) -> bool {
        find(&self.policy.origins, origin).is_some()
    }

    /// The claims of the client's token, and the place where it was.
    fn claims(&self, now: Cursor) -> Result<(Claims, TokenLocation), Error> {
        let key = Key::read(self.policy.token.as_ref().ok_or(Error::Unauthorized)?)?;
        let is_bare = !is_in_parameters(self.request);
        let (token, source) = credential(self.request).ok_or(Error::Unauthorized)?;
        let claims = key.verify(token, now).filter(|_| is_bare).ok_or(Error::Unauthorized)?;
        Ok((claims, source))
    }
}

/// The site of the page that caused the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Site {
    /// The host that the request was sent to, or an origin that is configured.
    Trusted,
    Foreign,
    /// No header tells the site: a script, an old browser, or a page that suppresses it.
    Unknown,
}

fn forbid<T>(why: &'static str) -> Result<T, Error> {
    Err(Error::Forbidden(why))
}

fn find<'a>(origins: &'a [Origin], origin: &[u8]) -> Option<&'a Origin> {
    origins.iter().find(|known| known.as_str().as_bytes() == origin)
}

/// The origin in the URL of a page.
fn origin_of(referer: &[u8]) -> Option<&[u8]> {
    let path = referer.windows(3).position(|three| three == b"://").map_or(0, |at| at + 3);
    let ends = |byte: &u8| b"/?#".contains(byte);
    let length = referer[path..].iter().position(ends).map_or(referer.len(), |at| path + at);
    (!referer.is_empty()).then(|| &referer[..length])
}

/// Whether `origin` is on the host that the request was sent to. Its scheme
/// does not count: a proxy may have ended TLS.
fn is_at(origin: &[u8], host: &[u8]) -> bool {
    let is_at = |scheme: &[u8], port: &[u8]| {
        let bare = |authority: &[u8]| authority.strip_suffix(port).unwrap_or(authority).to_vec();
        let authority = origin.strip_prefix(scheme).filter(|authority| !authority.is_empty());
        authority.is_some_and(|authority| bare(authority).eq_ignore_ascii_case(&bare(host)))
    };
    is_at(b"http://", b":80") || is_at(b"https://", b":443")
}

//! Decides whether a client may publish or subscribe. A shell may do both, because it can open
//! the event files without this program.

use std::net::IpAddr;

use url::form_urlencoded;

use super::access::{
    Doctor, Metrics, Names, Origin, Policy, Publish, Subscribe, TellStore, Topics,
};
use super::claims::{Claims, Generation, is_name};
use super::credential::{Places, TokenLocation, credential};
use super::grant::{Grant, Granted, Publishes};
use super::mercure;
use super::token::{Key, Token};
use crate::cgi::{FieldValue, Method, Request, Route};
use crate::error::Error;
use crate::event::{Cursor, Topic};

const NOT_FROM_HERE: &str = "the figures are for clients on the server's own machine; \
    NOVCOMET_METRICS says for whom else";
const NO_PATIENT: &str = "the doctor's page is for clients on the server's own machine; \
    NOVCOMET_DOCTOR says for whom else";
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
    /// To know whether the server works.
    Health,
    /// To publish to these topics.
    Publish(Vec<&'a Topic>),
    /// To subscribe to these topics.
    Subscribe(Vec<&'a Topic>),
    /// To follow topics by a pattern. Each message is judged by its topics.
    Follow,
    /// To publish to these topics as a client of Mercure. Its token says of which generation.
    MercurePublish(Vec<&'a Topic>),
    /// To follow topics as a client of this generation of Mercure.
    MercureFollow(Generation),
    /// To know the figures.
    Metrics,
    /// To see the page of the doctor.
    Doctor,
    /// To know who subscribes to a hub of Mercure, at the URL with this path. It needs a token
    /// that grants the path as a topic, whatever its generation.
    MercureSubscriptions(&'a Topic),
    /// To do what a session does, with the token of its first message, if that has one. Each
    /// part is judged for itself.
    Session(Option<&'a str>),
}

/// Whose rules a token keeps.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Own,
    /// Without a generation, the token says which one it is of.
    Mercure(Option<Generation>),
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
    let (action, claims) = rights.claims_for(access, now)?;
    let has_claims = claims.is_some();
    let is_judged_later =
        matches!(action, Granted::Follow | Granted::Session { .. }) || claims.is_some();
    let private = if is_judged_later { policy.private.clone() } else { Topics::default() };
    let grant = Grant::new(action, private, claims, rights.is_foreign(), origin)
        .named(policy.names, rights.name());
    match access {
        Access::Metrics if has_claims => grant.check_granted(&Topic::new(Metrics::TOPIC)?, now)?,
        Access::Doctor if has_claims => grant.check_granted(&Topic::new(Doctor::TOPIC)?, now)?,
        Access::None | Access::Health | Access::Metrics | Access::Doctor | Access::Session(_) => {}
        Access::Publish(topics) | Access::MercurePublish(topics) => {
            grant.check_publish(topics.iter().copied())?;
        }
        Access::Subscribe(topics) => grant.check_subscribe(topics.iter().copied(), now)?,
        Access::Follow | Access::MercureFollow(_) => grant.check_valid(now)?,
        Access::MercureSubscriptions(topic) => grant.check_granted(topic, now)?,
    }
    Ok(grant)
}

/// Whether the client that sent `request` may know the directory of the events. On the
/// server's own machine it can find that anyway.
#[must_use]
pub fn may_know_store(policy: &Policy, request: &Request) -> bool {
    match policy.tell_store {
        TellStore::On => true,
        TellStore::Off => false,
        TellStore::Auto => !request.is_cgi || is_from_here(request),
    }
}

/// Whether the client is on the server's own machine. A page of another site that has rebound
/// its name to this machine names another host.
#[must_use]
pub fn is_from_here(request: &Request) -> bool {
    let is_direct = request.route == Route::Direct;
    is_direct && is_loopback(&request.address) && is_own_host(&request.host)
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
    /// What the client may do, and the claims that limit it. Their topics are not checked.
    fn claims_for(&self, access: &Access, now: Cursor) -> Result<(Granted, Option<Claims>), Error> {
        Ok(match access {
            Access::None => (Granted::Nothing, None),
            Access::Health => {
                // Without the key, requests with a token would be refused.
                self.policy.token.as_ref().map(Key::read).transpose()?;
                (Granted::Nothing, None)
            }
            Access::Metrics => (Granted::Follow, self.metrics(now)?),
            Access::Doctor => (Granted::Follow, self.doctor(now)?),
            Access::Publish(_) => (Granted::Publish, self.publish(now)?),
            Access::Subscribe(topics) => (Granted::Subscribe, self.subscribe(topics, now)?),
            Access::Follow => (Granted::Follow, self.follow(Wire::Own, now)?),
            Access::MercurePublish(_) => (Granted::Publish, Some(self.mercure_publish(now)?)),
            Access::MercureFollow(generation) => {
                (Granted::Follow, self.follow(Wire::Mercure(Some(*generation)), now)?)
            }
            Access::Session(token) => self.session(*token, now)?,
            Access::MercureSubscriptions(_) => {
                self.check_subscribers()?;
                (Granted::Follow, Some(self.claims_to_subscribe(Wire::Mercure(None), now)?))
            }
        })
    }

    /// The claims that the figures need, if they do; their topics are not checked.
    fn metrics(&self, now: Cursor) -> Result<Option<Claims>, Error> {
        match self.policy.metrics {
            Metrics::Off => forbid("nobody learns the figures; NOVCOMET_METRICS says who may"),
            _ if !self.request.is_cgi => Ok(None),
            Metrics::All => Ok(None),
            Metrics::Loopback if is_from_here(self.request) => Ok(None),
            Metrics::Loopback => forbid(NOT_FROM_HERE),
            Metrics::Token => self.claims_to_subscribe(Wire::Own, now).map(Some),
        }
    }

    /// The claims that the page of the doctor needs, if it does; their topics are not checked.
    fn doctor(&self, now: Cursor) -> Result<Option<Claims>, Error> {
        // The page names the directory.
        let is_hidden = self.policy.tell_store == TellStore::Off;
        match self.policy.doctor {
            Doctor::Off => forbid("nobody sees this page; NOVCOMET_DOCTOR says who may"),
            Doctor::Loopback if is_from_here(self.request) && !is_hidden => Ok(None),
            Doctor::Loopback => forbid(NO_PATIENT),
            Doctor::Token => self.claims_to_subscribe(Wire::Own, now).map(Some),
        }
    }

    /// The claims that publishing needs, if it does; their topics are not checked.
    fn publish(&self, now: Cursor) -> Result<Option<Claims>, Error> {
        let rule = if self.request.is_cgi { self.policy.publish } else { Publish::Any };
        match rule {
            Publish::Any => Ok(None),
            Publish::None => forbid("nobody publishes here"),
            Publish::Post if self.request.method != Method::Post => forbid("publish by POST"),
            Publish::Post | Publish::SameSite if self.site() != Site::Foreign => Ok(None),
            Publish::Post | Publish::SameSite => forbid(FOREIGN),
            Publish::Token => self.claims_to_publish(Wire::Own, now).map(Some),
        }
    }

    /// The claims of a publisher of Mercure, which always needs a token.
    fn mercure_publish(&self, now: Cursor) -> Result<Claims, Error> {
        match self.policy.publish {
            Publish::None => forbid("nobody publishes here"),
            _ => self.claims_to_publish(Wire::Mercure(None), now),
        }
    }

    fn claims_to_publish(&self, wire: Wire, now: Cursor) -> Result<Claims, Error> {
        let (claims, from) = self.claims(wire, now)?;
        // A redirect passes this site's Referer on, so that is not enough here.
        if from == TokenLocation::Cookie && self.sender() != Site::Trusted {
            return forbid(NO_CONSENT_TO_PUBLISH);
        }
        Ok(claims)
    }

    /// The claims that subscribing needs, if one of `topics` is private. Where none are
    /// needed, a valid token counts all the same, because private messages may come.
    fn subscribe(&self, topics: &[&Topic], now: Cursor) -> Result<Option<Claims>, Error> {
        if !self.request.is_cgi {
            return Ok(Some(Claims::of_shell()));
        }
        self.check_subscribers()?;
        if !topics.iter().any(|topic| self.policy.private.contains(topic)) {
            let is_presented = matches!(credential(self.request, Places::OWN), Ok(Some(_)));
            let claims = is_presented.then(|| self.claims_to_subscribe(Wire::Own, now));
            return Ok(claims.and_then(Result::ok));
        }
        self.claims_to_subscribe(Wire::Own, now).map(Some)
    }

    /// The claims of a subscriber by pattern. Where none are needed, a token counts all the
    /// same, because private messages may come.
    fn follow(&self, wire: Wire, now: Cursor) -> Result<Option<Claims>, Error> {
        if !self.request.is_cgi {
            return Ok(Some(Claims::of_shell()));
        }
        self.check_subscribers()?;
        let is_open = wire == Wire::Own || self.policy.mercure.anonymous;
        let needs_token = self.policy.subscribe == Subscribe::Token || !is_open;
        if !needs_token && matches!(credential(self.request, self.places(wire)), Ok(None)) {
            return Ok(None);
        }
        self.claims_to_subscribe(wire, now).map(Some)
    }

    /// What a session may do, and its claims. A token counts where none is needed, because
    /// private messages may come.
    fn session(
        &self,
        token: Option<&str>,
        now: Cursor,
    ) -> Result<(Granted, Option<Claims>), Error> {
        if !self.request.is_cgi {
            let all = Granted::Session { publishes: Publishes::Anywhere, subscribes: true };
            return Ok((all, Some(Claims::of_shell())));
        }
        let claims = match token {
            Some(token) => Some(self.claims_of(token.as_bytes(), now)?),
            None if matches!(credential(self.request, Places::OWN), Ok(None)) => None,
            None => Some(self.claims_to_publish(Wire::Own, now)?),
        };
        let publishes = match self.policy.publish {
            Publish::Token => Publishes::AsGranted,
            Publish::Any => Publishes::Anywhere,
            Publish::Post | Publish::SameSite if self.site() != Site::Foreign => {
                Publishes::Anywhere
            }
            Publish::Post | Publish::SameSite | Publish::None => Publishes::Nowhere,
        };
        let subscribes = self.policy.subscribe != Subscribe::None;
        Ok((Granted::Session { publishes, subscribes }, claims))
    }

    /// The claims of a token in a message.
    fn claims_of(&self, token: &[u8], now: Cursor) -> Result<Claims, Error> {
        let key = Key::read(self.policy.token.as_ref().ok_or(Error::InvalidToken)?)?;
        let token = key.open(token).ok_or(Error::InvalidToken)?;
        Claims::of_own_wire(&token.claims, now).ok_or(Error::InvalidToken)
    }

    fn check_subscribers(&self) -> Result<(), Error> {
        match self.policy.subscribe {
            Subscribe::None => forbid("nobody subscribes at this URL"),
            Subscribe::Any | Subscribe::Token => Ok(()),
        }
    }

    fn claims_to_subscribe(&self, wire: Wire, now: Cursor) -> Result<Claims, Error> {
        let (claims, from) = self.claims(wire, now)?;
        if from == TokenLocation::Cookie && self.site() != Site::Trusted {
            return forbid(NO_CONSENT_TO_SUBSCRIBE);
        }
        Ok(claims)
    }

    /// The name that the client gives itself, if the rules let it.
    fn name(&self) -> Option<String> {
        if self.policy.names != Names::Parameter {
            return None;
        }
        let mut pairs = form_urlencoded::parse(&self.request.query);
        let (_, name) = pairs.find(|(name, _)| name == "name")?;
        let is_name = is_name(&name) && !name.contains(char::is_control);
        is_name.then(|| name.into_owned())
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

    fn places(&self, wire: Wire) -> Places {
        match wire {
            Wire::Own => Places::OWN,
            Wire::Mercure(generation) => {
                Places::of_mercure(generation, self.policy.mercure.url_token)
            }
        }
    }

    /// The claims of the client's token, and the place where it was.
    fn claims(&self, wire: Wire, now: Cursor) -> Result<(Claims, TokenLocation), Error> {
        let found = credential(self.request, self.places(wire));
        let Some(file) = &self.policy.token else {
            return Err(if found == Ok(None) { Error::Unauthorized } else { Error::InvalidToken });
        };
        let key = Key::read(file)?;
        let (token, location) = found?.ok_or(Error::Unauthorized)?;
        let token = key.open(&token).ok_or(Error::InvalidToken)?;
        let claims = match wire {
            Wire::Own => Claims::of_own_wire(&token.claims, now).ok_or(Error::InvalidToken)?,
            Wire::Mercure(wanted) => self.mercure_claims(&token, wanted, location, now)?,
        };
        Ok((claims, location))
    }

    /// A subscriber of 1.0 needs a token of 1.0, and none of those may be in a URL.
    fn mercure_claims(
        &self,
        token: &Token,
        wanted: Option<Generation>,
        location: TokenLocation,
        now: Cursor,
    ) -> Result<Claims, Error> {
        let generation = Generation::of(token);
        let is_allowed = match generation {
            Generation::V0 => wanted != Some(Generation::V1),
            Generation::V1 => location != TokenLocation::Url,
        };
        if !is_allowed {
            return Err(Error::InvalidToken);
        }
        mercure::claims(token, generation, &self.policy.mercure, now)
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process;
    use std::time::Duration;

    use base64ct::{Base64UrlUnpadded, Encoding};
    use hmac::{Hmac, Mac};
    use sha2::Sha256;

    use super::*;
    use crate::config::Config;
    use crate::event::{Extra, Message};

    const SECRET: &str = "a secret of 32 bytes for the tests only";
    const HUB: &str = "https://hub.example/.well-known/mercure";
    const FIRST: Access = Access::MercureFollow(Generation::V0);
    const SECOND: Access = Access::MercureFollow(Generation::V1);
    const MISSING: Result<(), Error> = Err(Error::Unauthorized);
    const INVALID: Result<(), Error> = Err(Error::InvalidToken);
    const NO_GRANT: Result<(), Error> = Err(Error::Forbidden("the token does not grant this"));

    /// Environment variables.
    type Variables<'a> = &'a [(&'a str, &'a str)];

    /// A server with a key.
    struct House(PathBuf);

    impl House {
        fn new(test: &str) -> Self {
            let name = format!("novcomet-authorize-{test}-{}", process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, SECRET).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            Self(path)
        }

        fn grant(
            &self,
            settings: Variables,
            request: Variables,
            of: &Access,
        ) -> Result<Grant, Error> {
            let key = [("NOVCOMET_TOKEN_KEY", self.0.to_str().unwrap())];
            grant(&[&key, settings].concat(), request, of)
        }

        fn ask(&self, settings: Variables, request: Variables, of: &Access) -> Result<(), Error> {
            self.grant(settings, request, of).map(|_| ())
        }
    }

    impl Drop for House {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    fn grant(settings: Variables, request: Variables, access: &Access) -> Result<Grant, Error> {
        let find = |variables: Variables, name: &str| {
            variables.iter().rfind(|(known, _)| *known == name).map(|(_, value)| value.into())
        };
        let usual = [("REQUEST_METHOD", "GET"), ("HTTP_HOST", "a.example")];
        let policy = Config::from_env(|name| find(settings, name)).unwrap().access;
        let request = [&usual, request].concat();
        let request = Request::from_env(|name| find(&request, name)).unwrap();
        authorize(&policy, &request, access, Cursor::now())
    }

    /// A token that expires a minute later.
    fn signed(typ: &str, claims: &str) -> String {
        let exp = Cursor::now().seconds() + 60;
        signed_for_ever(typ, &format!(r#""exp":{exp},"aud":"{HUB}",{claims}"#))
    }

    fn signed_for_ever(typ: &str, claims: &str) -> String {
        let parts = [format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#), format!("{{{claims}}}")];
        let text = parts.map(|part| Base64UrlUnpadded::encode_string(part.as_bytes())).join(".");
        let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let signature = Base64UrlUnpadded::encode_string(&mac.finalize().into_bytes());
        format!("{text}.{signature}")
    }

    /// A token of 0.x, which is one of our own wire too.
    fn first(grants: &str) -> String {
        signed("JWT", &format!(r#""mercure":{{{grants}}}"#))
    }

    /// A token of 1.0 that grants both actions on the topic.
    fn second(topic: &str) -> String {
        let detail = format!(
            r#"{{"type":"https://mercure.rocks/authorization-detail",
                "actions":["publish","subscribe"],"topics":[{{"match":"{topic}"}}]}}"#
        );
        signed("at+jwt", &format!(r#""authorization_details":[{detail}]"#))
    }

    fn bearer(token: &str) -> String {
        format!("Bearer {token}")
    }

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    /// A message of these further topics.
    fn message(private: bool, topics: &[&str]) -> Message {
        let topics = topics.iter().map(|name| topic(name)).collect();
        let extra = Extra { private, topics, ..Extra::default() };
        Message { extra, ..Message::new(Cursor::now(), "x") }
    }

    #[test]
    fn follower_obeys_the_rule_for_subscribers() {
        let house = House::new("rule");
        let (good, bad) = (bearer(&first(r#""subscribe":["a"]"#)), bearer("x"));
        let none: Variables = &[];
        let (good, bad) = ([("HTTP_AUTHORIZATION", &*good)], [("HTTP_AUTHORIZATION", &*bad)]);
        let nobody = || Err(Error::Forbidden("nobody subscribes at this URL"));
        for (rule, request, expected) in [
            ("any", none, Ok(())),
            ("any", &good, Ok(())),
            ("any", &bad, INVALID),
            ("token", none, MISSING),
            ("token", &good, Ok(())),
            ("token", &bad, INVALID),
            ("none", none, nobody()),
            ("none", &good, nobody()),
        ] {
            let settings = [("NOVCOMET_SUBSCRIBE", rule), ("NOVCOMET_MERCURE_ANONYMOUS", "on")];
            for access in [Access::Follow, FIRST] {
                assert_eq!(house.ask(&settings, request, &access), expected, "{rule} {request:?}");
            }
        }
    }

    #[test]
    fn hub_admits_anonymous_subscribers_by_setting() {
        let house = House::new("anonymous");
        for access in [FIRST, SECOND] {
            assert_eq!(house.ask(&[], &[], &access), MISSING);
            for (setting, expected) in [("off", MISSING), ("on", Ok(()))] {
                let settings = [("NOVCOMET_MERCURE_ANONYMOUS", setting)];
                assert_eq!(house.ask(&settings, &[], &access), expected, "{setting}");
            }
        }
    }

    #[test]
    fn token_that_does_not_count_is_no_absent_one() {
        let house = House::new("presented");
        let good = first(r#""subscribe":["*"]"#);
        let query = format!("token={good}");
        let twice = format!("mercureAuthorization={good};mercureAuthorization={good}");
        let site = ("HTTP_SEC_FETCH_SITE", "same-origin");
        for request in [
            [("HTTP_AUTHORIZATION", "Bearer"), site],
            [("HTTP_COOKIE", "mercureAuthorization=x"), site],
            [("HTTP_COOKIE", "mercureAuthorization="), site],
            [("HTTP_COOKIE", &twice), site],
            [("QUERY_STRING", &query), site],
            [("QUERY_STRING", "authorization="), site],
        ] {
            let settings = [("NOVCOMET_MERCURE_ANONYMOUS", "on")];
            for access in [Access::Follow, FIRST] {
                assert_eq!(house.ask(&settings, &request, &access), INVALID, "{request:?}");
            }
        }
        let with = |name| [(name, "Bearer x")];
        assert_eq!(grant(&[], &with("HTTP_AUTHORIZATION"), &Access::Follow).err(), INVALID.err());
        assert!(grant(&[], &with("HTTP_X"), &Access::Follow).is_ok(), "no key is needed");
    }

    #[test]
    fn private_message_needs_a_claim_for_one_of_its_topics() {
        let house = House::new("private");
        let settings = [("NOVCOMET_PRIVATE", "secret/*"), ("NOVCOMET_MERCURE_ANONYMOUS", "on")];
        let own = bearer(&first(r#""subscribe":["secret/b","user/*"]"#));
        let hub = bearer(&second("user/1"));
        let anonymous: Variables = &[];
        let (own, hub) = ([("HTTP_AUTHORIZATION", &*own)], [("HTTP_AUTHORIZATION", &*hub)]);
        let url = [("NOVCOMET_MERCURE_URL", HUB)];
        let grants = [(anonymous, Access::Follow), (&own, Access::Follow), (&hub, SECOND)].map(
            |(who, access)| house.grant(&[settings, [url[0]; 2]].concat(), who, &access).unwrap(),
        );
        for (name, message, may) in [
            ("news", None, [true; 3]),
            ("news", Some(message(false, &["secret/a"])), [true; 3]),
            ("news", Some(message(true, &[])), [false; 3]),
            ("news", Some(message(true, &["user/1"])), [false, true, true]),
            ("news", Some(message(true, &["user/2", "x"])), [false, true, false]),
            ("user/1", Some(message(true, &["news"])), [false, true, true]),
            ("secret/a", None, [false; 3]),
            ("secret/b", None, [false, true, false]),
            ("secret/b", Some(message(false, &[])), [false, true, false]),
            ("secret/a", Some(message(false, &["user/1"])), [false, true, true]),
        ] {
            let topic = topic(name);
            let received = grants.each_ref().map(|it| it.may_receive(&topic, message.as_ref()));
            assert_eq!(received, may, "{name} {message:?}");
        }
        assert!(grants[2].is_granted(&topic("user/1")) && !grants[2].is_granted(&topic("news")));
        let all = house.grant(&[("NOVCOMET_SUBSCRIBE", "token")], &own, &Access::Follow).unwrap();
        assert!(!all.may_receive(&topic("news"), None), "every topic is private");
        assert!(all.may_receive(&topic("user/3"), None));
    }

    #[test]
    fn shell_receives_everything() {
        let variables: Variables = &[("QUERY_STRING", "x=1")];
        let request = Request::from_env(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        });
        let policy = Config::from_env(|_| None).unwrap().access;
        let topic = topic("a");
        for access in [Access::Follow, Access::Subscribe(vec![&topic])] {
            let grant = authorize(&policy, request.as_ref().unwrap(), &access, Cursor::now());
            assert!(grant.unwrap().may_receive(&topic, Some(&message(true, &[]))));
        }
    }

    #[test]
    fn only_subscribers_receive() {
        let house = House::new("receive");
        let token = bearer(&first(r#""publish":["*"],"subscribe":["*"]"#));
        let request = [("HTTP_AUTHORIZATION", &*token)];
        let topic = topic("a");
        for access in [Access::None, Access::MercurePublish(vec![&topic])] {
            let grant = house.grant(&[], &request, &access).unwrap();
            assert!(!grant.may_receive(&topic, None));
            assert_eq!(grant.check_valid(Cursor::now()), NO_GRANT);
        }
        let follower = house.grant(&[], &request, &FIRST).unwrap();
        assert_eq!(follower.check_publish([&topic]), NO_GRANT);
        assert_eq!(follower.check_subscribe([&topic], Cursor::now()), NO_GRANT);
        assert_eq!(follower.check_valid(Cursor::now()), Ok(()));
        assert_eq!(follower.check_valid(Cursor::now().after(Duration::from_secs(61))), INVALID);
    }

    #[test]
    fn cookie_of_a_follower_needs_evidence_of_own_site() {
        let house = House::new("evidence");
        let first = format!("mercureAuthorization={}", first(r#""subscribe":["*"]"#));
        let second = format!("__Secure-mercure_access_token={}", second("*"));
        let settings = [
            ("NOVCOMET_MERCURE_ANONYMOUS", "on"),
            ("NOVCOMET_MERCURE_URL", HUB),
            ("NOVCOMET_ORIGINS", "https://pages.example"),
        ];
        for (mark, is_evidence) in [
            (("HTTP_SEC_FETCH_SITE", "same-origin"), true),
            (("HTTP_SEC_FETCH_SITE", "same-site"), false),
            (("HTTP_SEC_FETCH_SITE", "none"), false),
            (("HTTP_ORIGIN", "https://a.example"), true),
            (("HTTP_ORIGIN", "https://pages.example"), true),
            (("HTTP_ORIGIN", "https://evil.example"), false),
            (("HTTP_REFERER", "https://a.example/x"), true),
            (("HTTP_REFERER", "https://evil.example/x"), false),
            (("HTTP_X", ""), false),
        ] {
            for (cookie, access) in [(&first, Access::Follow), (&first, FIRST), (&second, SECOND)] {
                let asked = house.ask(&settings, &[("HTTP_COOKIE", cookie), mark], &access);
                let refused = Err(Error::Forbidden(NO_CONSENT_TO_SUBSCRIBE));
                assert_eq!(asked, if is_evidence { Ok(()) } else { refused }, "{mark:?}");
            }
        }
    }

    /// Each row has a good token in some places and a bad one in others.
    #[test]
    fn hub_finds_the_token_in_the_places_of_its_generation() {
        let house = House::new("places");
        let (old, new) = (first(r#""publish":["a"],"subscribe":["*"]"#), second("a"));
        let (old_header, new_header) = (bearer(&old), bearer(&new));
        let (old_query, new_query) =
            (format!("authorization={old}"), format!("authorization={new}"));
        let two_in_query = format!("{old_query}&{old_query}");
        let old_cookie = format!("mercureAuthorization={old}");
        let new_cookie = format!("__Secure-mercure_access_token={new}");
        let both_cookies = format!("{old_cookie}; __Secure-mercure_access_token=x");
        let two_of_new = format!("{new_cookie}; {new_cookie}; {old_cookie}");
        let topic = topic("a");
        let publish = Access::MercurePublish(vec![&topic]);
        let (ok, x) = (Ok(()), ("", ""));
        let (header, query, cookie) = ("HTTP_AUTHORIZATION", "QUERY_STRING", "HTTP_COOKIE");
        // In turn: the places, and who may by a token there: of 0.x, of 1.0, a publisher.
        for (places, expected) in [
            ([(header, &*old_header), x], [&ok, &INVALID, &ok]),
            ([(header, &new_header), x], [&ok, &ok, &ok]),
            ([(query, &old_query), x], [&ok, &INVALID, &ok]),
            ([(query, &new_query), x], [&INVALID, &INVALID, &INVALID]),
            ([(query, &two_in_query), x], [&INVALID, &INVALID, &INVALID]),
            ([(cookie, &old_cookie), x], [&ok, &MISSING, &ok]),
            ([(cookie, &new_cookie), x], [&MISSING, &ok, &ok]),
            ([(cookie, &both_cookies), x], [&ok, &INVALID, &INVALID]),
            ([(cookie, &two_of_new), x], [&ok, &INVALID, &INVALID]),
            ([(header, &old_header), (query, "authorization=x")], [&ok, &INVALID, &ok]),
            ([(header, "Bearer x"), (query, &old_query)], [&INVALID; 3]),
            ([(header, &new_header), (cookie, "mercureAuthorization=x")], [&ok; 3]),
            ([(header, "Bearer x"), (cookie, &new_cookie)], [&INVALID; 3]),
            ([(header, "Basic x"), (cookie, &old_cookie)], [&ok, &MISSING, &ok]),
            ([(query, &old_query), (cookie, "mercureAuthorization=x")], [&ok, &INVALID, &ok]),
            ([(query, "authorization=x"), (cookie, &old_cookie)], [&INVALID; 3]),
        ] {
            let settings = [("NOVCOMET_MERCURE_URL", HUB), ("NOVCOMET_MERCURE_URL_TOKEN", "on")];
            let request = [&places[..], &[("HTTP_SEC_FETCH_SITE", "same-origin")]].concat();
            for (access, expected) in [&FIRST, &SECOND, &publish].into_iter().zip(expected) {
                assert_eq!(&house.ask(&settings, &request, access), expected, "{places:?}");
                let is_in_url = places.iter().any(|(name, _)| *name == query);
                let strict = house.ask(&settings[..1], &request, access);
                assert_eq!(&strict, if is_in_url { &INVALID } else { expected }, "{places:?}");
            }
        }
    }

    #[test]
    fn hub_publishes_with_a_grant_for_every_topic() {
        let house = House::new("publish");
        let (a, b) = (topic("a"), topic("b"));
        let old = bearer(&first(r#""publish":["a","b*"],"subscribe":["*"]"#));
        let new = bearer(&second("a"));
        for rule in ["any", "same-site", "post", "token"] {
            let settings = [("NOVCOMET_PUBLISH", rule), ("NOVCOMET_MERCURE_URL", HUB)];
            let ask = |token: &str, topics: Vec<&Topic>| {
                let request = [("REQUEST_METHOD", "POST"), ("HTTP_AUTHORIZATION", token)];
                house.ask(&settings, &request, &Access::MercurePublish(topics))
            };
            for token in [&old, &new] {
                assert_eq!(ask(token, vec![&a]), Ok(()), "{rule}");
                assert_eq!(ask(token, vec![&b]), NO_GRANT, "{rule}");
                assert_eq!(ask(token, vec![&a, &b]), NO_GRANT, "{rule}");
            }
            assert_eq!(ask("", vec![&a]), MISSING, "{rule}");
            assert_eq!(ask("Bearer x", vec![&a]), INVALID, "{rule}");
        }
        let request = [("HTTP_AUTHORIZATION", &*old)];
        let publish = Access::MercurePublish(vec![&a]);
        let nobody = house.ask(&[("NOVCOMET_PUBLISH", "none")], &request, &publish);
        assert_eq!(nobody, Err(Error::Forbidden("nobody publishes here")));
        let own = house.ask(&[("NOVCOMET_PUBLISH", "token")], &request, &Access::Publish(vec![&b]));
        assert_eq!(own, Ok(()), "b* is a prefix on our own wire");
    }

    #[test]
    fn cookie_of_a_publisher_needs_evidence_of_own_site() {
        let house = House::new("consent");
        let topic = topic("a");
        let cookie = format!("mercureAuthorization={}", first(r#""publish":["*"]"#));
        for (mark, is_evidence) in [
            (("HTTP_SEC_FETCH_SITE", "same-origin"), true),
            (("HTTP_ORIGIN", "https://a.example"), true),
            (("HTTP_ORIGIN", "https://evil.example"), false),
            (("HTTP_ORIGIN", "null"), false),
            // A redirect by a foreign page keeps the Referer of our page.
            (("HTTP_REFERER", "https://a.example/x"), false),
            (("HTTP_X", ""), false),
        ] {
            let request = [("REQUEST_METHOD", "POST"), ("HTTP_COOKIE", &cookie), mark];
            let asked = house.ask(&[], &request, &Access::MercurePublish(vec![&topic]));
            let refused = Err(Error::Forbidden(NO_CONSENT_TO_PUBLISH));
            assert_eq!(asked, if is_evidence { Ok(()) } else { refused }, "{mark:?}");
        }
    }

    /// A leader takes over the rights of others as JSON.
    #[test]
    fn grant_is_handed_on_whole() {
        let house = House::new("handed");
        let settings = [("NOVCOMET_MERCURE_EXP", "optional")];
        let claim = r#""mercure":{"subscribe":["a"],"payload":{"x":1}}"#;
        let token = bearer(&signed_for_ever("JWT", claim));
        let grant = house.grant(&settings, &[("HTTP_AUTHORIZATION", &token)], &FIRST).unwrap();
        let saved = serde_json::to_string(&grant).unwrap();
        let restored: Grant = serde_json::from_str(&saved).unwrap();
        let private = message(true, &[]);
        assert!(restored.may_receive(&topic("a"), Some(&private)));
        assert!(!restored.may_receive(&topic("b"), Some(&private)));
        assert_eq!(restored.payload("b"), Some(r#"{"x":1}"#));
        assert_eq!(restored.check_valid(Cursor::now()), Ok(()));
    }
}

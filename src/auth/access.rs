//! The rules of access: for publishers, for subscribers, for private topics, and for trusted
//! sites. `authorize.rs` applies them.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::cgi::FieldValue;
use crate::event::Topic;
use crate::event::pattern::Pattern;

/// The access rules of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Policy {
    /// `NOVCOMET_PUBLISH`: the rule for publishers.
    pub publish: Publish,
    /// `NOVCOMET_SUBSCRIBE`: the rule for subscribers.
    pub subscribe: Subscribe,
    /// `NOVCOMET_PRIVATE`: the topics that need a grant to subscribe to. All of
    /// them do with `NOVCOMET_SUBSCRIBE=token`.
    pub private: Topics,
    /// `NOVCOMET_ORIGINS`: the other sites that are trusted.
    pub origins: Vec<Origin>,
    /// `NOVCOMET_TOKEN_KEY` and `NOVCOMET_TOKEN_ALGORITHM`.
    pub token: Option<KeyFile>,
    /// `NOVCOMET_TELL_STORE`: the clients that learn the directory of the events.
    pub tell_store: TellStore,
    /// `NOVCOMET_METRICS`: the clients that learn the figures.
    pub metrics: Metrics,
    /// `NOVCOMET_DOCTOR`: the clients that see the doctor's page.
    pub doctor: Doctor,
    /// `NOVCOMET_NAMES`: where subscribers have their names from.
    pub names: Names,
    /// `NOVCOMET_MERCURE_…`: the rules of the hub.
    pub mercure: Mercure,
    /// `NOVCOMET_GRIP_…`: how a proxy shows that it holds the connections of clients.
    pub grip: Option<GripKeys>,
}

/// The rules for the clients of Mercure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Mercure {
    /// `NOVCOMET_MERCURE_URL`: the URL of the hub, which is the `aud` of its tokens (1.0).
    pub url: Option<HubUrl>,
    /// `NOVCOMET_MERCURE_ISSUER`: the only accepted `iss` (1.0).
    pub issuer: Option<String>,
    /// `NOVCOMET_MERCURE_ANONYMOUS`: whether a subscriber may be without a token.
    pub anonymous: bool,
    /// `NOVCOMET_MERCURE_URL_TOKEN`: whether a token may be in the URL (0.x).
    pub url_token: bool,
    /// `NOVCOMET_MERCURE_EXP`: whether a token may be without `exp` (0.x).
    pub without_exp: bool,
}

/// The URL of a hub, as clients write it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HubUrl(String);

impl HubUrl {
    /// A URL of HTTP in the form of the URL Standard, with a host and without query and
    /// fragment: `aud` is compared byte by byte.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_http = matches!(url.scheme(), "http" | "https") && url.as_str() == text;
        let is_bare = !text.contains(['?', '#', '@']);
        (is_http && is_bare).then(|| Self(text.into()))
    }

    /// The URL as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The clients that learn the directory of the events (`NOVCOMET_TELL_STORE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TellStore {
    /// A client on the server's own machine.
    Auto,
    /// Every client.
    On,
    /// No client.
    Off,
}

impl TellStore {
    /// `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "auto" => Some(Self::Auto),
            "on" => Some(Self::On),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// The clients that learn the figures (`NOVCOMET_METRICS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metrics {
    /// A client on the server's own machine.
    Loopback,
    /// The holder of a token that grants subscribing to [`Metrics::TOPIC`].
    Token,
    /// Every client.
    All,
    /// No client, and nothing is counted.
    Off,
}

impl Metrics {
    /// The name that a token grants.
    pub const TOPIC: &str = "novcomet/metrics";

    /// `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "loopback" => Some(Self::Loopback),
            "token" => Some(Self::Token),
            "all" => Some(Self::All),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// The clients that see the doctor's page (`NOVCOMET_DOCTOR`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Doctor {
    /// A client on the server's own machine, unless [`TellStore::Off`] hides the directory from it.
    Loopback,
    /// The holder of a token that grants subscribing to [`Doctor::TOPIC`].
    Token,
    /// No client.
    Off,
}

impl Doctor {
    /// The name that a token grants.
    pub const TOPIC: &str = "novcomet/doctor";

    /// `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "loopback" => Some(Self::Loopback),
            "token" => Some(Self::Token),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// Where subscribers have their names from (`NOVCOMET_NAMES`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Names {
    /// From their tokens. Those learn a name whose token grants the topic.
    Token,
    /// From the parameter `name` too, which anybody can set. All who may subscribe to the topic
    /// learn it.
    Parameter,
}

impl Names {
    /// `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "token" => Some(Self::Token),
            "parameter" => Some(Self::Parameter),
            _ => None,
        }
    }
}

/// The rule for publishers that come through a web server (`NOVCOMET_PUBLISH`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Publish {
    /// Every client that reaches the URL, as in 2011.
    Any,
    /// Every client that does not come from a foreign site.
    SameSite,
    /// The same, and only by POST.
    Post,
    /// The holder of a token that grants it.
    Token,
    /// No client: only files and a shell publish.
    None,
}

impl Publish {
    /// `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "any" => Some(Self::Any),
            "same-site" => Some(Self::SameSite),
            "post" => Some(Self::Post),
            "token" => Some(Self::Token),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// The rule for subscribers that come through a web server (`NOVCOMET_SUBSCRIBE`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subscribe {
    /// Every client. Private topics still need a token that grants them.
    Any,
    /// The holder of a token that grants every topic of the request.
    Token,
    /// No client: this URL is for publishing only.
    None,
}

impl Subscribe {
    /// `None` for an unknown word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "any" => Some(Self::Any),
            "token" => Some(Self::Token),
            "none" => Some(Self::None),
            _ => None,
        }
    }
}

/// How tokens are signed (RFC 7518 §3, RFC 8037 §3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256: the key that checks can also sign.
    Hs256,
    /// Ed25519.
    EdDsa,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl Algorithm {
    /// `None` for an unknown name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Hs256, Self::EdDsa, Self::Es256, Self::Rs256]
            .into_iter()
            .find(|algorithm| algorithm.name() == name)
    }

    /// Its name in the header of a token.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// The file of the token key. One key has one algorithm. If a token chose the algorithm, it
/// could make a public key the secret of an HMAC.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyFile {
    /// The setting that names it.
    pub setting: &'static str,
    /// An absolute path.
    pub path: PathBuf,
    /// The only algorithm it is for.
    pub algorithm: Algorithm,
}

/// `NOVCOMET_GRIP_KEY`, `NOVCOMET_GRIP_ALGORITHM` and `NOVCOMET_GRIP_SECRET`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GripKeys {
    /// What the proxies' signatures are checked with.
    pub key: KeyFile,
    /// The file of the secret of our own seal. A secret that the proxies share serves too.
    pub secret: Option<PathBuf>,
}

/// Selects topics by name, by prefix, or by a pattern of Mercure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Topics(Vec<Selector>);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Selector {
    Exact(String),
    Prefix(String),
    Pattern(Pattern),
}

impl Selector {
    fn parse(word: &str) -> Option<Self> {
        let (name, is_prefix) = match word.strip_suffix('*') {
            Some(prefix) => (prefix, true),
            None => (word, false),
        };
        let decoded = decoded(name).filter(|_| !name.contains(['*', '"']))?;
        match is_prefix {
            true if decoded.is_empty() => Some(Self::Prefix(decoded)),
            true => Topic::new(decoded.as_str()).ok().map(|_| Self::Prefix(decoded)),
            false => Topic::new(decoded.as_str()).ok().map(|_| Self::Exact(decoded)),
        }
    }
}

impl Topics {
    /// The topics of a setting: patterns between white space or commas, with both,
    /// `%` and quotes percent-encoded. `None` for a pattern that no topic matches,
    /// and for a `*` in the middle: such a pattern would protect nothing.
    #[must_use]
    pub fn parse(list: &str) -> Option<Self> {
        let selectors = words(list).map(Selector::parse).collect::<Option<Vec<_>>>()?;
        (!selectors.is_empty()).then_some(Self(selectors))
    }

    /// Every topic.
    #[must_use]
    pub fn all() -> Self {
        Self::granted(["*"])
    }

    /// The topics of a token's claim on our own wire: `prefix*`, or a name.
    #[must_use]
    pub fn granted<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Self {
        let selector = |text: &str| match text.strip_suffix('*') {
            Some(prefix) => Selector::Prefix(prefix.into()),
            None => Selector::Exact(text.into()),
        };
        Self(patterns.into_iter().map(selector).collect())
    }

    /// The topics of Mercure's patterns.
    #[must_use]
    pub fn matching(patterns: Vec<Pattern>) -> Self {
        Self(patterns.into_iter().map(Selector::Pattern).collect())
    }

    /// Whether `topic` is one of them.
    #[must_use]
    pub fn contains(&self, topic: &Topic) -> bool {
        self.0.iter().any(|selector| match selector {
            Selector::Exact(name) => topic.as_str() == name,
            Selector::Prefix(prefix) => topic.as_str().starts_with(prefix),
            Selector::Pattern(pattern) => pattern.matches(topic),
        })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The origin of a site that an administrator trusts (RFC 6454 §6.2). It comes
/// from the configuration only, and so it is safe in a header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(FieldValue);

impl Origin {
    /// `scheme://host[:port]` as browsers send it: in lower case and without
    /// the scheme's own port. Not `*` or `null`, which any page can be.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let own_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (authority, None),
        };
        let is_ours = is_host(host) && port.is_none_or(|port| is_port(port, own_port));
        FieldValue::new(text).filter(|_| is_ours).map(Self)
    }

    /// A list of origins between white space or commas.
    #[must_use]
    pub fn parse_list(list: &str) -> Option<Vec<Self>> {
        words(list).map(Self::parse).collect()
    }

    /// The value of a header.
    #[must_use]
    pub fn field_value(&self) -> &FieldValue {
        &self.0
    }

    /// The origin as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    // The last two are invisible and not white space in Unicode; one is the byte order mark.
    let is_between = |c: char| c.is_whitespace() || matches!(c, ',' | '\u{200b}' | '\u{feff}');
    list.split(is_between).filter(|word| !word.is_empty())
}

/// Undoes percent-encoding; `None` for a `%` without two hexadecimal digits and
/// for bytes that are not UTF-8.
fn decoded(word: &str) -> Option<String> {
    let is_encoded =
        |rest: &str| rest.len() > 1 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    let is_clear = word.split('%').skip(1).all(is_encoded);
    let text = percent_decode_str(word).decode_utf8().ok().filter(|_| is_clear)?;
    Some(text.into_owned())
}

fn is_host(host: &str) -> bool {
    let all = |text: &str, more: &[u8]| {
        let is_fit = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || more.contains(&b);
        !text.is_empty() && text.bytes().all(is_fit)
    };
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => all(address, b":."),
        None => all(host, b".-_"),
    }
}

fn is_port(digits: &str, own_port: u16) -> bool {
    digits.parse().is_ok_and(|port: u16| port != own_port && port.to_string() == digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_matches_names_and_prefixes() {
        let topics = Topics::parse("a, news/* ,").unwrap();
        let has = |name: &str| topics.contains(&Topic::new(name).unwrap());
        assert!(has("a") && has("news/") && has("news/today"));
        for name in ["b", "aa", "A", "news", "News/today", "a,", "old/news/today", "*"] {
            assert!(!has(name), "{name}");
        }
        assert!(Topics::parse("*").unwrap().contains(&Topic::new("x").unwrap()));
        for list in ["", " , ", "a*b", "**", "*a"] {
            assert_eq!(Topics::parse(list), None, "{list:?}");
        }
    }

    #[test]
    fn white_space_and_commas_separate_topics() {
        let has = |list: &str, name: &str| {
            Topics::parse(list).unwrap().contains(&Topic::new(name).unwrap())
        };
        for between in ["\t", "\n", "\r\n", ",", ", ", "\u{a0}", "\u{2003}", "\u{200b}", "\u{feff}"]
        {
            let list = format!("{between}a{between}b{between}");
            assert!(has(&list, "a") && has(&list, "b"), "{list:?}");
        }
        for (list, name) in [
            ("salary%20list", "salary list"),
            ("a%2Cb", "a,b"),
            ("100%25", "100%"),
            ("%22a%22", "\"a\""),
            ("a%2a", "a*"),
            ("%C3%A9*", "éa"),
        ] {
            assert!(has(list, name) && !has(list, "a"), "{list:?}");
        }
    }

    #[test]
    fn pattern_of_no_topic_is_refused() {
        let long = "x".repeat(1025);
        for list in ["100%", "%2", "%zz", "a%", "%ff", "\"a\"", "a,\"b c\"", "a\u{7}", "%0A", &long]
        {
            assert_eq!(Topics::parse(list), None, "{list:?}");
            assert_eq!(Topics::parse(&format!("{list}*")), None, "{list:?}*");
        }
    }

    #[test]
    fn origin_is_as_browsers_send_it() {
        for text in ["http://a", "https://a.example:8443", "http://[::1]", "http://[::1]:8080"] {
            assert_eq!(Origin::parse(text).unwrap().as_str(), text);
        }
        for text in [
            "*",
            "null",
            "",
            "a.example",
            "http://",
            "http://:80",
            "http://*",
            "http://*.a",
            "http://A",
            "http://a/",
            "http://a:80",
            "https://a:443",
            "http://a:",
            "http://a:0x1",
            "http://a:080",
            "http://a:99999",
            "http://a@b",
            "http://a\r\nX: y",
            "http://é",
            "ftp://a",
            "file://",
            "HTTP://a",
            "http://[]",
            "http://[::1",
            "http://a b",
        ] {
            assert_eq!(Origin::parse(text), None, "{text:?}");
        }
        assert_eq!(Origin::parse_list("http://a,http://b http://c").unwrap().len(), 3);
        assert_eq!(Origin::parse_list("http://a *"), None);
    }
}

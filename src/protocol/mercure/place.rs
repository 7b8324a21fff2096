//! The URLs of a hub.

use url::Url;

use crate::cgi::Request;

/// The path of a hub. The server may have it below another one.
const HUB: &str = "/.well-known/mercure";

/// The beginning of the path of a resource's metadata (RFC 9728 §3).
const METADATA: &str = "/.well-known/oauth-protected-resource";

/// The base of relative URLs if a client names a host that is none.
const NO_HOST: &str = "http://hub.invalid/.well-known/mercure";

/// The resources of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The hub itself.
    Hub,
    /// The description of the hub for OAuth 2.0.
    Metadata,
    /// The hub's own resources: the lists of subscribers.
    Below,
}

impl Place {
    /// The resource with this path; `None` if it is no path of a hub.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        match path.split_once(HUB)? {
            (METADATA, "") => Some(Self::Metadata),
            (_, "") => Some(Self::Hub),
            (_, rest) => rest.starts_with('/').then_some(Self::Below),
        }
    }
}

/// The path of the hub, and what comes below; `None` if it is no path of a hub.
#[must_use]
pub fn split(path: &str) -> Option<(&str, &str)> {
    let start = path.find(HUB)?;
    Some(path.split_at(start + HUB.len()))
}

/// The URL of the hub: the base of relative topics and patterns. It is as configured, or
/// as the client called it, at `path`.
#[must_use]
pub fn hub_url(request: &Request, path: &str, configured: Option<&str>) -> Url {
    let host = String::from_utf8_lossy(&request.host);
    let called = || format!("{}://{host}{path}", request.scheme);
    let url = configured.map_or_else(called, str::to_owned);
    Url::parse(&url).or_else(|_| Url::parse(NO_HOST)).unwrap_or_else(|_| unreachable!("it is one"))
}

/// Whether `topic` names the hub or something below it. The hub publishes there itself.
#[must_use]
pub fn is_reserved(topic: &str, hub: &Url) -> bool {
    let Ok(url) = hub.join(topic) else { return false };
    let (path, own) = (decoded(url.path()), decoded(hub.path()));
    path.strip_prefix(&own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Without the percent-encoding of the characters that need none (RFC 3986 §6.2.2.2).
fn decoded(path: &str) -> String {
    let mut parts = path.split('%');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|&byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)) {
            Some(byte) => plain.extend([char::from(byte)].into_iter().chain(part[2..].chars())),
            None => plain.extend(["%", part]),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_names_the_resource() {
        for (path, place) in [
            ("/.well-known/mercure", Some(Place::Hub)),
            ("/comet.cgi/.well-known/mercure", Some(Place::Hub)),
            ("/.well-known/mercure/subscriptions", Some(Place::Below)),
            ("/.well-known/oauth-protected-resource/.well-known/mercure", Some(Place::Metadata)),
            ("/.well-known/mercure2", None),
            ("/.well-known/Mercure", None),
            ("/comet.cgi", None),
            ("", None),
        ] {
            assert_eq!(Place::of(path), place, "{path}");
        }
    }

    /// The cases of the specification, and of browsers' URL parsers.
    #[test]
    fn topics_of_the_hub_are_reserved() {
        let hub = Url::parse("https://hub.example/.well-known/mercure").unwrap();
        for topic in [
            "/.well-known/mercure",
            "/.well-known/mercure/subscriptions/a",
            "https://hub.example/.well-known/mercure/x",
            "https://other.example/.well-known/mercure",
            "ftp://other.example/.well-known/mercure?a#b",
            "/.well-known/%6Dercure/x",
            "/.well-known/%6dercur%65",
            "/.well-known/mercure/../mercure/x",
            "/a/%2e%2E/.well-known/mercure",
            "\\.well-known\\mercure",
            "data:/.well-known/mercure",
            "mercure",
            "mercure/x",
            "?a",
            "#a",
        ] {
            assert!(is_reserved(topic, &hub), "{topic}");
        }
        for topic in [
            "a",
            "/.well-known/mercury",
            "/.well-known/mercure2",
            "/.well-known/mercure%2Fx",
            "/.well-known/mercure%",
            "/a/.well-known/mercure",
            "https://a b/.well-known/mercure",
            "urn:x:/.well-known/mercure",
            "https://example.com/books/1",
        ] {
            assert!(!is_reserved(topic, &hub), "{topic}");
        }
    }
}

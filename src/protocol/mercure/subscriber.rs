//! A subscriber as others see it: its matchers, and the documents about them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::auth::Generation;
use crate::event::{Draft, Extra, Topic};
use crate::hub::{Notice, Payload, Presence};
use crate::process::random::uuid;

/// The path of the hub's description of its subscribers, below its own.
pub const SUBSCRIPTIONS: &str = "/subscriptions";

/// The type of the events that the hub itself publishes (1.0).
pub const HUB_TYPE: &str = "mercure";

/// The vocabulary of the documents of 0.x (JSON-LD).
pub const CONTEXT: &str = "https://mercure.rocks/";

/// What stays as it is in a segment of a path (RFC 6570 §3.2.2).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The parameter that a matcher comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `topic` (0.x).
    Topic,
    /// `match` and `match_exact`.
    Exact,
    /// `match_urlpattern`.
    UrlPattern,
}

impl Kind {
    /// Its name in 1.0; none in 0.x.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Topic => None,
            Self::Exact => Some("exact"),
            Self::UrlPattern => Some("urlpattern"),
        }
    }

    /// The generation of the parameter.
    pub fn generation(self) -> Generation {
        match self {
            Self::Topic => Generation::V0,
            Self::Exact | Self::UrlPattern => Generation::V1,
        }
    }

    /// Whether 1.0 has a type of matchers with this name.
    pub fn is_name(name: &str) -> bool {
        [Self::Exact, Self::UrlPattern].iter().any(|kind| kind.name() == Some(name))
    }
}

/// A matcher, as its client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Matcher {
    /// Its parameter.
    pub kind: Kind,
    /// Its text.
    pub text: String,
}

/// One connection, with its matchers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subscriber {
    id: String,
    /// The path of the hub.
    hub: String,
    matchers: Vec<Matcher>,
}

impl Subscriber {
    /// A subscriber of the hub with this path, with an identifier of its own.
    pub fn new(hub: &str, mut matchers: Vec<Matcher>) -> Self {
        let mut known: Vec<Matcher> = Vec::new();
        matchers.retain(|matcher| {
            let is_new = !known.contains(matcher);
            known.extend(is_new.then(|| matcher.clone()));
            is_new
        });
        Self { id: format!("urn:uuid:{}", uuid()), hub: hub.to_owned(), matchers }
    }

    /// A notice for each of its matchers. One whose topic would be too long has none.
    pub fn notices(&self, presence: Presence, payload: Payload) -> Vec<Notice> {
        let notice = |matcher: &Matcher| {
            let path = [matcher.kind.name(), Some(&matcher.text), Some(&self.id)];
            let topic = Topic::new(path_of(&self.hub, path.into_iter().flatten())).ok()?;
            let document = Document::of(matcher, topic.as_str(), &self.id, presence, payload);
            let extra = Extra {
                kind: matcher.kind.name().map(|_| HUB_TYPE.to_owned()),
                private: true,
                client_id: Some(format!("urn:uuid:{}", uuid())),
                ..Extra::default()
            };
            Some(Notice { topic, message: Draft { data: document.json(), extra } })
        };
        self.matchers.iter().filter_map(notice).collect()
    }
}

/// The path of a description, with each segment encoded once.
pub fn path_of<'s>(hub: &str, segments: impl Iterator<Item = &'s str>) -> String {
    let mut path = format!("{hub}{SUBSCRIPTIONS}");
    for segment in segments {
        path.push('/');
        path.extend(utf8_percent_encode(segment, SEGMENT));
    }
    path
}

/// The description of one subscription, of either generation.
#[derive(Debug, Serialize, Deserialize)]
pub struct Document {
    /// Of 0.x, unless the document around it has one.
    #[serde(rename = "@context", default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Its topic.
    pub id: String,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    match_type: Option<String>,
    #[serde(rename = "match", default, skip_serializing_if = "Option::is_none")]
    matcher: Option<String>,
    subscriber: String,
    active: bool,
    /// Of 0.x, if it is asked for alone.
    #[serde(rename = "lastEventID", default, skip_serializing_if = "Option::is_none")]
    pub last_event_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<Box<RawValue>>,
}

impl Document {
    fn of(matcher: &Matcher, id: &str, by: &str, presence: Presence, payload: Payload) -> Self {
        let text = Some(matcher.text.clone());
        let name = matcher.kind.name().map(ToOwned::to_owned);
        let is_first = name.is_none();
        let payload = payload(&matcher.text).map(ToOwned::to_owned);
        Self {
            context: is_first.then(|| CONTEXT.to_owned()),
            id: id.to_owned(),
            kind: if is_first { "Subscription" } else { "subscription" }.to_owned(),
            topic: text.clone().filter(|_| is_first),
            match_type: name,
            matcher: text.filter(|_| !is_first),
            subscriber: by.to_owned(),
            active: presence == Presence::Here,
            last_event_id: None,
            payload: payload.and_then(|json| RawValue::from_string(json).ok()),
        }
    }

    /// Its text.
    pub fn json(&self) -> String {
        // It has no map with keys that JSON cannot name, the only error.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = "/.well-known/mercure";

    fn subscriber(kind: Kind, text: &str) -> Subscriber {
        let matcher = Matcher { kind, text: text.to_owned() };
        let matchers = vec![matcher; 2];
        Subscriber { id: "urn:uuid:x".into(), ..Subscriber::new(HUB, matchers) }
    }

    fn notice(kind: Kind, text: &str) -> Notice {
        let payload = |matcher: &str| matcher.starts_with('/').then_some(r#"{ "a": 1 }"#);
        let mut notices = subscriber(kind, text).notices(Presence::Gone, &payload);
        assert_eq!(notices.len(), 1, "the same matcher is one subscription");
        notices.remove(0)
    }

    #[test]
    fn notice_has_the_form_of_its_generation() {
        let first = notice(Kind::Topic, "/books/{id}");
        let path = "/.well-known/mercure/subscriptions/%2Fbooks%2F%7Bid%7D/urn%3Auuid%3Ax";
        assert_eq!((first.topic.as_str(), first.message.extra.kind), (path, None));
        assert_eq!(
            first.message.data,
            format!(
                "{{\"@context\":\"https://mercure.rocks/\",\"id\":\"{path}\",\
                 \"type\":\"Subscription\",\"topic\":\"/books/{{id}}\",\
                 \"subscriber\":\"urn:uuid:x\",\"active\":false,\"payload\":{{ \"a\": 1 }}}}"
            )
        );
        let second = notice(Kind::UrlPattern, "100%:é");
        let path = "/.well-known/mercure/subscriptions/urlpattern/100%25%3A%C3%A9/urn%3Auuid%3Ax";
        assert_eq!(second.topic.as_str(), path);
        assert_eq!(second.message.extra.kind.as_deref(), Some("mercure"));
        assert_eq!(
            second.message.data,
            format!(
                "{{\"id\":\"{path}\",\"type\":\"subscription\",\"match_type\":\"urlpattern\",\
                 \"match\":\"100%:é\",\"subscriber\":\"urn:uuid:x\",\"active\":false}}"
            )
        );
        assert!(first.message.extra.private && second.message.extra.private);
    }

    #[test]
    fn matcher_too_long_for_a_topic_is_not_told() {
        let long = subscriber(Kind::Exact, &"/".repeat(400));
        assert_eq!(long.notices(Presence::Here, &|_| None), []);
    }

    #[test]
    fn each_subscriber_has_its_own_identifier() {
        let ids = [0; 2].map(|_| Subscriber::new(HUB, Vec::new()).id);
        assert_ne!(ids[0], ids[1]);
    }
}

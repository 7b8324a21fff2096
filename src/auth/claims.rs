//! The claims of a token: the topics that it grants, and its time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::Topics;
use super::object::Object;
use crate::event::{Cursor, Topic};

/// A generation of Mercure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Generation {
    /// 0.x.
    V0,
    /// 1.0.
    V1,
}

/// The topics that a token grants, and its expiry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub(super) publish: Topics,
    pub(super) subscribe: Vec<Detail>,
    /// The JSON that every subscription carries (0.x of Mercure).
    pub(super) payload: Option<String>,
    pub(super) expires: Cursor,
    /// The generation of Mercure whose rules the token keeps.
    pub(super) generation: Generation,
    /// The name of its holder (`sub`, RFC 7519 §4.1.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
}

/// Topics to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Detail {
    pub topics: Topics,
    /// The JSON that a subscription to them carries (1.0 of Mercure).
    pub payload: Option<String>,
}

impl Detail {
    pub fn of(topics: Topics) -> Self {
        Self { topics, payload: None }
    }
}

impl Claims {
    /// The rights of a shell: it can open the event files without this program.
    pub(super) fn of_shell() -> Self {
        let subscribe = vec![Detail::of(Topics::all())];
        let (publish, expires) = (Topics::all(), Cursor::LARGEST);
        let generation = Generation::V0;
        Self { publish, subscribe, payload: None, expires, generation, subject: None }
    }

    /// The claims that count on our own wire, of a token that is valid at `now`. The grants
    /// are those of Mercure's claim, with our own prefixes.
    pub(super) fn of_own_wire(claims: &Object, now: Cursor) -> Option<Self> {
        let expires = expiry(claims, now)?;
        let mercure = object(claims, "mercure")?;
        let topics =
            |name| Some(Topics::granted(texts(&mercure, name)?.iter().map(String::as_str)));
        let subscribe = vec![Detail::of(topics("subscribe")?)];
        let (publish, generation) = (topics("publish")?, Generation::V0);
        let subject = subject(claims);
        Some(Self { publish, subscribe, payload: None, expires, generation, subject })
    }

    /// Whether the token grants publishing to `topic`.
    #[must_use]
    pub fn may_publish(&self, topic: &Topic) -> bool {
        self.publish.contains(topic)
    }

    /// Whether the token grants subscribing to `topic`.
    #[must_use]
    pub fn may_subscribe(&self, topic: &Topic) -> bool {
        self.subscribe.iter().any(|detail| detail.topics.contains(topic))
    }

    /// The JSON that a subscription with this matcher carries, as the token has it. In 1.0, it
    /// is that of the first detail that matches the matcher, as if it were a topic (Mercure,
    /// "Payloads").
    #[must_use]
    pub fn payload(&self, matcher: &str) -> Option<&str> {
        if self.payload.is_some() {
            return self.payload.as_deref();
        }
        let matcher = Topic::new(matcher).ok()?;
        let mut details = self.subscribe.iter();
        details.find(|detail| detail.topics.contains(&matcher))?.payload.as_deref()
    }

    /// The name of the token's holder, if it has one.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// When the token expires (`exp`).
    #[must_use]
    pub fn expires(&self) -> Cursor {
        self.expires
    }
}

/// The longest name of a client, in bytes. Each subscriber keeps its own.
const MAX_NAME: usize = 256;

/// Whether a text is short enough for a name, and none is empty.
pub(super) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME).contains(&text.len())
}

/// The name of the token's holder. A longer one is none: the rights do not depend on it.
pub(super) fn subject(claims: &Object) -> Option<String> {
    claims.text("sub").filter(|name| is_name(name))
}

/// The `exp` of a token that is valid at `now`: it must be present and in the future, and
/// `nbf` not in the future.
pub(super) fn expiry(claims: &Object, now: Cursor) -> Option<Cursor> {
    let expires = moment(claims.number("exp")?)?;
    (has_begun(claims, now)? && now < expires).then_some(expires)
}

/// The same, where a token may be without `exp`. Then it does not expire.
pub(super) fn optional_expiry(claims: &Object, now: Cursor) -> Option<Cursor> {
    match claims.has("exp") {
        true => expiry(claims, now),
        false => has_begun(claims, now)?.then_some(Cursor::LARGEST),
    }
}

fn has_begun(claims: &Object, now: Cursor) -> Option<bool> {
    match claims.has("nbf") {
        true => Some(moment(claims.number("nbf")?)? <= now),
        false => Some(true),
    }
}

/// A `NumericDate`: seconds, with a fraction or without. A process hands claims on, and it
/// takes no cursor beyond the largest.
fn moment(seconds: f64) -> Option<Cursor> {
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    Some(Cursor::from_micros(0).after(since).min(Cursor::LARGEST))
}

/// An object, which may be absent.
pub(super) fn object(claims: &Object, name: &str) -> Option<Object> {
    if claims.has(name) { claims.object(name) } else { Some(Object::default()) }
}

/// A list of texts. As Mercure does, null counts as no list.
pub(super) fn texts(object: &Object, name: &str) -> Option<Vec<String>> {
    match object.json(name) {
        None | Some("null") => Some(Vec::new()),
        Some(_) => object.texts(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `exp` in milliseconds is far in the future, and must not break a hand-over.
    #[test]
    fn expiry_is_at_most_the_largest_cursor() {
        let claims = |exp: &str| Object::parse(&format!(r#"{{"exp":{exp}}}"#)).unwrap();
        for (exp, expected) in [
            ("2", Some(Cursor::from_micros(2_000_000))),
            ("1795415403000", Some(Cursor::LARGEST)),
            ("1", None),
            ("1e300", None),
        ] {
            assert_eq!(expiry(&claims(exp), Cursor::from_micros(1_000_000)), expected, "{exp}");
        }
        let json = serde_json::to_string(&Claims::of_shell()).unwrap();
        assert_eq!(serde_json::from_str::<Claims>(&json).unwrap(), Claims::of_shell());
    }
}

//! The nouns: [`Topic`], [`Pattern`](pattern::Pattern), [`Cursor`],
//! [`Position`](position::Position), [`Since`], [`Event`], [`Message`].

pub mod pattern;
pub mod position;
pub mod session;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Error;
use session::SessionId;

/// The longest topic, in bytes. It is an IRI with room for a query.
pub const MAX_TOPIC: usize = 1024;

/// The beginning of the topic of a session.
const SESSION: &str = "\u{1}session/";

const MICROS: u64 = 1_000_000;

/// The name of a stream of events: 1 to [`MAX_TOPIC`] bytes of UTF-8 without
/// control characters. Every name is checked here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Topic(String);

impl TryFrom<String> for Topic {
    type Error = Error;

    /// Another process may hand over the topic of a session.
    fn try_from(name: String) -> Result<Self, Error> {
        match Self(name) {
            own if own.session().is_some() => Ok(own),
            other => Self::new(other.0),
        }
    }
}

impl Topic {
    /// # Errors
    /// [`Error::BadRequest`] with the rule that `name` breaks.
    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let refuse = |why: String| Err(Error::bad_request(why));
        match name.len() {
            0 => refuse("a topic is at least one character".into()),
            1..=MAX_TOPIC if name.chars().any(char::is_control) => {
                refuse("a topic has no control characters".into())
            }
            1..=MAX_TOPIC => Ok(Self(name)),
            long => refuse(format!("a topic has at most {MAX_TOPIC} bytes, not {long}")),
        }
    }

    /// The topic that tells of the changes of a session. No client can name it, because it has
    /// a control character.
    #[must_use]
    pub fn of_session(id: &SessionId) -> Self {
        Self([SESSION, id.as_str()].concat())
    }

    /// The session of whose changes this topic tells. Its name is the secret of the client.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        SessionId::parse(self.0.strip_prefix(SESSION)?)
    }

    /// The name, as it was published.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A moment in a topic, in microseconds since 1970 (UTC), as the server issued it.
///
/// The last of its six decimals is never 0, except in a Redis. JavaScript prints `2.000000` as
/// `2`, and that would look like a cursor that a client made from its own clock; and a cursor with
/// fewer decimals is one that a client has rounded. On the wire a cursor has six decimals. A double holds them exactly up to
/// [`LARGEST`](Self::LARGEST).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor(u64);

impl Cursor {
    /// The cursor of a topic without events. It is not 0.000001, because several
    /// languages print that as `1e-06`.
    pub const SMALLEST: Self = Self(MICROS / 10);

    /// [`Since::Latest`] where only a number can be: in the cursors and the `id` of a
    /// stream that has not delivered the message yet. No event has it.
    pub const LATEST: Self = Self(MICROS / 20);

    /// The last cursor that a JavaScript number holds exactly, in the year 2242.
    /// Below 2^33 seconds the steps of a double (IEEE 754, 53 bits) are less than
    /// 1 µs; above, they are 1.9 µs.
    pub const LARGEST: Self = Self((1 << 33) * MICROS - 1);

    /// The present time.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// The cursor of an event at this time; times before 1970 count as 1970.
    #[must_use]
    pub fn at(seconds: i64, nanoseconds: u32) -> Self {
        let seconds = u64::try_from(seconds).unwrap_or(0);
        let micros = seconds.saturating_mul(MICROS);
        let micros = micros.saturating_add(u64::from(nanoseconds / 1000));
        Self(micros).max(Self(Self::SMALLEST.0 + 1)).not_round()
    }

    /// The cursor of the next event of a topic whose last cursor is `self`, at the
    /// time `now`. It is later than the last, even if the clock went back. After
    /// [`LARGEST`](Self::LARGEST) a topic starts again at `now`.
    #[must_use]
    pub fn next(self, now: Self) -> Self {
        let now = now.min(Self::LARGEST);
        let next = now.max(Self(self.0.saturating_add(1))).not_round();
        if next.is_exact() { next } else { now }
    }

    /// Whether a JavaScript number holds it exactly.
    #[must_use]
    pub fn is_exact(self) -> bool {
        self <= Self::LARGEST
    }

    fn not_round(self) -> Self {
        Self(self.0 + u64::from(self.0 % 10 == 0))
    }

    /// The cursor of a file's time, which another user may have set. A time that
    /// [is not exact](Self::is_exact) counts as no event.
    #[must_use]
    pub fn known(self) -> Self {
        if self.is_exact() { self } else { Self::SMALLEST }
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn micros(self) -> u64 {
        self.0
    }

    /// The reverse of [`micros`](Self::micros).
    #[must_use]
    pub fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Writes the microseconds in base 36, as JavaScript's `toString(36)` has it.
    pub(crate) fn base36(self, to: &mut impl fmt::Write) -> fmt::Result {
        let (mut digits, mut left) = (Vec::new(), self.0);
        while left > 0 || digits.is_empty() {
            digits.push(char::from_digit(u32::try_from(left % 36).unwrap_or(0), 36));
            left /= 36;
        }
        digits.into_iter().rev().flatten().try_for_each(|digit| to.write_char(digit))
    }

    /// The cursor that is `time` earlier.
    #[must_use]
    pub fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The cursor that is `time` later.
    #[must_use]
    pub fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The time from this cursor to `now`, 0 if it is later.
    #[must_use]
    pub fn age(self, now: Self) -> Duration {
        Duration::from_micros(now.0.saturating_sub(self.0))
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / MICROS
    }

    /// Nanoseconds within the second.
    #[must_use]
    pub fn nanoseconds(self) -> u32 {
        u32::try_from(self.0 % MICROS).unwrap_or(0) * 1000
    }
}

impl From<SystemTime> for Cursor {
    /// Times before 1970 count as 1970.
    fn from(time: SystemTime) -> Self {
        let time = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::at(i64::try_from(time.as_secs()).unwrap_or(i64::MAX), time.subsec_nanos())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / MICROS, self.0 % MICROS)
    }
}

impl Serialize for Cursor {
    /// As a JSON number with all its six decimals.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    /// From a JSON number with a fraction, exactly. A number above
    /// [`Cursor::LARGEST`] is an error: no server issued it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = <&RawValue>::deserialize(deserializer)?;
        match parse_cursor(number.get()) {
            Some(Since::Cursor(cursor)) if cursor.is_exact() => Ok(cursor),
            _ => Err(serde::de::Error::custom("not a cursor")),
        }
    }
}

/// The point in a topic after which a subscriber wants the events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Since {
    /// After the arrival of the request.
    Now,
    /// After this whole second: the rule of 2011.
    Second(u64),
    /// After a cursor that a server issued.
    Cursor(Cursor),
    /// After a time in the order of all topics. A topic that is younger has no gap.
    Order(Cursor),
    /// From the first message that is kept.
    Earliest,
    /// From the newest message that is kept, or as [`Now`](Self::Now) if there is none.
    Latest,
}

impl Since {
    /// Reads a cursor from the wire.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for a text that is neither digits with an optional
    /// fraction nor one of the words `earliest` and `latest`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let since = match text {
            "earliest" => Some(Self::Earliest),
            "latest" => Some(Self::Latest),
            _ => parse_cursor(text),
        };
        since.ok_or_else(|| {
            let why = "a cursor is a number, such as 1795415403.163846, or earliest or latest";
            Error::bad_request(why)
        })
    }

    /// Turns a second that is not over at `now` into [`Now`](Self::Now). It comes
    /// from a client's own clock and means "from now on". [`Cursor::LATEST`] becomes what
    /// it stands for.
    #[must_use]
    pub fn resolve(self, now: Cursor) -> Self {
        match self {
            Self::Second(second) if second >= now.seconds() => Self::Now,
            Self::Cursor(Cursor::LATEST) => Self::Latest,
            other => other,
        }
    }

    /// Whether the event with the cursor `event` is new to the subscriber.
    #[must_use]
    pub fn includes(self, event: Cursor) -> bool {
        match self {
            Self::Now => false,
            Self::Second(second) => event.seconds() > second,
            Self::Cursor(cursor) | Self::Order(cursor) => event > cursor,
            Self::Earliest | Self::Latest => true,
        }
    }

    /// The same point as a cursor; `None` for "from now on".
    #[must_use]
    pub fn cursor(self) -> Option<Cursor> {
        match self {
            Self::Now => None,
            Self::Second(second) => Some(Cursor(second.saturating_mul(MICROS) + (MICROS - 1))),
            Self::Cursor(cursor) | Self::Order(cursor) => Some(cursor),
            Self::Earliest => Some(Cursor::SMALLEST),
            Self::Latest => Some(Cursor::LATEST),
        }
    }

    /// The cursor of a subscriber from here in a topic without events.
    #[must_use]
    pub fn without_events(self) -> Cursor {
        self.cursor().filter(|_| self != Self::Latest).unwrap_or(Cursor::SMALLEST)
    }
}

fn parse_cursor(text: &str) -> Option<Since> {
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.is_empty() => (whole, Some(fraction)),
        Some(_) => return None,
        None => (text, None),
    };
    if !digits(whole) || !fraction.is_none_or(digits) || (whole.is_empty() && fraction.is_some()) {
        return None;
    }
    let seconds: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let micros = seconds.checked_mul(MICROS)?;
    Some(match fraction {
        Some(fraction) => Since::Cursor(Cursor(micros.checked_add(microseconds(fraction))?)),
        None if seconds == 0 => Since::Now,
        None => Since::Second(seconds),
    })
}

/// A decimal fraction in microseconds, to the nearest: a client that prints more digits than
/// six prints the double beside the cursor.
fn microseconds(fraction: &str) -> u64 {
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(7);
    let tenths = digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    (tenths + 5) / 10
}

/// An event of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The topic.
    pub topic: Topic,
    /// The time of the event.
    pub cursor: Cursor,
}

/// The content of an event, on the wire `{"id":1795415403.163846,"data":"…"}`.
/// The store keeps the rest, which only some protocols show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The cursor of its event.
    pub id: Cursor,
    /// The text, as it was published.
    pub data: String,
    /// What a publisher said besides.
    #[serde(skip)]
    pub extra: Extra,
}

/// What a publisher may say of a message besides its text. As JSON it has only the keys
/// that say something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extra {
    /// The type of the event.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether only subscribers with a grant for it may read it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// The identifier that the publisher gave to the message.
    #[serde(rename = "client", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// All topics that the message was published to, if there are several: the canonical
    /// one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Topic>,
    /// How long a client waits before it reconnects, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<u64>,
}

impl Extra {
    /// Its JSON; `None` if it says nothing.
    pub(crate) fn to_json(&self) -> Option<String> {
        let says_something = *self != Self::default();
        says_something.then(|| serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads its JSON. What cannot be read may have said that the message is private.
    pub(crate) fn from_json(json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or(Self { private: true, ..Self::default() })
    }
}

impl Message {
    /// A message of which nothing is said besides its text.
    pub fn new(id: Cursor, data: impl Into<String>) -> Self {
        Draft::new(data).message(id)
    }
}

/// A message that has no event yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// The text.
    pub data: String,
    /// The rest that is said of it.
    pub extra: Extra,
}

impl Draft {
    /// A text of which nothing is said besides.
    pub fn new(data: impl Into<String>) -> Self {
        Self { data: data.into(), extra: Extra::default() }
    }

    /// The message of an event at this time.
    #[must_use]
    pub fn message(self, id: Cursor) -> Message {
        Message { id, data: self.data, extra: self.extra }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Cursor = Cursor(1_795_415_403_163_846);

    #[test]
    fn valid_topics_are_accepted() {
        for name in ["a", "..", "a/b", "100%", "é", "__proto__", "a][b", " ", &"x".repeat(1024)] {
            assert_eq!(Topic::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn invalid_topics_are_refused() {
        for name in ["", "a\0b", "a\nb", "\u{7f}", "\u{85}", &"x".repeat(1025)] {
            assert_eq!(Topic::new(name).unwrap_err().status(), 400, "{name:?}");
        }
    }

    #[test]
    fn valid_cursors_are_parsed() {
        for (text, since) in [
            ("", Since::Now),
            ("0", Since::Now),
            ("000", Since::Now),
            ("1795415403", Since::Second(1_795_415_403)),
            ("1795415403.163846", Since::Cursor(T)),
            ("1795415403.1638464", Since::Cursor(T)),
            ("1795415403.16384551", Since::Cursor(T)),
            ("1795415403.1", Since::Cursor(Cursor(1_795_415_403_100_000))),
            ("0.0", Since::Cursor(Cursor(0))),
            ("earliest", Since::Earliest),
            ("latest", Since::Latest),
        ] {
            assert_eq!(Since::parse(text).unwrap(), since, "{text:?}");
        }
    }

    #[test]
    fn invalid_cursors_are_refused() {
        for text in [
            "x",
            "Earliest",
            "Latest",
            "-1",
            "+1",
            "1e9",
            "1.",
            ".5",
            ".",
            "1.2.3",
            " 1",
            "1 ",
            "NaN",
            "0x1",
            "١",
            "18446744073709551616",
            "18446744073710",
            "18446744073710.5",
        ] {
            assert_eq!(Since::parse(text).unwrap_err().status(), 400, "{text:?}");
        }
    }

    #[test]
    fn unfinished_second_means_from_now_on() {
        assert_eq!(Since::Second(T.seconds()).resolve(T), Since::Now);
        assert_eq!(Since::Second(9_999_999_999).resolve(T), Since::Now);
        let past = Since::Second(T.seconds() - 1);
        assert_eq!(past.resolve(T), past);
    }

    /// A client may return it as JavaScript prints it.
    #[test]
    fn cursor_of_latest_means_latest() {
        let text = Since::Latest.cursor().unwrap().to_string();
        for text in [text.as_str(), "0.05"] {
            assert_eq!(Since::parse(text).unwrap().resolve(T), Since::Latest);
        }
        assert!(Cursor::at(0, 0) > Cursor::LATEST && Cursor::SMALLEST > Cursor::LATEST);
    }

    #[test]
    fn since_compares_microseconds_or_seconds() {
        assert!(!Since::Cursor(T).includes(T));
        assert!(Since::Cursor(Cursor(T.0 - 1)).includes(T));
        assert!(!Since::Second(T.seconds()).includes(T));
        assert!(Since::Second(T.seconds() - 1).includes(T));
        assert!(!Since::Now.includes(T));
        assert!(Since::Earliest.includes(Cursor::SMALLEST));
        let second = Since::Second(T.seconds()).cursor().unwrap();
        assert!(second < Cursor::at(1_795_415_404, 0) && second > T);
    }

    #[test]
    fn next_cursor_is_later_and_never_whole() {
        assert_eq!(Cursor::at(7, 0).to_string(), "7.000001");
        assert_eq!(Cursor::at(7, 1999).to_string(), "7.000001");
        assert_eq!(Cursor::at(-5, 0).to_string(), "0.100001");
        assert_eq!(Cursor(6_999_999).next(Cursor(0)).to_string(), "7.000001");
        assert_eq!(Cursor(5).next(Cursor(8_000_000)).to_string(), "8.000001");
        assert_eq!(Cursor(5).next(Cursor(8_000_010)).to_string(), "8.000011");
        assert_eq!(Cursor(8_000_009).next(Cursor(5)).to_string(), "8.000011");
        assert!(T.next(Cursor(1)) > T);
    }

    #[test]
    fn topic_at_largest_cursor_restarts_now() {
        for last in [Cursor::LARGEST, Cursor(u64::MAX)] {
            assert_eq!(last.next(T), T);
        }
        assert_eq!(Cursor(Cursor::LARGEST.0 - 1).next(T), Cursor::LARGEST);
        assert_eq!(T.next(Cursor(u64::MAX)), Cursor::LARGEST);
    }

    /// `f64` prints as a JavaScript number does: the shortest text that parses to it.
    #[test]
    fn largest_cursor_is_last_exact_double() {
        let double = |micros| Cursor(micros).to_string().parse::<f64>().unwrap();
        let bits = |micros| double(micros).to_bits();
        for micros in Cursor::LARGEST.0 - 10_000..=Cursor::LARGEST.0 {
            assert_ne!(bits(micros), bits(micros - 1));
            assert_eq!(format!("{:.6}", double(micros)), Cursor(micros).to_string());
        }
        let beyond = Cursor::LARGEST.0 + 1..Cursor::LARGEST.0 + 10;
        assert!(beyond.into_iter().any(|micros| bits(micros) == bits(micros - 1)));
    }

    #[test]
    fn id_beyond_largest_cursor_is_refused() {
        let read = |id: Cursor| serde_json::from_str::<Cursor>(&id.to_string());
        assert_eq!(read(Cursor::LARGEST).unwrap(), Cursor::LARGEST);
        assert!(read(Cursor(Cursor::LARGEST.0 + 1)).is_err() && read(Cursor(u64::MAX)).is_err());
    }

    #[test]
    fn cursor_is_json_number_with_six_decimals() {
        assert_eq!(serde_json::to_string(&T).unwrap(), "1795415403.163846");
        assert_eq!(serde_json::to_string(&Cursor::SMALLEST).unwrap(), "0.100000");
    }

    #[test]
    fn message_is_one_line_of_json() {
        let message = Message::new(T, "a\n\"b\"\0\u{2028}é");
        let line = serde_json::to_string(&message).unwrap();
        assert!(line.starts_with(r#"{"id":1795415403.163846,"data":"a\n"#) && !line.contains('\n'));
        assert_eq!(serde_json::from_str::<Message>(&line).unwrap(), message);
        for line in [r#"{"id":5,"data":""}"#, r#"{"id":"5.1","data":""}"#, r#"{"id":1.5}"#] {
            assert!(serde_json::from_str::<Message>(line).is_err(), "{line}");
        }
    }
}

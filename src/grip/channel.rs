//! The channels that a proxy knows.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::event::Topic;

/// All but the unreserved characters of RFC 3986 §2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A channel: one for each topic, and one for all events. Two topics never share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel(String);

impl Channel {
    /// The channel of a topic.
    #[must_use]
    pub fn of(topic: &Topic) -> Self {
        Self(format!("novcomet-{}", utf8_percent_encode(topic.as_str(), RESERVED)))
    }

    /// The channel of all events.
    #[must_use]
    pub fn of_all() -> Self {
        Self("novcomet".into())
    }

    /// Its name, of unreserved characters and `%`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }
}

/// What a `Grip-Last` says: the id that the held request had in each channel. Several of these
/// headers are one list.
pub fn last_ids(header: &str) -> impl Iterator<Item = (Channel, &str)> {
    header.split(',').filter_map(|one| {
        let (name, rest) = one.split_once(';')?;
        let id = rest.trim().strip_prefix("last-id=")?;
        Some((Channel(name.trim().to_owned()), id.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_channels_of_their_own() {
        for (topic, name) in [
            ("news", "novcomet-news"),
            ("a b", "novcomet-a%20b"),
            ("a%20b", "novcomet-a%2520b"),
            ("a;filter=x, b", "novcomet-a%3Bfilter%3Dx%2C%20b"),
            ("chat/é", "novcomet-chat%2F%C3%A9"),
        ] {
            assert_eq!(Channel::of(&Topic::new(topic).unwrap()).name(), name);
        }
    }

    #[test]
    fn last_ids_are_a_list() {
        let header = "novcomet-a; last-id=1.5, novcomet-b;last-id=2.5, c, d; x=1";
        let found: Vec<_> = last_ids(header).collect();
        let channel = |name| Channel::of(&Topic::new(name).unwrap());
        assert_eq!(found, [(channel("a"), "1.5"), (channel("b"), "2.5")]);
    }
}

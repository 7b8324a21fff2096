//! The names of channels.

use crate::error::Error;
use crate::event::Topic;
use crate::event::pattern::Pattern;

/// The channels of the protocol itself, and those for a server's own services. A message in
/// them is delivered to nobody.
const RESERVED: [&str; 2] = ["/meta/", "/service/"];

/// A channel, or a pattern of channels.
pub struct Channel {
    /// What it selects.
    pub pattern: Pattern,
    /// The topic of the same name, unless it is a pattern.
    pub topic: Option<Topic>,
}

impl Channel {
    /// Reads a channel: segments after slashes, none of them empty. The last may be `*`, for
    /// one segment, or `**`, for one or more.
    ///
    /// # Errors
    /// 400 with the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Err(Error::bad_request(why));
        let Some(segments) = text.strip_prefix('/') else { return bad("a channel begins with /") };
        if segments.split('/').any(str::is_empty) {
            return bad("a channel has no empty segment");
        }
        let (before, last) = text.rsplit_once('/').unwrap_or_default();
        if before.contains('*') || last.contains('*') && !matches!(last, "*" | "**") {
            return bad("only the last segment of a channel is * or **");
        }
        let topic = (!last.contains('*')).then(|| Topic::new(text)).transpose()?;
        let pattern = match &topic {
            Some(topic) => Pattern::exact(topic.clone()),
            None => Pattern::segments(text)?,
        };
        Ok(Self { pattern, topic })
    }
}

/// Whether a channel is one of the protocol itself.
#[must_use]
pub fn is_meta(text: &str) -> bool {
    text.starts_with(RESERVED[0])
}

/// Whether a channel is one of a server's own services.
#[must_use]
pub fn is_service(text: &str) -> bool {
    text.starts_with(RESERVED[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_segments_after_slashes() {
        for (text, is_topic) in
            [("/a", true), ("/a/b.c", true), ("/é/~", true), ("/*", false), ("/a/**", false)]
        {
            assert_eq!(Channel::parse(text).unwrap().topic.is_some(), is_topic, "{text}");
        }
        for text in ["", "/", "a", "//a", "/a/", "/*/a", "/a*", "/a/***", "/a\nb", "/a/**/b"] {
            assert_eq!(Channel::parse(text).err().unwrap().status(), 400, "{text:?}");
        }
        let matches = |pattern: &str, topic: &str| {
            Channel::parse(pattern).unwrap().pattern.matches(&Topic::new(topic).unwrap())
        };
        assert!(matches("/a/*", "/a/b") && !matches("/a/*", "/a/b/c") && !matches("/a/*", "/a"));
        assert!(matches("/a/**", "/a/b/c") && matches("/**", "/a") && !matches("/**", "a"));
    }
}

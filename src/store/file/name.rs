//! The name of a topic's file.

use std::fmt::Write;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::event::Topic;
use crate::event::session::SessionId;

/// The longest file name that Linux takes, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

const SUFFIX: &str = ".comet";
const SESSION_SUFFIX: &str = ".session";

/// The beginning of a shortened name. In any other name, `25` or `2F` follows each `%`.
const SHORTENED: &str = "%~";

/// The bytes of the hash in a shortened name, each in two digits. An attacker has to try
/// 2^64 topics until two have the same name.
const HASH: usize = 16;

/// The most bytes of a topic's encoded name in a shortened one.
const BEGINNING: usize = NAME_MAX - SHORTENED.len() - "~".len() - 2 * HASH - SUFFIX.len();

/// The bytes of the longest character in UTF-8.
const LONGEST_CHARACTER: usize = 4;

/// What the name of a file says about its topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// The topic.
    Topic(Topic),
    /// The name is shortened, and the header of the log has the topic.
    InHeader,
}

/// Encodes `/` and `%`, so no topic leaves the directory. Every other name is
/// unchanged, as in the PHP version of 2011. A name that would be too long for Linux is
/// shortened: its beginning, and a hash of the topic.
#[must_use]
pub fn file_name(topic: &Topic) -> PathBuf {
    if let Some(id) = topic.session() {
        return session_name(&id);
    }
    let encoded = encoded(topic);
    let name = match fits(&encoded) {
        true => encoded + SUFFIX,
        false => shortened(topic, &encoded),
    };
    name.into()
}

/// The name of the log of a session: its group, and a hash. A list of the directory does not show
/// the id, which is a secret. No topic has such a file.
#[must_use]
pub fn session_name(id: &SessionId) -> PathBuf {
    let hash = Sha256::digest(id.as_str());
    let hash = u128::from_be_bytes(hash[..16].try_into().unwrap_or_default());
    format!("{}{hash:032x}{SESSION_SUFFIX}", id.group()).into()
}

/// The group of the session whose log has this name; `None` for another name.
#[must_use]
pub fn session_group(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?.strip_suffix(SESSION_SUFFIX)?;
    SessionId::parse(name).map(|it| it.group().to_owned())
}

/// Whether its file has a shortened name, and the topic is in the header.
#[must_use]
pub fn is_shortened(topic: &Topic) -> bool {
    !fits(&encoded(topic))
}

/// The reverse of `file_name`; `None` for a name that no topic has.
#[must_use]
pub fn topic_of(name: &[u8]) -> Option<Named> {
    let encoded = std::str::from_utf8(name).ok()?.strip_suffix(SUFFIX)?;
    if let Some(shortened) = encoded.strip_prefix(SHORTENED) {
        return is_shortened_name(shortened).then_some(Named::InHeader);
    }
    let topic = decoded(encoded).filter(|_| fits(encoded))?;
    Some(Named::Topic(topic))
}

fn encoded(topic: &Topic) -> String {
    match cfg!(planted_traversal) {
        true => topic.as_str().to_owned(),
        false => topic.as_str().replace('%', "%25").replace('/', "%2F"),
    }
}

/// `None` if no topic is encoded so.
fn decoded(encoded: &str) -> Option<Topic> {
    let topic = Topic::new(encoded.replace("%2F", "/").replace("%25", "%")).ok()?;
    (self::encoded(&topic) == encoded).then_some(topic)
}

fn fits(encoded: &str) -> bool {
    encoded.len() + SUFFIX.len() <= NAME_MAX
}

fn shortened(topic: &Topic, encoded: &str) -> String {
    let mut name = format!("{SHORTENED}{}~", beginning(encoded));
    for byte in &Sha256::digest(topic.as_str())[..HASH] {
        let _ = write!(name, "{byte:02x}");
    }
    name + SUFFIX
}

/// As much as a shortened name has of it. It ends neither in a character nor in an escape,
/// which has two bytes after its `%`.
fn beginning(encoded: &str) -> &str {
    let is_between = |&end: &usize| {
        encoded.is_char_boundary(end) && !encoded.as_bytes()[end - 2..end].contains(&b'%')
    };
    let end = (2..=BEGINNING).rev().find(is_between).unwrap_or(0);
    &encoded[..end]
}

/// Whether [`shortened`] makes such a name, without the parts that every name has.
fn is_shortened_name(name: &str) -> bool {
    let Some((beginning, hash)) = name.rsplit_once('~') else { return false };
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let lengths = BEGINNING + 1 - LONGEST_CHARACTER..=BEGINNING;
    hash.len() == 2 * HASH
        && hash.bytes().all(is_digit)
        && lengths.contains(&beginning.len())
        && decoded(beginning).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::MAX_TOPIC;

    fn named(name: &str) -> String {
        file_name(&Topic::new(name).unwrap()).into_os_string().into_string().unwrap()
    }

    #[test]
    fn name_that_fits_is_not_shortened() {
        for (topic, name) in [
            ("~".repeat(249), "~".repeat(249) + ".comet"),
            ("/".repeat(83), "%2F".repeat(83) + ".comet"),
            ("%~".into(), "%25~.comet".into()),
        ] {
            assert_eq!(named(&topic), name);
            let topic = Named::Topic(Topic::new(topic).unwrap());
            assert_eq!(topic_of(name.as_bytes()), Some(topic));
        }
    }

    /// Each has a beginning that ends before a character or an escape.
    #[test]
    fn longer_name_has_its_beginning_and_a_hash() {
        for (topic, beginning) in [
            ("x".repeat(250), "x".repeat(214)),
            ("/".repeat(84), "%2F".repeat(71)),
            ("x".to_owned() + &"%".repeat(83), "x".to_owned() + &"%25".repeat(71)),
            ("xx".to_owned() + &"%".repeat(83), "xx".to_owned() + &"%25".repeat(70)),
            ("é".repeat(MAX_TOPIC / 2), "é".repeat(107)),
            ("x".to_owned() + &"😀".repeat(MAX_TOPIC / 4 - 1), "x".to_owned() + &"😀".repeat(53)),
        ] {
            let name = named(&topic);
            let rest = name.strip_prefix(&format!("%~{beginning}~")).expect(&name);
            assert_eq!(rest.len(), 32 + ".comet".len(), "{name}");
            assert!(name.len() <= NAME_MAX);
            assert_eq!(topic_of(name.as_bytes()), Some(Named::InHeader), "{name}");
        }
    }

    /// As `printf %s TOPIC | sha256sum` prints it.
    #[test]
    fn hash_is_the_beginning_of_sha_256() {
        let name = named(&"x".repeat(1024));
        assert_eq!(name, format!("%~{}~49abd65bbf7f7e40c7055093ed2e3fd7.comet", "x".repeat(214)));
    }

    #[test]
    fn name_that_no_topic_has_is_none() {
        let shortened = named(&"x".repeat(250));
        let digit = shortened.len() - ".comet".len() - 1;
        for name in [
            "a",
            ".comet",
            "a.comet~",
            "a/b.comet",
            "%2f.comet",
            "%.comet",
            "100%.comet",
            "%41.comet",
            "a\n.comet",
            "%~.comet",
            "%~x~0123456789abcdef0123456789abcdef.comet",
            &format!("{}F.comet", &shortened[..digit]),
            &shortened.replacen('x', "", 4),
            &shortened.replacen("%~xxx", "%~%41", 1),
            &("x".repeat(250) + ".comet"),
        ] {
            assert_eq!(topic_of(name.as_bytes()), None, "{name}");
        }
        assert_eq!(topic_of(b"\xFF.comet"), None);
    }
}

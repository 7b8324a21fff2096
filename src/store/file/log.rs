//! The log in an event file: a header with the creation of the topic, then one line of
//! JSON for each message, oldest first.
//!
//! A line counts only with its line feed. The bytes after the last line feed are torn:
//! their publisher was killed or has not finished. Readers skip lines that are no
//! messages (a shell's `echo`), and messages that are not earlier than the next (two
//! logs in one file).

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use crate::event::{Cursor, Draft, Extra, MAX_TOPIC, Message, Since, Topic};
use crate::store::Retention;

/// The bytes at the end that are read first. Most readers want one message.
const FIRST_PART: u64 = 4096;
/// The factor between one part and the next larger one.
const GROWTH: u64 = 8;
/// More bytes than a header and the id after it have. A topic takes two for each quote or
/// backslash.
const HEAD_PART: u64 = 256 + 2 * MAX_TOPIC as u64;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The creation of the topic. Older cursors belong to an earlier file.
    pub born: Cursor,
    /// The file that the header was written for. In another file it is a copy.
    pub inode: u64,
    /// The last message that is no longer kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dropped: Option<Cursor>,
    /// The topic, if the name of the file is shortened.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub topic: Option<Topic>,
}

/// The beginning of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The first line, if it is a header.
    pub header: Option<Header>,
    /// The oldest message.
    pub oldest: Option<Cursor>,
}

impl Head {
    /// Reads only the beginning of the first two lines.
    ///
    /// # Errors
    /// The error of pread(2).
    pub fn read(file: &File, length: u64) -> io::Result<Self> {
        let part = read_part(file, 0, length.min(HEAD_PART))?;
        let mut lines = part.splitn(3, |&byte| byte == b'\n');
        let first = lines.next().filter(|first| first.len() < part.len()).unwrap_or_default();
        let header = serde_json::from_slice(first).ok();
        let oldest = if header.is_some() { lines.next() } else { Some(first) };
        Ok(Self { header, oldest: oldest.and_then(id_at_the_beginning) })
    }
}

/// A message in a log. Optional keys are there only if the message has them, and
/// unknown keys are ignored.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    id: Cursor,
    #[serde(borrow)]
    data: Cow<'a, str>,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    kind: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_false")]
    private: bool,
    #[serde(rename = "client", default, skip_serializing_if = "Option::is_none")]
    client_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "<[_]>::is_empty")]
    topics: Cow<'a, [Topic]>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry: Option<u64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // The signature that serde calls.
fn is_false(value: &bool) -> bool {
    !value
}

impl<'a> Line<'a> {
    /// `None` for a line that is no message.
    fn parse(line: &'a [u8]) -> Option<Self> {
        // serde would also take an array, and bytes that are not UTF-8 in an
        // unknown key.
        let text = std::str::from_utf8(line).ok().filter(|text| text.starts_with('{'))?;
        serde_json::from_str(text).ok()
    }

    fn of(message: &'a Message) -> Self {
        let extra = &message.extra;
        Self {
            id: message.id,
            data: Cow::from(&message.data),
            kind: extra.kind.as_ref().map(Cow::from),
            private: extra.private,
            client_id: extra.client_id.as_ref().map(Cow::from),
            topics: Cow::from(&extra.topics),
            retry: extra.retry,
        }
    }

    fn message(self) -> Message {
        let extra = Extra {
            kind: self.kind.map(Cow::into_owned),
            private: self.private,
            client_id: self.client_id.map(Cow::into_owned),
            topics: self.topics.into_owned(),
            retry: self.retry,
        };
        Draft { data: self.data.into_owned(), extra }.message(self.id)
    }
}

/// The line of a message, with its line feed.
#[must_use]
pub fn message_line(message: &Message) -> Vec<u8> {
    line(&Line::of(message))
}

/// A line of a log, with its line feed.
#[must_use]
pub fn line(content: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(content).unwrap_or_default();
    line.push(b'\n');
    line
}

/// The end of a log, as its next publisher needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The last message, or [`Cursor::SMALLEST`].
    pub last: Cursor,
    /// The end of the last whole line. The bytes after it are torn.
    pub whole: u64,
}

/// The messages of a log that a reader wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Messages {
    /// The lines of these messages, oldest first.
    pub lines: Vec<Vec<u8>>,
    /// The last message of the log, or [`Cursor::SMALLEST`].
    pub last: Cursor,
    /// The last message that the reader wanted and that is no longer kept.
    pub dropped: Option<Cursor>,
}

/// Finds the end, not more than `most` bytes from it.
///
/// # Errors
/// The error of pread(2); `InvalidData` if there is no line in these bytes.
pub fn end(file: &File, length: u64, max_bytes: u64) -> io::Result<End> {
    parts(file, length, max_bytes, |part| {
        let whole = part.start + part.bytes.len() as u64;
        let last = part.lines_from_the_end().find_map(|line| Some((id_of(line)?, whole)));
        match last {
            Some((last, whole)) => Some(End { last, whole }),
            None => part.is_all().then_some(End { last: Cursor::SMALLEST, whole }),
        }
    })
}

/// The messages of the first `length` bytes that are later than `since` and
/// kept by `retention` at `now`.
///
/// # Errors
/// The same as those of [`end`].
pub fn messages(
    file: &File,
    length: u64,
    since: Since,
    retention: Retention,
    now: Cursor,
) -> io::Result<Messages> {
    let age = u64::try_from(retention.age.as_micros()).unwrap_or(u64::MAX);
    let oldest = Cursor::from_micros(now.micros().saturating_sub(age));
    parts(file, length, retention.max_file_bytes, |part| part.messages(since, retention, oldest))
}

/// Reads larger and larger parts of the end until `find` succeeds. It succeeds on the
/// largest at the latest. The limit protects memory against a planted large file.
fn parts<T>(
    file: &File,
    length: u64,
    max_bytes: u64,
    find: impl Fn(&Part) -> Option<T>,
) -> io::Result<T> {
    let largest = length.min(max_bytes);
    let mut size = FIRST_PART.min(largest);
    loop {
        let start = length - size;
        let mut part = Part::new(start, read_part(file, start, size)?);
        part.is_largest = size == largest;
        if let Some(found) = find(&part) {
            return Ok(found);
        }
        if part.is_largest {
            return Err(io::ErrorKind::InvalidData.into());
        }
        size = size.saturating_mul(GROWTH).min(largest);
    }
}

/// The bytes of a log that are read in one step of a search.
const WINDOW: u64 = 4096;
/// More bytes than the beginning of a line has, up to the end of its id.
const ID_PART: u64 = 64;

/// The first message after `after`, by a search among the beginnings of lines;
/// [`Cursor::LARGEST`] if there is none, `None` if there are other lines. Each publisher
/// gives a later id than the one before.
///
/// # Errors
/// The error of pread(2).
pub fn first_after(file: &File, length: u64, after: Cursor) -> io::Result<Option<Cursor>> {
    // The first message begins at `found`, or at or after `low` and before `high`.
    let (mut low, mut high, mut found) = (0, length, Cursor::LARGEST);
    while high - low > WINDOW {
        let middle = low + (high - low) / 2;
        match line_after(file, middle, high)? {
            None => high = middle + 1,
            Some((_, None)) => return Ok(None),
            Some((start, Some(id))) if id <= after => low = start,
            Some((_, Some(id))) => (found, high) = (id, middle + 1),
        }
    }
    let part = read_part(file, low, (high - low + ID_PART).min(length - low))?;
    let mut start = 0;
    while start < part.len() && (start as u64) < high - low {
        let line = &part[start..];
        match id_at_the_beginning(line) {
            Some(id) if id > after => return Ok(Some(id)),
            None if low > 0 || start > 0 => return Ok(None),
            _ => {}
        }
        let feed = line.iter().position(|&byte| byte == b'\n');
        start = feed.map_or(part.len(), |feed| start + feed + 1);
    }
    Ok(Some(found))
}

/// The first line that begins after `start` and before `end`, and its id.
fn line_after(file: &File, mut start: u64, end: u64) -> io::Result<Option<(u64, Option<Cursor>)>> {
    while start < end {
        let part = read_part(file, start, WINDOW.min(end - start))?;
        if let Some(feed) = part.iter().position(|&byte| byte == b'\n') {
            let begin = start + feed as u64 + 1;
            if begin >= end {
                break;
            }
            let line = read_part(file, begin, ID_PART)?;
            return Ok(Some((begin, id_at_the_beginning(&line))));
        }
        if part.is_empty() {
            break;
        }
        start += part.len() as u64;
    }
    Ok(None)
}

fn read_part(file: &File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], start + read as u64) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// Some whole lines of a log, up to its last.
struct Part {
    start: u64,
    bytes: Vec<u8>,
    /// Whether no earlier part counts.
    is_largest: bool,
}

impl Part {
    /// Cuts off the incomplete lines at both ends.
    fn new(mut start: u64, mut bytes: Vec<u8>) -> Self {
        let is_feed = |&byte: &u8| byte == b'\n';
        bytes.truncate(bytes.iter().rposition(is_feed).map_or(0, |feed| feed + 1));
        if start > 0 {
            let cut = bytes.iter().position(is_feed).map_or(bytes.len(), |feed| feed + 1);
            bytes.drain(..cut);
            start += cut as u64;
        }
        Self { start, bytes, is_largest: false }
    }

    /// Whether it has every line that counts. A part without a line of a larger file is
    /// not all.
    fn is_all(&self) -> bool {
        self.is_largest && (self.start == 0 || !self.bytes.is_empty())
    }

    fn lines_from_the_end(&self) -> impl Iterator<Item = &[u8]> {
        let whole = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        whole.rsplit(|&byte| byte == b'\n')
    }

    /// `None` if the reader wants older messages than this part has.
    fn messages(&self, since: Since, retention: Retention, oldest: Cursor) -> Option<Messages> {
        let mut found = Messages { lines: Vec::new(), last: Cursor::SMALLEST, dropped: None };
        let mut bytes = 0;
        let mut next = None;
        for line in self.lines_from_the_end() {
            let is_earlier = |id: &Cursor| next.is_none_or(|next| *id < next);
            let Some(id) = id_of(line).filter(is_earlier) else { continue };
            next = Some(id);
            found.last = found.last.max(id);
            bytes += line.len() as u64 + 1;
            let is_newest = found.lines.is_empty();
            let is_kept = is_newest
                || found.lines.len() < retention.messages
                    && bytes <= retention.bytes
                    && id >= oldest;
            if !since.includes(id) || !is_kept {
                found.dropped = since.includes(id).then_some(id);
                found.lines.reverse();
                return Some(found);
            }
            found.lines.push(line.to_vec());
            if since == Since::Latest {
                return Some(found);
            }
        }
        found.lines.reverse();
        self.is_all().then_some(found)
    }
}

/// `None` for a line that is no message.
fn id_of(line: &[u8]) -> Option<Cursor> {
    Line::parse(line).map(|line| line.id)
}

/// The id of a line that is cut off somewhere.
fn id_at_the_beginning(line: &[u8]) -> Option<Cursor> {
    let number = line.strip_prefix(br#"{"id":"#)?.split(|&byte| byte == b',').next()?;
    serde_json::from_slice(number).ok()
}

/// The messages of `lines` until `fits` refuses one, and whether it refused one.
#[must_use]
pub fn decode(lines: &[Vec<u8>], mut fits: impl FnMut(&Message) -> bool) -> (Vec<Message>, bool) {
    let mut messages = Vec::new();
    for message in lines.iter().filter_map(|line| Line::parse(line)).map(Line::message) {
        if !fits(&message) {
            return (messages, true);
        }
        messages.push(message);
    }
    (messages, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = r#"{"id":1795415403.163846,"data":"x"}"#;

    fn plain() -> Message {
        Message::new(Cursor::from_micros(1_795_415_403_163_846), "x")
    }

    fn read(line: &str) -> Option<Message> {
        decode(&[line.as_bytes().to_vec()], |_| true).0.pop()
    }

    fn with(key: &str) -> String {
        PLAIN.replace('}', &format!(",{key}}}"))
    }

    #[test]
    fn plain_message_is_id_and_data() {
        assert_eq!(message_line(&plain()), format!("{PLAIN}\n").into_bytes());
        assert_eq!(read(PLAIN), Some(plain()));
    }

    #[test]
    fn unknown_keys_are_ignored() {
        for key in [r#""a":1"#, r#""kind":{"b":[null]}"#, r#""a":1,"a":"twice""#] {
            assert_eq!(read(&with(key)), Some(plain()), "{key}");
        }
    }

    #[test]
    fn optional_keys_make_the_round_trip() {
        let topic = Topic::new("a/b").unwrap();
        let none = Extra::default;
        for (key, extra) in [
            (r#""type":"alarm\n""#, Extra { kind: Some("alarm\n".into()), ..none() }),
            (r#""private":true"#, Extra { private: true, ..none() }),
            (r#""client":"urn:uuid:1""#, Extra { client_id: Some("urn:uuid:1".into()), ..none() }),
            (r#""topics":["a/b"]"#, Extra { topics: vec![topic], ..none() }),
            (r#""retry":2500"#, Extra { retry: Some(2500), ..none() }),
        ] {
            let message = Message { extra, ..plain() };
            assert_eq!(message_line(&message), format!("{}\n", with(key)).into_bytes());
            assert_eq!(read(&with(key)), Some(message.clone()), "{key}");
            // No protocol sends the key.
            assert_eq!(serde_json::to_string(&message).unwrap(), PLAIN);
        }
    }

    #[test]
    fn search_finds_the_first_message_after_each_time() {
        let path = std::env::temp_dir().join(format!("novcomet-search-{}", std::process::id()));
        let at = |number: usize| Cursor::from_micros(1_795_415_403_000_001 + number as u64 * 10);
        let shapes = ["1", "70000", "70000,1,1,9000,4096,1", "0,4040", &vec!["1"; 3000].join(",")];
        for shape in shapes {
            let sizes: Vec<_> = shape.split(',').map(|size| size.parse().unwrap()).collect();
            let header = Header { born: at(0), inode: 1, dropped: None, topic: None };
            let mut log = line(&header);
            for (number, &size) in sizes.iter().enumerate() {
                log.extend(message_line(&Message::new(at(number), "x".repeat(size))));
            }
            std::fs::write(&path, &log).unwrap();
            let file = File::open(&path).unwrap();
            let first = |after| first_after(&file, log.len() as u64, after).unwrap();
            for number in 0..sizes.len() {
                let before = at(number).before(std::time::Duration::from_micros(1));
                assert_eq!(first(before), Some(at(number)), "{number} of {}", sizes.len());
            }
            assert_eq!(first(at(sizes.len() - 1)), Some(Cursor::LARGEST));
            log.extend(b"echo\n");
            std::fs::write(&path, &log).unwrap();
            let last = first_after(&file, log.len() as u64, at(sizes.len())).unwrap();
            assert_eq!(last, None);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn wrong_types_make_no_message() {
        for key in [r#""type":5"#, r#""private":"yes""#, r#""client":[]"#, r#""topics":["\u0000"]"#]
        {
            assert_eq!(read(&with(key)), None, "{key}");
            assert_eq!(id_of(with(key).as_bytes()), None, "{key}");
        }
    }
}

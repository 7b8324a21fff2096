//! The JSON of 2011 and after: `{"s":…,"k":{…}}`, which polls and streams share.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::ser::{Serialize, Serializer};
use serde_json::ser::Formatter;

use crate::event::position::Position;
use crate::event::{Cursor, Message, Topic};
use crate::hub::{Occurrence, Update};

pub const JSON: &str = "application/json; charset=utf-8";

/// `{"s":1,"k":{…},"m":{…},"gap":[…]}`, without what is empty.
pub fn updates_json(updates: &[Update]) -> String {
    let with_messages = updates.iter().filter(|update| !update.messages.is_empty());
    to_json(&State {
        s: 1,
        k: updates.iter().map(|update| (&update.topic, &update.cursor)).collect(),
        m: with_messages.map(|update| (&update.topic, &update.messages)).collect(),
        gap: updates.iter().filter(|update| update.gap).map(|update| &update.topic).collect(),
    })
}

/// `{"s":1,"k":{…},"m":{…},"gap":[…],"p":"…"}`, without what is empty: events of many topics,
/// and the one position after them.
pub fn ordered_json(events: &[Occurrence], position: Position) -> String {
    let mut k = BTreeMap::new();
    let mut m = BTreeMap::<_, Vec<_>>::new();
    for Occurrence { topic, message, cursor, .. } in events {
        k.insert(topic, *cursor);
        if let Some(message) = message {
            m.entry(topic).or_default().push(message);
        }
    }
    let gap = events.iter().filter(|one| one.gap).map(|one| &one.topic).collect();
    let p = position.to_string();
    to_json(&Ordered { s: (!events.is_empty()).into(), k, m, gap, p })
}

#[derive(serde::Serialize)]
struct Ordered<'a> {
    s: u8,
    k: BTreeMap<&'a Topic, Cursor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    m: BTreeMap<&'a Topic, Vec<&'a Message>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gap: Vec<&'a Topic>,
    p: String,
}

/// `{"s":0,"k":{…}}`
pub fn timeout_json(cursors: &[(Topic, Cursor)]) -> String {
    state(0, cursors.iter().map(|(topic, cursor)| (topic, cursor)))
}

/// `{"s":…,"k":{…}}`: the state of 2011, and the cursors.
pub fn state<'a>(s: u8, k: impl Iterator<Item = (&'a Topic, &'a Cursor)>) -> String {
    to_json(&State { s, k: k.collect(), m: Map(Vec::new()), gap: Vec::new() })
}

/// The size of a message in the answer of a poll, in bytes.
pub fn message_size(message: &Message) -> usize {
    const ENVELOPE: usize = r#"{"id":1795415403.163847,"data":""},"#.len();
    ENVELOPE + message.data.bytes().map(escaped).sum::<usize>() + escaped_breaks(&message.data)
}

/// The bytes that the escapes of [`LINE_BREAKS`] add. Most texts need no search.
fn escaped_breaks(text: &str) -> usize {
    match text.is_ascii() {
        true => 0,
        false => text.matches(LINE_BREAKS).map(|it| ESCAPE - it.len()).sum(),
    }
}

/// The size of a byte of a text in JSON, as `serde_json` writes it.
fn escaped(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\x08' | b'\t' | b'\n' | b'\x0c' | b'\r' => 2,
        0..0x20 => ESCAPE,
        _ => 1,
    }
}

pub fn to_json(state: &impl Serialize) -> String {
    let mut json = Vec::with_capacity(128);
    let mut serializer = serde_json::Serializer::with_formatter(&mut json, OnOneLine);
    match state.serialize(&mut serializer) {
        Ok(()) => String::from_utf8(json).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

/// Line breaks that JSON allows in a text. Many clients of event streams split lines there too.
const LINE_BREAKS: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// The size of `\u2028`, in bytes.
const ESCAPE: usize = 6;

/// JSON whose texts have no line break of any kind.
struct OnOneLine;

impl Formatter for OnOneLine {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        to: &mut W,
        text: &str,
    ) -> io::Result<()> {
        if text.is_ascii() {
            return to.write_all(text.as_bytes());
        }
        for part in text.split_inclusive(LINE_BREAKS) {
            let plain = part.trim_end_matches(LINE_BREAKS);
            to.write_all(plain.as_bytes())?;
            if let Some(line_break) = part[plain.len()..].chars().next() {
                write!(to, "\\u{:04x}", u32::from(line_break))?;
            }
        }
        Ok(())
    }
}

#[derive(serde::Serialize)]
struct State<'a> {
    s: u8,
    k: Map<'a, Cursor>,
    #[serde(skip_serializing_if = "Map::is_empty")]
    m: Map<'a, Vec<Message>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gap: Vec<&'a Topic>,
}

/// An object with a value for each topic, in the order of the request.
struct Map<'a, V>(Vec<(&'a Topic, &'a V)>);

impl<V> Map<'_, V> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a, V> FromIterator<(&'a Topic, &'a V)> for Map<'a, V> {
    fn from_iter<I: IntoIterator<Item = (&'a Topic, &'a V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl<V: Serialize> Serialize for Map<'_, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_no_line_break() {
        let text = "a\u{2028}\u{2029}é\u{85}\n\u{2027}";
        assert_eq!(to_json(&text), "\"a\\u2028\\u2029é\\u0085\\n\u{2027}\"");
        assert_eq!(serde_json::from_str::<String>(&to_json(&text)).unwrap(), text);
    }

    #[test]
    fn size_is_that_of_the_json() {
        let text: String = (0..=0x100).chain(0x2020..0x2030).filter_map(char::from_u32).collect();
        for data in ["", "one", &text] {
            let id = Cursor::from_micros(1_795_415_403_163_847);
            let message = Message::new(id, data);
            assert_eq!(message_size(&message), to_json(&message).len() + 1, "{data:?}");
        }
    }
}

//! Events as lines: of their text, or of JSON.

use serde::Serialize;

use crate::cgi::{Head, Response};
use crate::error::{Error, escaped};
use crate::event::{Cursor, Message, Topic};
use crate::hub::{Piece, Renderer, Update};

/// A line for each event.
pub struct Lines {
    /// Whether a line is an object of JSON, or the text of the message.
    pub is_json: bool,
    /// Whether a terminal shows them. It would obey the escape sequences of any publisher.
    pub is_terminal: bool,
}

/// An event in JSON.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a Topic,
    cursor: Cursor,
    /// `None` for an event without a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    /// Whether something before it may be missing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gap: bool,
}

impl Lines {
    fn line(&self, line: &Line) -> String {
        let text = match self.is_json {
            true => serde_json::to_string(line).unwrap_or_default(),
            false => line.data.unwrap_or_default().to_owned(),
        };
        match self.is_terminal {
            true => text.split('\n').map(escaped).collect::<Vec<_>>().join("\n") + "\n",
            false => text + "\n",
        }
    }

    fn update(&self, Update { topic, cursor, messages, gap }: &Update) -> String {
        let last = messages.last().map(|message| message.id);
        // After a gap and no message there may have been no event either.
        let ends_without = last.map_or(!gap || self.is_json, |last| last < *cursor);
        let events = messages.iter().map(|message| (message.id, Some(message.data.as_str())));
        let events = events.chain(ends_without.then_some((*cursor, None)));
        let lines = events.zip(std::iter::once(*gap).chain(std::iter::repeat(false)));
        let lines =
            lines.map(|((cursor, data), gap)| self.line(&Line { topic, cursor, data, gap }));
        lines.collect()
    }
}

impl Renderer for Lines {
    fn head(&self) -> Head {
        Head::unwritten()
    }

    fn render(&mut self, piece: &Piece) -> Vec<u8> {
        match piece {
            Piece::Updates(updates) => {
                updates.iter().map(|update| self.update(update)).collect::<String>().into_bytes()
            }
            _ => Vec::new(),
        }
    }

    fn size(&self, topic: &Topic, message: &Message) -> usize {
        self.line(&Line { topic, cursor: message.id, data: Some(&message.data), gap: false }).len()
    }

    fn refuse(&self, _: &Error) -> Response {
        Head::unwritten().body("")
    }

    fn save(&self) -> String {
        String::new()
    }
}

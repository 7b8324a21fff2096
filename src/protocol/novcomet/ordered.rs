//! The answers to a subscriber by pattern: the events of many topics in one order, with one
//! position for all.

use serde::{Deserialize, Serialize};

use super::json::{JSON, message_size, ordered_json};
use super::saved::Saved;
use super::stream::{Format, GREETING, RETRY, refuse};
use crate::cgi::{Head, Response};
use crate::error::Error;
use crate::event::position::Position;
use crate::event::{Message, Topic};
use crate::hub::{Notice, Occurrence, Piece, Renderer};
use crate::protocol::problem::problem;
use crate::protocol::sse;

/// One object of JSON.
pub struct OrderedPoll;

impl Renderer for OrderedPoll {
    fn head(&self) -> Head {
        Head::new(200, JSON)
    }

    fn render(&mut self, piece: &Piece) -> Vec<u8> {
        match piece {
            Piece::Events { events, position } => ordered_json(events, *position).into_bytes(),
            Piece::Idle(position) => ordered_json(&[], *position).into_bytes(),
            // Pieces of streams, and of subscribers to topics.
            _ => Vec::new(),
        }
    }

    fn size(&self, _: &Topic, message: &Message) -> usize {
        message_size(message)
    }

    fn refuse(&self, error: &Error) -> Response {
        problem(error)
    }

    fn save(&self) -> String {
        Saved::<()>::OrderedPoll.text()
    }
}

/// The renderer of a stream. Each `id` is a position.
#[derive(Serialize, Deserialize)]
pub struct OrderedStream {
    format: Format,
}

impl OrderedStream {
    /// A stream that has not started.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    fn text(&self, piece: &Piece) -> String {
        let mut text = String::new();
        match piece {
            Piece::Begin { position, retry_after, .. } => {
                sse::comment(&mut text, GREETING);
                sse::retry(&mut text, retry_after.unwrap_or(RETRY));
                let data = (self.format == Format::Json).then(|| ordered_json(&[], *position));
                sse::event(&mut text, None, Some(&position.to_string()), data.as_deref());
            }
            Piece::Events { events, position } if self.format == Format::Json => {
                let data = ordered_json(events, *position);
                sse::event(&mut text, None, Some(&position.to_string()), Some(&data));
            }
            Piece::Events { events, .. } => {
                for one in events {
                    self.occurrence(&mut text, one);
                }
            }
            Piece::Heartbeat => text.push_str(sse::HEARTBEAT),
            // Pieces of polls, and of subscribers to topics.
            _ => {}
        }
        text
    }

    fn occurrence(&self, text: &mut String, one: &Occurrence) {
        let name = one.topic.as_str();
        if one.gap {
            sse::event(text, Some("gap"), None, Some(name));
        }
        let event = (self.format == Format::Events { named: true }).then_some(name);
        let data = one.message.as_ref().map_or("", |message| &message.data);
        sse::event(text, event, Some(&one.position.to_string()), Some(data));
    }
}

impl Renderer for OrderedStream {
    fn head(&self) -> Head {
        sse::head()
    }

    fn render(&mut self, piece: &Piece) -> Vec<u8> {
        self.text(piece).into_bytes()
    }

    /// No store keeps a notice, so its `id` is the place of the subscriber.
    fn render_notices(&self, notices: &[Notice], position: Position) -> Vec<u8> {
        if notices.is_empty() {
            return Vec::new();
        }
        let cursor = position.cursor;
        let occurrence = |Notice { topic, message }: &Notice| {
            let message = Some(message.clone().message(cursor));
            Occurrence { topic: topic.clone(), cursor, position, message, gap: false, until: None }
        };
        let events = notices.iter().map(occurrence).collect();
        self.text(&Piece::Events { events, position }).into_bytes()
    }

    fn size(&self, topic: &Topic, message: &Message) -> usize {
        const FIELDS: usize = "event: \nid: hof6g6si4m.4294967295\n\n".len();
        match self.format {
            Format::Json => message_size(message),
            Format::Events { .. } => FIELDS + topic.as_str().len() + sse::data_size(&message.data),
        }
    }

    fn refuse(&self, error: &Error) -> Response {
        refuse(self.format, error)
    }

    fn save(&self) -> String {
        Saved::<(), _>::OrderedStream(self).text()
    }
}

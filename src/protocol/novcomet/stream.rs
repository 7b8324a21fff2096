//! The answer of a stream: events, or the JSON of polls in events. An `id` has the
//! cursors of all topics.

use serde::{Deserialize, Serialize};

use super::json::{message_size, timeout_json, updates_json};
use super::saved::Saved;
use crate::cgi::{Head, Response};
use crate::error::Error;
use crate::event::{Cursor, Message, Since, Topic};
use crate::hub::{Piece, Renderer, Subscription, Update};
use crate::protocol::problem::problem;
use crate::protocol::sse;

/// How long a client waits before it reconnects, in seconds.
pub const RETRY: u32 = 1;

/// How much of one stream its `id`s take, in bytes; then the client reconnects
/// with the last. Each has the cursors of all topics: without an end, one request
/// for messages of a byte would be answered with hundreds of times as much.
const IDS: usize = 4_194_304;

/// A cursor in an `id`, and the `-` after it, in bytes.
const CURSOR: usize = "hof6g6si4m-".len();

/// The first comment. Apache's `mod_deflate` holds an answer back until it has 69
/// bytes of it or its end, even one that it is told not to compress: with this
/// line the start is never shorter.
pub const GREETING: &str = "novcomet: events as they happen; a colon alone is a sign of life";

/// How the events of a stream look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// One block for each event; `named` by its topic, or for `onmessage`.
    Events {
        /// Whether each event bears its topic's name.
        named: bool,
    },
    /// The answer of a poll, in one block.
    Json,
}

/// Replaces the cursors of `subscribed` by those of an `id`.
///
/// # Errors
/// [`Error::BadRequest`] if it is not an `id` of a stream of these topics.
pub fn resume(id: &str, subscribed: &mut [Subscription]) -> Result<(), Error> {
    let cursors: Option<Vec<_>> = id.split('-').map(cursor).collect();
    match cursors {
        Some(cursors) if cursors.len() == subscribed.len() => {
            for (subscription, cursor) in subscribed.iter_mut().zip(cursors) {
                subscription.since = Since::Cursor(cursor);
            }
            Ok(())
        }
        _ => {
            let why = "Last-Event-ID is not an id of a stream of these topics";
            Err(Error::BadRequest(why.into()))
        }
    }
}

/// The renderer of a stream; knows the client's cursors.
#[derive(Serialize, Deserialize)]
pub struct EventStream {
    format: Format,
    /// How many topics it has.
    topics: usize,
    cursors: Vec<(Topic, Cursor)>,
    /// The size of its `id`s so far, in bytes.
    ids: usize,
}

impl EventStream {
    /// A stream of so many topics that has not started.
    #[must_use]
    pub fn new(format: Format, topics: usize) -> Self {
        Self { format, topics, cursors: Vec::new(), ids: 0 }
    }

    fn text(&mut self, piece: &Piece) -> String {
        let mut text = String::new();
        match piece {
            Piece::Start { cursors, retry_after } => {
                self.cursors.clone_from(cursors);
                sse::comment(&mut text, GREETING);
                sse::retry(&mut text, retry_after.unwrap_or(RETRY));
                let data = (self.format == Format::Json).then(|| timeout_json(cursors));
                self.event(&mut text, None, data.as_deref());
            }
            Piece::Updates(updates) if self.format == Format::Json => {
                for Update { topic, cursor, .. } in updates {
                    self.advance(topic, *cursor);
                }
                self.event(&mut text, None, Some(&updates_json(updates)));
            }
            Piece::Updates(updates) => {
                for update in updates {
                    self.update(&mut text, update);
                }
            }
            Piece::Heartbeat => text.push_str(sse::HEARTBEAT),
            // Pieces of polls, and of subscribers by pattern.
            _ => {}
        }
        text
    }

    fn update(&mut self, text: &mut String, update: &Update) {
        let name = update.topic.as_str();
        let event = (self.format == Format::Events { named: true }).then_some(name);
        if update.gap {
            self.event(text, Some("gap"), Some(name));
        }
        for message in &update.messages {
            self.advance(&update.topic, message.id);
            self.event(text, event, Some(&message.data));
        }
        if update.messages.last().is_none_or(|last| last.id < update.cursor) {
            self.advance(&update.topic, update.cursor);
            // After a gap and no message there may have been no event either.
            if !update.gap || !update.messages.is_empty() {
                self.event(text, event, Some(""));
            }
        }
    }

    fn advance(&mut self, topic: &Topic, cursor: Cursor) {
        for (known, last) in &mut self.cursors {
            if known == topic {
                *last = cursor;
            }
        }
    }

    fn event(&mut self, text: &mut String, kind: Option<&str>, data: Option<&str>) {
        let mut ids = String::new();
        for (number, (_, cursor)) in self.cursors.iter().enumerate() {
            ids.push_str(if number == 0 { "" } else { "-" });
            let _ = cursor.base36(&mut ids);
        }
        let id = (!ids.is_empty()).then_some(ids);
        self.ids += id.as_ref().map_or(0, String::len);
        sse::event(text, kind, id.as_deref(), data);
    }
}

impl Renderer for EventStream {
    fn head(&self) -> Head {
        sse::head()
    }

    fn render(&mut self, piece: &Piece) -> Vec<u8> {
        self.text(piece).into_bytes()
    }

    fn size(&self, topic: &Topic, message: &Message) -> usize {
        let name = match self.format {
            Format::Json => return message_size(message),
            Format::Events { named: true } => "event: \n".len() + topic.as_str().len(),
            Format::Events { named: false } => 0,
        };
        let id = "id: ".len() + self.topics * CURSOR;
        name + id + sse::data_size(&message.data) + 1
    }

    fn renew(&mut self) {
        self.ids = 0;
    }

    fn is_done(&self) -> bool {
        self.ids >= IDS
    }

    fn refuse(&self, error: &Error) -> Response {
        refuse(self.format, error)
    }

    fn save(&self) -> String {
        Saved::<_>::Stream(self).text()
    }
}

/// The answer to a stream that cannot begin. A client that reads JSON can read the problem.
pub fn refuse(format: Format, error: &Error) -> Response {
    let postponed = sse::postpone(error).filter(|_| format != Format::Json);
    postponed.unwrap_or_else(|| problem(error))
}

fn cursor(text: &str) -> Option<Cursor> {
    let digits = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let micros = u64::from_str_radix(text, 36).ok().filter(|_| digits)?;
    Some(Cursor::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Cursor {
        Cursor::from_micros(1_795_415_403_000_000 + micros)
    }

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn start(cursors: Vec<(Topic, Cursor)>) -> Piece {
        Piece::Start { cursors, retry_after: None }
    }

    fn begun(format: Format) -> EventStream {
        let mut stream = EventStream::new(format, 2);
        let cursors = vec![(topic("a"), at(163_846)), (topic("b"), Cursor::SMALLEST)];
        let _ = stream.text(&start(cursors));
        stream
    }

    fn update(messages: &[(u64, &str)], cursor: u64, gap: bool) -> Piece {
        let message = |&(id, data): &(u64, &str)| Message::new(at(id), data);
        let messages = messages.iter().map(message).collect();
        Piece::Updates(vec![Update { topic: topic("a"), cursor: at(cursor), messages, gap }])
    }

    #[test]
    fn last_event_id_needs_the_same_topics() {
        let subscription = |name| Subscription { topic: topic(name), since: Since::Now };
        let mut two = [subscription("a"), subscription("b")];
        resume("hof6g6si4m-255s", &mut two).unwrap();
        assert_eq!(two[0].since, Since::Cursor(at(163_846)));
        assert_eq!(two[1].since, Since::Cursor(Cursor::SMALLEST));
        for id in ["hof6g6si4m", "a-b-c", "a-", "a-+b", "-", "a-zzzzzzzzzzzzzzzzzzzz", "a-é"] {
            assert_eq!(resume(id, &mut two).unwrap_err().status(), 400, "{id}");
        }
    }

    #[test]
    fn start_is_long_enough_for_mod_deflate() {
        let text = EventStream::new(Format::Events { named: true }, 0).text(&start(Vec::new()));
        assert!(text.len() > 68, "{text}");
    }

    #[test]
    fn start_without_cursors_has_no_id() {
        let text = EventStream::new(Format::Json, 0).text(&start(Vec::new()));
        assert_eq!(text, format!(": {GREETING}\nretry: 1000\ndata: {{\"s\":0,\"k\":{{}}}}\n\n"));
    }

    #[test]
    fn each_line_gets_a_data_field() {
        let mut stream = begun(Format::Events { named: false });
        let text = stream.text(&update(&[(163_847, "\none\r\ntwo\rthree\n")], 163_847, false));
        assert_eq!(
            text,
            "id: hof6g6si4n-255s\ndata:\ndata: one\ndata: two\ndata: three\ndata:\n\n"
        );
    }

    #[test]
    fn size_is_that_of_the_text() {
        for named in [true, false] {
            let format = Format::Events { named };
            let mut stream = begun(format);
            let cursors = vec![(topic("a"), at(163_846)), (topic("b"), at(163_846))];
            let _ = stream.text(&start(cursors));
            for data in ["", "one", "\none\r\ntwo\rthree\n", "\n\n\n"] {
                let text = stream.text(&update(&[(163_847, data)], 163_847, false));
                let message = Message::new(at(163_847), data);
                assert_eq!(stream.size(&topic("a"), &message), text.len(), "{text:?}");
            }
        }
    }

    #[test]
    fn gap_comes_before_the_messages() {
        let mut stream = begun(Format::Events { named: true });
        let text = stream.text(&update(&[(163_847, "one")], 163_847, true));
        let gap = "event: gap\nid: hof6g6si4m-255s\ndata: a\n\n";
        assert_eq!(text, format!("{gap}event: a\nid: hof6g6si4n-255s\ndata: one\n\n"));
    }

    #[test]
    fn event_without_message_has_empty_data() {
        let mut stream = begun(Format::Events { named: true });
        let text = stream.text(&update(&[], 163_847, false));
        assert_eq!(text, "event: a\nid: hof6g6si4n-255s\ndata:\n\n");
    }
}

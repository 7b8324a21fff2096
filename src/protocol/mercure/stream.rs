//! The answer to a subscriber: an event stream of updates.

use serde::{Deserialize, Serialize};

use super::refusal::refusal;
use super::subscribe::EARLIEST;
use super::subscriber::Subscriber;
use crate::auth::Generation;
use crate::cgi::{FieldValue, Head, Response};
use crate::error::Error;
use crate::event::position::Position;
use crate::event::{Message, Topic};
use crate::hub::{Notice, Occurrence, Payload, Piece, Presence, Renderer};
use crate::protocol::sse;

/// It begins a stream, and keeps it open. An empty line after it would be an event without
/// data to clients that do not follow the standard, such as `fetch-event-source`.
const COMMENT: &str = ":\n";

/// The renderer of a stream.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpdateStream {
    /// The id before the first event, if the client has named one.
    #[serde(rename = "mercure")]
    preceding: Option<(Field, FieldValue)>,
    /// What others may learn of it, if the hub tells that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subscriber: Option<Subscriber>,
}

/// The header for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Field {
    LastEventId,
    MercureLastEventId,
}

impl Field {
    fn of(generation: Generation) -> Self {
        match generation {
            Generation::V0 => Self::LastEventId,
            Generation::V1 => Self::MercureLastEventId,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::LastEventId => "Last-Event-ID",
            Self::MercureLastEventId => "Mercure-Last-Event-ID",
        }
    }
}

impl UpdateStream {
    /// A stream that has not started, after the event with the id `preceding`, if the client
    /// has named one.
    #[must_use]
    pub fn new(generation: Generation, preceding: Option<FieldValue>) -> Self {
        Self { preceding: preceding.map(|id| (Field::of(generation), id)), subscriber: None }
    }

    /// The stream of a subscriber that others may learn of.
    #[must_use]
    pub(super) fn by(self, subscriber: Option<Subscriber>) -> Self {
        Self { subscriber, ..self }
    }

    /// What [`save`](Renderer::save) has returned; `None` for another text.
    #[must_use]
    pub fn restore(saved: &str) -> Option<Self> {
        serde_json::from_str(saved).ok()
    }

    fn begin(&mut self, is_known: bool) {
        if let Some((_, id)) = self.preceding.as_mut().filter(|_| !is_known) {
            *id = EARLIEST.into();
        }
    }

    fn text(&mut self, piece: &Piece) -> String {
        let mut text = String::new();
        match piece {
            Piece::Begin { position, is_known, retry_after } => {
                self.begin(*is_known);
                text.push_str(COMMENT);
                if let Some(seconds) = retry_after {
                    come_back(&mut text, *seconds, *position);
                }
            }
            Piece::Events { events, .. } => events.iter().for_each(|event| write(&mut text, event)),
            Piece::Heartbeat => text.push_str(COMMENT),
            // Pieces of other protocols only.
            Piece::Start { .. } | Piece::Updates(_) | Piece::Timeout(_) | Piece::Idle(_) => {}
        }
        text
    }
}

/// A client without a slot polls. It has to know where it was, even if there was no event.
fn come_back(text: &mut String, seconds: u32, position: Position) {
    let id = own_id(position);
    let retry = Some(u64::from(seconds) * 1000);
    sse::Event { retry, id: Some(&id), ..Default::default() }.write(text);
}

fn write(text: &mut String, Occurrence { position, message, .. }: &Occurrence) {
    let extra = message.as_ref().map(|message| &message.extra);
    let own = extra.and_then(|extra| extra.client_id.clone());
    sse::Event {
        kind: extra.and_then(|extra| extra.kind.as_deref()),
        retry: extra.and_then(|extra| extra.retry),
        id: Some(&own.unwrap_or_else(|| own_id(*position))),
        data: Some(message.as_ref().map_or("", |message| &message.data)),
    }
    .write(text);
}

/// The id of an event that has none of its publisher.
fn own_id(position: Position) -> String {
    format!("#{position}")
}

impl Renderer for UpdateStream {
    fn head(&self) -> Head {
        let head = sse::head();
        match &self.preceding {
            Some((field, id)) => head.header(field.name(), id.clone()),
            None => head,
        }
    }

    fn render(&mut self, piece: &Piece) -> Vec<u8> {
        self.text(piece).into_bytes()
    }

    /// The id begins with the place of the subscriber, for no store keeps the notice: a client
    /// that comes back with it misses nothing.
    fn render_notices(&self, notices: &[Notice], position: Position) -> Vec<u8> {
        let mut text = String::new();
        for Notice { message, .. } in notices {
            let own = message.extra.client_id.as_deref().unwrap_or_default();
            let id = format!("{}/{own}", own_id(position));
            let kind = message.extra.kind.as_deref();
            sse::event(&mut text, kind, Some(&id), Some(&message.data));
        }
        text.into_bytes()
    }

    fn notices(&self, presence: Presence, payload: Payload) -> Vec<Notice> {
        let subscriber = self.subscriber.as_ref();
        subscriber.map_or(Vec::new(), |subscriber| subscriber.notices(presence, payload))
    }

    fn size(&self, _: &Topic, message: &Message) -> usize {
        const FIELDS: usize = "event: \nretry: 18446744073709551615\nid: \n\n".len();
        let kind = message.extra.kind.as_ref().map_or(0, String::len);
        let id = message.extra.client_id.as_ref().map_or(OWN_ID, String::len);
        FIELDS + kind + id + sse::data_size(&message.data)
    }

    fn refuse(&self, error: &Error) -> Response {
        sse::postpone(error).unwrap_or_else(|| refusal(error))
    }

    fn save(&self) -> String {
        // It has no map with keys that JSON cannot name, the only error.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The longest id of our own.
const OWN_ID: usize = "#3w5e11264sgsf.4294967295".len();

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cursor, Draft, Extra};
    use crate::protocol::mercure::MAX_FIELD;

    fn position(micros: u64) -> Position {
        Position::after(Cursor::from_micros(1_795_415_403_163_846 + micros))
    }

    fn occurrence(message: Option<Message>) -> Occurrence {
        let topic = Topic::new("https://example.com/books/1").unwrap();
        Occurrence {
            topic,
            cursor: position(0).cursor,
            position: position(0),
            message,
            gap: false,
            until: None,
        }
    }

    fn message(data: &str, extra: Extra) -> Message {
        Draft { data: data.into(), extra }.message(position(0).cursor)
    }

    fn text(piece: &Piece) -> String {
        UpdateStream::new(Generation::V0, None).text(piece)
    }

    fn event(message: Option<Message>) -> String {
        text(&Piece::Events { events: vec![occurrence(message)], position: position(0) })
    }

    fn begin(is_known: bool, retry_after: Option<u32>) -> Piece {
        Piece::Begin { position: position(0), is_known, retry_after }
    }

    fn head(stream: &UpdateStream) -> String {
        String::from_utf8(stream.head().start_stream("").bytes()).unwrap()
    }

    #[test]
    fn stream_starts_with_a_comment() {
        assert_eq!(text(&begin(true, None)), ":\n");
        assert_eq!(text(&Piece::Heartbeat), ":\n");
    }

    #[test]
    fn client_without_a_slot_learns_its_position() {
        assert_eq!(text(&begin(true, Some(7))), ":\nretry: 7000\nid: #hof6g6si4m\n\n");
    }

    #[test]
    fn fields_are_in_the_order_of_mercure() {
        let (kind, retry) = (Some("book".to_owned()), Some(5));
        let extra = Extra { kind, retry, client_id: Some("urn:a".into()), ..Extra::default() };
        assert_eq!(
            event(Some(message("one\r\ntwo\rthree\n", extra))),
            "event: book\nretry: 5\nid: urn:a\ndata: one\ndata: two\ndata: three\ndata:\n\n"
        );
    }

    #[test]
    fn event_without_message_has_an_id_and_empty_data() {
        assert_eq!(event(None), "id: #hof6g6si4m\ndata:\n\n");
        assert_eq!(event(Some(message("a", Extra::default()))), "id: #hof6g6si4m\ndata: a\n\n");
    }

    #[test]
    fn data_forges_no_field() {
        let text = event(Some(message("a\nid: b\rdata\r\nevent: c", Extra::default())));
        assert_eq!(text, "id: #hof6g6si4m\ndata: a\ndata: id: b\ndata: data\ndata: event: c\n\n");
    }

    #[test]
    fn header_says_what_precedes_if_asked() {
        assert!(!head(&UpdateStream::new(Generation::V0, None)).contains("Event-ID"));
        for (generation, name) in
            [(Generation::V0, "Last-Event-ID"), (Generation::V1, "Mercure-Last-Event-ID")]
        {
            let mut stream = UpdateStream::new(generation, FieldValue::new("urn:a"));
            let _ = stream.text(&begin(true, None));
            assert!(head(&stream).contains(&format!("\r\n{name}: urn:a\r\n")));
            let _ = stream.text(&begin(false, None));
            assert!(head(&stream).contains(&format!("\r\n{name}: earliest\r\n")));
        }
    }

    #[test]
    fn size_is_at_least_that_of_the_text() {
        let stream = UpdateStream::new(Generation::V0, None);
        let topic = Topic::new("a").unwrap();
        let long = Some("x".repeat(MAX_FIELD));
        let whole = Extra {
            kind: long.clone(),
            client_id: long,
            retry: Some(u64::MAX),
            ..Extra::default()
        };
        for extra in [Extra::default(), whole] {
            for data in ["", "one", "\n\n\n"] {
                let message = message(data, extra.clone());
                let text = event(Some(message.clone()));
                assert!(stream.size(&topic, &message) >= text.len(), "{text:?}");
            }
        }
        let cursor = Cursor::LARGEST;
        assert!(own_id(Position { cursor, nth: u32::MAX - 1 }).len() <= OWN_ID);
    }

    #[test]
    fn saved_stream_goes_on() {
        for preceding in [None, FieldValue::new("urn:a")] {
            let stream = UpdateStream::new(Generation::V1, preceding);
            assert_eq!(UpdateStream::restore(&stream.save()), Some(stream));
        }
        for other in ["\"novcomet-poll\"", "{\"novcomet-stream\":{}}", "{}x", ""] {
            assert_eq!(UpdateStream::restore(other), None, "{other}");
        }
    }
}

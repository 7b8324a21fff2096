//! The answer to a connect: its reply, and the messages for the client.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::channel::{is_meta, is_service};
use super::message;
use super::reply::Reply;
use crate::cgi::{Head, Response};
use crate::error::Error;
use crate::event::pattern::Pattern;
use crate::event::position::Position;
use crate::event::{Message, Topic};
use crate::hub::{Occurrence, Piece, Renderer};

/// The type of every answer.
pub const JSON: &str = "application/json;charset=UTF-8";

/// The renderer of the answer.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connect {
    /// The replies to the messages of the request, that to the connect last.
    bayeux: Vec<Box<str>>,
    /// The client has everything of these patterns up to these positions. There are none if
    /// it gets all that is found.
    floors: Vec<(Pattern, Position)>,
}

impl Connect {
    /// An answer with these replies.
    #[must_use]
    pub fn new(replies: Vec<String>, floors: Vec<(Pattern, Position)>) -> Self {
        Self { bayeux: replies.into_iter().map(String::into_boxed_str).collect(), floors }
    }

    /// What [`save`](Renderer::save) has returned; `None` for another text.
    #[must_use]
    pub fn restore(saved: &str) -> Option<Self> {
        serde_json::from_str(saved).ok()
    }

    /// The replies, and after them these messages.
    fn answer(&self, messages: impl Iterator<Item = String>) -> String {
        let replies = self.bayeux.iter().map(|reply| reply.as_ref().to_owned());
        format!("[{}]", replies.chain(messages).collect::<Vec<_>>().join(","))
    }

    /// The same, but the connect has failed, and is to be tried again.
    fn failed(&self, error: &Error) -> Self {
        let mut bayeux = self.bayeux.clone();
        if let Some(connect) = bayeux.last_mut() {
            // It has the channel and the id, as the message to which it is the reply.
            let message = serde_json::from_str::<message::Message>(connect);
            let failed = message.map(|message| Reply::failed_by(&message, error).json());
            *connect = failed.unwrap_or_default().into_boxed_str();
        }
        Self { bayeux, floors: Vec::new() }
    }

    /// Whether the client has asked for it. It may have subscribed after the event.
    fn is_wanted(&self, one: &Occurrence) -> bool {
        let name = one.topic.as_str();
        let is_new = |(pattern, floor): &(Pattern, Position)| {
            let is_later = one.position > *floor;
            let is_found_again = one.until.is_some_and(|until| until > floor.cursor);
            (is_later || is_found_again) && pattern.matches(&one.topic)
        };
        let is_new = self.floors.is_empty() || self.floors.iter().any(is_new);
        is_new && !is_meta(name) && !is_service(name)
    }
}

/// A message for a client. It has no `successful`, by which clients know a reply.
fn delivery(one: &Occurrence) -> String {
    #[derive(Serialize)]
    struct Delivery<'a> {
        channel: &'a str,
        data: Box<RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ext: Option<serde_json::Value>,
    }
    let data = one.message.as_ref().map_or("null", |message| &message.data);
    let channel = one.topic.as_str();
    let ext = one.gap.then(|| json!({"gap": true}));
    serde_json::to_string(&Delivery { channel, data: as_json(data), ext }).unwrap_or_default()
}

/// JSON as it is, and any other text as a JSON string. JSON that a client may not publish, as
/// [`data`](super::message::Message::data) says, is text: a strict parser would not read the
/// whole answer.
fn as_json(text: &str) -> Box<RawValue> {
    serde_json::from_str::<Value>(text)
        .and_then(|_| RawValue::from_string(text.to_owned()))
        .or_else(|_| serde_json::value::to_raw_value(text))
        .unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl Renderer for Connect {
    fn head(&self) -> Head {
        Head::new(200, JSON)
    }

    fn render(&mut self, piece: &Piece) -> Vec<u8> {
        let events = match piece {
            Piece::Events { events, .. } => events.as_slice(),
            // Without an event, and pieces of others.
            _ => &[],
        };
        let wanted = events.iter().filter(|one| self.is_wanted(one)).map(delivery);
        self.answer(wanted).into_bytes()
    }

    fn size(&self, topic: &Topic, message: &Message) -> usize {
        const ENVELOPE: usize = r#"{"channel":"","data":"","ext":{"gap":true}},"#.len();
        let escaped = |byte: u8| match byte {
            b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        };
        let size = |text: &str| text.bytes().map(escaped).sum::<usize>();
        ENVELOPE + size(topic.as_str()) + size(&message.data)
    }

    /// The token of a session may expire while its request is held. The next one is told that
    /// the session is over. Any other error is in the reply to the connect: Faye on Node.js takes
    /// any JSON for replies, whatever the status, and would wait for the one that is missing.
    fn refuse(&self, error: &Error) -> Response {
        let none = std::iter::empty();
        self.head().body(match error.status() {
            401 => self.answer(none),
            _ => self.failed(error).answer(none),
        })
    }

    fn save(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cursor, Draft};

    fn position(micros: u64) -> Position {
        Position::after(Cursor::from_micros(1_795_415_403_163_846 + micros))
    }

    fn occurrence(topic: &str, data: Option<&str>, at: u64) -> Occurrence {
        let cursor = position(at).cursor;
        let message = data.map(|data| Draft::new(data).message(cursor));
        let topic = Topic::new(topic).unwrap();
        Occurrence { topic, cursor, position: position(at), message, gap: false, until: None }
    }

    fn text(connect: &mut Connect, events: Vec<Occurrence>) -> String {
        let piece = Piece::Events { events, position: position(9) };
        String::from_utf8(connect.render(&piece)).unwrap()
    }

    fn connect(floors: Vec<(Pattern, Position)>) -> Connect {
        Connect::new(vec![r#"{"channel":"/meta/connect"}"#.to_owned()], floors)
    }

    #[test]
    fn data_is_json_or_a_string() {
        for (data, json) in [
            (Some(r#"{"a": 1}"#), r#"{"a": 1}"#),
            (Some("\"a\""), "\"a\""),
            (Some("1e999"), "\"1e999\""),
            (Some(r#""\ud800""#), r#""\"\\ud800\"""#),
            (Some("a\"b\n"), r#""a\"b\n""#),
            (Some("{a"), "\"{a\""),
            (Some(""), "\"\""),
            (None, "null"),
        ] {
            let expected =
                format!(r#"[{{"channel":"/meta/connect"}},{{"channel":"/a","data":{json}}}]"#);
            assert_eq!(text(&mut connect(vec![]), vec![occurrence("/a", data, 1)]), expected);
        }
    }

    #[test]
    fn gap_is_told() {
        let one = Occurrence { gap: true, ..occurrence("/a", None, 1) };
        let told = text(&mut connect(vec![]), vec![one]);
        assert!(told.ends_with(r#"{"channel":"/a","data":null,"ext":{"gap":true}}]"#), "{told}");
    }

    #[test]
    fn client_gets_what_follows_its_subscription() {
        let floors = [("/a/*", 5), ("/a/old", 0), ("/b", 0), ("/meta/*", 0), ("/service/*", 0)];
        let floor = |(pattern, at)| (Pattern::segments(pattern).unwrap(), position(at));
        let floors = floors.map(floor).to_vec();
        let events = [
            ("/a/b", 5),
            ("/a/c", 6),
            ("/a/old", 1),
            ("/b", 1),
            ("/meta/connect", 6),
            ("/service/a", 6),
        ];
        let events = events.map(|(topic, at)| occurrence(topic, None, at)).to_vec();
        let told = text(&mut connect(floors), events);
        assert_eq!(told.matches("\"data\"").count(), 3, "{told}");
        for one in ["/a/c", "/a/old", "/b"] {
            assert!(told.contains(&format!("\"{one}\"")), "{told}");
        }
    }

    /// A touch has no place in the order, so its position is that of the whole request.
    #[test]
    fn touch_counts_by_the_time_until_it_is_found() {
        let floor = |pattern, at| (Pattern::segments(pattern).unwrap(), position(at));
        let floors = vec![floor("/a", 1), floor("/b", 5)];
        let touch = |until| {
            let until = Some(position(until).cursor);
            Occurrence { until, ..occurrence("/b", None, 1) }
        };
        assert!(text(&mut connect(floors.clone()), vec![touch(6)]).contains("/b"));
        assert!(!text(&mut connect(floors), vec![touch(4)]).contains("/b"));
    }

    #[test]
    fn size_is_at_least_that_of_the_text() {
        for data in ["", "a\"\\\n\u{1}é", "[1]"] {
            let one = Occurrence { gap: true, ..occurrence("/a\"b", Some(data), 1) };
            let size = connect(vec![]).size(&one.topic, one.message.as_ref().unwrap());
            assert!(size > delivery(&one).len(), "{data}");
        }
    }

    #[test]
    fn saved_answer_goes_on() {
        let connect = connect(vec![(Pattern::every(), position(1))]);
        assert_eq!(Connect::restore(&connect.save()), Some(connect));
        assert_eq!(Connect::restore("{\"mercure\":null}"), None);
    }
}

//! Server-Sent Events (WHATWG HTML §9.2): the parts of a stream become blocks
//! of lines, and an `id` becomes cursors again.

use std::fmt::Write;

use super::state::{newest, quiet, size};
use crate::cgi::Head;
use crate::error::Error;
use crate::event::{Cursor, Message, Since, Topic};
use crate::hub::{News, Part, Subscription};

/// How long a client waits before it reconnects, in seconds.
const RETRY: u32 = 1;

/// How much of one stream its `id`s take, in bytes; then the client comes back
/// with the last. Each has the cursors of all topics: without an end one request
/// for messages of a byte would be answered with hundreds of times as much.
const IDS: usize = 4_194_304;

/// A cursor in an `id`, and the `-` after it, in bytes.
const CURSOR: usize = "hof6g6si4m-".len();

/// What a stream begins with. Apache's `mod_deflate` holds an answer back until
/// it has 69 bytes of it or its end, even one that it is told not to compress:
/// with this line the beginning is never shorter.
const GREETING: &str = ": novcomet: events as they happen; a colon alone is a sign of life";

/// How the events of a stream look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One block for each event; `named` by its topic, or for `onmessage`.
    Events {
        /// Whether each event bears its topic's name.
        named: bool,
    },
    /// What a poll would have answered, in one block.
    Json,
}

impl Format {
    /// What a message takes in a stream of so many topics, in bytes.
    pub fn size(self, topics: usize) -> impl Fn(&Topic, &Message) -> usize {
        let id = "id: ".len() + topics * CURSOR;
        move |topic, message| {
            let name = match self {
                Self::Json => return size(topic, message),
                Self::Events { named: true } => "event: \n".len() + topic.as_str().len(),
                Self::Events { named: false } => 0,
            };
            let line = |line: &str| "data: \n".len() - usize::from(line.is_empty()) + line.len();
            name + id + lines(&message.data).map(line).sum::<usize>() + 1
        }
    }
}

/// The head of a stream.
#[must_use]
pub fn head() -> Head {
    // nginx, in front of us, would collect the stream otherwise.
    Head::new(200, "text/event-stream").header("X-Accel-Buffering", "no")
}

/// Takes the cursors of an `id` of ours for those of `subscribed`.
///
/// # Errors
/// [`Error::BadRequest`] if it is none, or one of other topics.
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

/// Writes a stream; knows where its client stands.
pub struct Writer {
    format: Format,
    retry: u32,
    standing: Vec<(Topic, Cursor)>,
    /// What its `id`s have taken, in bytes.
    ids: usize,
}

impl Writer {
    /// A stream that has not begun; after its end the client is to reconnect
    /// in `retry_after` seconds, if it is not to do so soon.
    #[must_use]
    pub fn new(format: Format, retry_after: Option<u32>) -> Self {
        Self { format, retry: retry_after.unwrap_or(RETRY), standing: Vec::new(), ids: 0 }
    }

    /// Whether this stream has said enough.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.ids >= IDS
    }

    /// The lines of one part.
    pub fn write(&mut self, part: &Part) -> String {
        let mut text = String::new();
        match part {
            Part::Begin(standing) => {
                self.standing.clone_from(standing);
                let _ = write!(text, "{GREETING}\nretry: {}000\n", self.retry);
                let data = (self.format == Format::Json).then(|| quiet(standing));
                self.block(&mut text, None, data.as_deref());
            }
            Part::Alive => text.push_str(":\n\n"),
            Part::News(news) if self.format == Format::Json => {
                for News { topic, cursor, .. } in news {
                    self.advance(topic, *cursor);
                }
                self.block(&mut text, None, Some(&newest(news)));
            }
            Part::News(news) => news.iter().for_each(|news| self.news(&mut text, news)),
        }
        text
    }

    fn news(&mut self, text: &mut String, news: &News) {
        let name = news.topic.as_str();
        let event = (self.format == Format::Events { named: true }).then_some(name);
        if news.gap {
            self.block(text, Some("gap"), Some(name));
        }
        for message in &news.messages {
            self.advance(&news.topic, message.id);
            self.block(text, event, Some(&message.data));
        }
        if news.messages.last().is_none_or(|last| last.id < news.cursor) {
            self.advance(&news.topic, news.cursor);
            // After a gap and no message there may have been no event either.
            if !news.gap || !news.messages.is_empty() {
                self.block(text, event, Some(""));
            }
        }
    }

    fn advance(&mut self, topic: &Topic, cursor: Cursor) {
        for (known, standing) in &mut self.standing {
            if known == topic {
                *standing = cursor;
            }
        }
    }

    /// `event:`, `id:`, a `data:` for each line, and the empty line that
    /// dispatches them. An empty `id:` would make the client forget its last.
    fn block(&mut self, text: &mut String, event: Option<&str>, data: Option<&str>) {
        if let Some(event) = event {
            let _ = writeln!(text, "event: {event}");
        }
        let ids: Vec<_> = self.standing.iter().map(|(_, cursor)| Base36(*cursor).text()).collect();
        if !ids.is_empty() {
            let id = ids.join("-");
            self.ids += id.len();
            let _ = writeln!(text, "id: {id}");
        }
        for line in data.into_iter().flat_map(lines) {
            let _ = match line {
                "" => writeln!(text, "data:"),
                line => writeln!(text, "data: {line}"),
            };
        }
        text.push('\n');
    }
}

/// The lines of a message, as the receiver will put them together again: it
/// takes CRLF, LF and CR alike for their ends.
fn lines(data: &str) -> impl Iterator<Item = &str> {
    data.split("\r\n").flat_map(|part| part.split(['\n', '\r']))
}

/// A cursor's microseconds in base 36, as JavaScript's `toString(36)` has it.
struct Base36(Cursor);

impl Base36 {
    fn text(&self) -> String {
        let mut digits = Vec::new();
        let mut left = self.0.micros();
        while left > 0 || digits.is_empty() {
            digits.push(char::from_digit(u32::try_from(left % 36).unwrap_or(0), 36));
            left /= 36;
        }
        digits.into_iter().rev().flatten().collect()
    }
}

fn cursor(text: &str) -> Option<Cursor> {
    let digits = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let micros = u64::from_str_radix(text, 36).ok().filter(|_| digits)?;
    Some(Cursor::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Message;

    fn at(micros: u64) -> Cursor {
        Cursor::from_micros(1_795_415_403_000_000 + micros)
    }

    fn topic(name: &str) -> Topic {
        Topic::new(name).unwrap()
    }

    fn begun(format: Format) -> Writer {
        let mut writer = Writer::new(format, None);
        let standing = vec![(topic("a"), at(163_846)), (topic("b"), Cursor::SMALLEST)];
        let _ = writer.write(&Part::Begin(standing));
        writer
    }

    fn news(messages: &[(u64, &str)], cursor: u64, gap: bool) -> Part {
        let message = |&(id, data): &(u64, &str)| Message::new(at(id), data);
        let messages = messages.iter().map(message).collect();
        Part::News(vec![News { topic: topic("a"), cursor: at(cursor), messages, gap }])
    }

    #[test]
    fn an_id_is_taken_back_for_the_same_topics_only() {
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
    fn the_beginning_is_long_enough_for_mod_deflate() {
        let text =
            Writer::new(Format::Events { named: true }, None).write(&Part::Begin(Vec::new()));
        assert!(text.len() > 68, "{text}");
    }

    #[test]
    fn without_a_place_to_stand_there_is_no_id() {
        let text = Writer::new(Format::Json, None).write(&Part::Begin(Vec::new()));
        assert_eq!(text, format!("{GREETING}\nretry: 1000\ndata: {{\"s\":0,\"k\":{{}}}}\n\n"));
    }

    #[test]
    fn a_message_has_a_data_line_for_each_of_its_lines() {
        let mut writer = begun(Format::Events { named: false });
        let text = writer.write(&news(&[(163_847, "\none\r\ntwo\rthree\n")], 163_847, false));
        assert_eq!(
            text,
            "id: hof6g6si4n-255s\ndata:\ndata: one\ndata: two\ndata: three\ndata:\n\n"
        );
    }

    #[test]
    fn a_size_is_what_is_sent() {
        for named in [true, false] {
            let format = Format::Events { named };
            let mut writer = begun(format);
            let standing = vec![(topic("a"), at(163_846)), (topic("b"), at(163_846))];
            let _ = writer.write(&Part::Begin(standing));
            for data in ["", "one", "\none\r\ntwo\rthree\n", "\n\n\n"] {
                let text = writer.write(&news(&[(163_847, data)], 163_847, false));
                let message = Message::new(at(163_847), data);
                assert_eq!(format.size(2)(&topic("a"), &message), text.len(), "{text:?}");
            }
        }
    }

    #[test]
    fn a_gap_comes_before_what_there_is() {
        let mut writer = begun(Format::Events { named: true });
        let text = writer.write(&news(&[(163_847, "one")], 163_847, true));
        let gap = "event: gap\nid: hof6g6si4m-255s\ndata: a\n\n";
        assert_eq!(text, format!("{gap}event: a\nid: hof6g6si4n-255s\ndata: one\n\n"));
    }

    #[test]
    fn an_event_without_a_message_has_no_data() {
        let mut writer = begun(Format::Events { named: true });
        let text = writer.write(&news(&[], 163_847, false));
        assert_eq!(text, "event: a\nid: hof6g6si4n-255s\ndata:\n\n");
    }
}

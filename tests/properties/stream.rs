//! An `EventSource` receives exactly the events of a stream, wherever the stream is cut. From
//! the last received `id`, the stream continues where it ended.

use arbitrary::{Result, Unstructured};
use novcomet::event::{Cursor, Message, Since, Topic};
use novcomet::hub::{Piece, Renderer, Subscription, Update};
use novcomet::protocol::novcomet::{EventStream, Format, resume};
use serde_json::{Value, json};

use super::cursor::EXACT;

/// In larger streams, not every place to cut is tried, in bytes.
const SHORT: usize = 150;

pub fn holds(input: &[u8]) {
    let mut u = Unstructured::new(input);
    let Ok((format, parts)) = story(&mut u) else { return };
    let mut stream = EventStream::new(format, 3);
    let bytes = parts.iter().flat_map(|part| stream.render(part)).collect();
    let text = String::from_utf8(bytes).unwrap();
    let (expected, topics) = Expected::of(format, &parts);
    assert!(!text.contains('\r') && text.ends_with("\n\n"));
    let heard = EventSource::hear(&[text.as_bytes()]);
    assert_eq!(heard.retry, Some(1000));
    assert!(heard.events.iter().map(|event| event.meant(format)).eq(expected.events), "{text:?}");
    for (event, standing) in heard.events.iter().zip(&expected.standings) {
        assert_eq!(resumed(&topics, &event.id), *standing, "{text:?}");
    }
    is_the_same_in_pieces(text.as_bytes(), &heard);
}

/// libFuzzer and random numbers generate their own events.
pub fn case(u: &mut Unstructured) -> Result<Vec<u8>> {
    let length = u.int_in_range(0..=400)?.min(u.len());
    u.bytes(length).map(<[u8]>::to_vec)
}

fn story(u: &mut Unstructured) -> Result<(Format, Vec<Piece>)> {
    let format = match u.int_in_range(0..=3)? {
        0 => Format::Json,
        1 => Format::Events { named: false },
        _ => Format::Events { named: true },
    };
    let mut standing = Vec::new();
    for number in 0..u.int_in_range(1..=3)? {
        let name = format!("{number}{}", u.arbitrary::<String>()?);
        let name = if u.ratio(1, 4)? { name[1..].to_owned() } else { name };
        let topic =
            Topic::new(name).unwrap_or_else(|_| Topic::new(format!(" {number}: x")).unwrap());
        if standing.iter().all(|(known, _)| *known != topic) {
            standing.push((topic, Cursor::from_micros(u.int_in_range(0..=EXACT / 2)?)));
        }
    }
    let mut parts = vec![Piece::Start { cursors: standing.clone(), retry_after: None }];
    for _ in 0..u.int_in_range(0..=4)? {
        parts.push(match u.ratio(1, 5)? {
            true => Piece::Heartbeat,
            false => Piece::Updates(news(u, &mut standing)?),
        });
    }
    Ok((format, parts))
}

fn news(u: &mut Unstructured, standing: &mut [(Topic, Cursor)]) -> Result<Vec<Update>> {
    let mut all = Vec::new();
    for (topic, cursor) in standing {
        if u.ratio(1, 3)? {
            continue;
        }
        let mut messages = Vec::new();
        for _ in 0..u.int_in_range(0..=3)? {
            *cursor = Cursor::from_micros(cursor.micros() + u.int_in_range(1..=9)?);
            messages.push(Message::new(*cursor, data(u)?));
        }
        let gap = u.ratio(1, 4)?;
        if messages.is_empty() || u.ratio(1, 3)? {
            *cursor = Cursor::from_micros(cursor.micros() + 1);
        }
        all.push(Update { topic: topic.clone(), cursor: *cursor, messages, gap });
    }
    Ok(all)
}

fn data(u: &mut Unstructured) -> Result<String> {
    let pieces =
        ["\n", "\r", "\r\n", "data: ", ":", " ", "\0", "\u{feff}", "é", "id: 5", "x", "\u{2028}"];
    match u.arbitrary()? {
        true => u.arbitrary(),
        false => super::joined(u, &pieces, 6).map(|bytes| String::from_utf8(bytes).unwrap()),
    }
}

/// The events that a client should receive, and its cursors after each.
struct Expected {
    events: Vec<(String, Value)>,
    standings: Vec<Vec<Cursor>>,
}

impl Expected {
    fn of(format: Format, parts: &[Piece]) -> (Self, Vec<Topic>) {
        let mut expected = Self { events: Vec::new(), standings: Vec::new() };
        let (topics, mut at): (Vec<_>, Vec<_>) = match &parts[0] {
            Piece::Start { cursors, .. } => cursors.iter().cloned().unzip(),
            other => panic!("{other:?}"),
        };
        if format == Format::Json {
            let k: Value =
                topics.iter().zip(&at).map(|(topic, at)| (topic.as_str(), number(*at))).collect();
            expected.push("message", json!({"s": 0, "k": k}), &at);
        }
        let news = parts.iter().filter_map(|part| match part {
            Piece::Updates(all) => Some(all),
            _ => None,
        });
        for all in news {
            for news in all {
                expected.news(format, &topics, &mut at, news);
            }
            if format == Format::Json {
                expected.push("message", poll(all), &at);
            }
        }
        (expected, topics)
    }

    fn push(&mut self, kind: &str, data: Value, at: &[Cursor]) {
        self.events.push((kind.to_owned(), data));
        self.standings.push(at.to_vec());
    }

    fn news(&mut self, format: Format, topics: &[Topic], at: &mut [Cursor], news: &Update) {
        if format == Format::Json {
            *place(topics, at, news) = news.cursor;
            return;
        }
        let is_named = format == Format::Events { named: true };
        let kind = if is_named { news.topic.as_str() } else { "message" };
        if news.gap {
            self.push("gap", news.topic.as_str().into(), at);
        }
        for message in &news.messages {
            *place(topics, at, news) = message.id;
            let data = message.data.replace("\r\n", "\n").replace('\r', "\n");
            self.push(kind, data.into(), at);
        }
        let is_told = news.messages.last().is_some_and(|last| last.id == news.cursor);
        *place(topics, at, news) = news.cursor;
        if !is_told && (!news.gap || !news.messages.is_empty()) {
            self.push(kind, "".into(), at);
        }
    }
}

fn place<'a>(topics: &[Topic], at: &'a mut [Cursor], news: &Update) -> &'a mut Cursor {
    let place = topics.iter().position(|topic| *topic == news.topic).unwrap();
    &mut at[place]
}

/// The answer of a poll, with its numbers as JavaScript has them.
fn poll(all: &[Update]) -> Value {
    let k = |news: &Update| (news.topic.as_str().to_owned(), number(news.cursor));
    let mut poll = json!({"s": 1, "k": all.iter().map(k).collect::<Value>()});
    let messages = |news: &Update| -> Value {
        let message = |it: &Message| json!({"id": number(it.id), "data": it.data});
        news.messages.iter().map(message).collect()
    };
    for news in all.iter().filter(|news| !news.messages.is_empty()) {
        poll["m"][news.topic.as_str()] = messages(news);
    }
    let gap: Vec<_> = all.iter().filter(|news| news.gap).map(|news| news.topic.as_str()).collect();
    if !gap.is_empty() {
        poll["gap"] = json!(gap);
    }
    poll
}

fn number(cursor: Cursor) -> Value {
    json!(cursor.to_string().parse::<f64>().unwrap())
}

/// The cursors of a client that sends this `id`.
fn resumed(topics: &[Topic], id: &str) -> Vec<Cursor> {
    let subscription = |topic: &Topic| Subscription { topic: topic.clone(), since: Since::Now };
    let mut subscribed: Vec<_> = topics.iter().map(subscription).collect();
    resume(id, &mut subscribed).unwrap();
    subscribed.iter().map(|it| it.since.cursor().unwrap()).collect()
}

/// The result is the same in two pieces and byte by byte. After each byte, the last `id` is
/// that of the last received event.
fn is_the_same_in_pieces(text: &[u8], whole: &EventSource) {
    for cut in (0..=text.len()).filter(|_| text.len() <= SHORT) {
        let (one, other) = text.split_at(cut);
        assert_eq!(EventSource::hear(&[one, other]).events, whole.events);
    }
    let mut source = EventSource::default();
    let begin = (0..=text.len()).find(|&end| text[..end].ends_with(b"\n\n")).unwrap();
    for (end, byte) in text.iter().enumerate() {
        source.take(*byte);
        if let Some(last) = source.events.last() {
            assert_eq!(source.last_id, last.id);
        }
        assert_eq!(end + 1 < begin, source.last_id.is_empty());
    }
    assert_eq!(source.events, whole.events);
}

/// The interpretation of an event stream, HTML (WHATWG) §9.2.6.
#[derive(Default)]
pub struct EventSource {
    line: Vec<u8>,
    after_return: bool,
    data: String,
    kind: String,
    id: String,
    last_id: String,
    pub retry: Option<u64>,
    pub events: Vec<Heard>,
}

#[derive(Debug, PartialEq)]
pub struct Heard {
    pub kind: String,
    pub data: String,
    pub id: String,
}

impl Heard {
    fn meant(&self, format: Format) -> (String, Value) {
        let data = match format {
            Format::Json => serde_json::from_str(&self.data).unwrap(),
            Format::Events { .. } => Value::from(self.data.as_str()),
        };
        (self.kind.clone(), data)
    }
}

impl EventSource {
    pub fn hear(pieces: &[&[u8]]) -> Self {
        let mut source = Self::default();
        pieces.iter().flat_map(|piece| piece.iter()).for_each(|byte| source.take(*byte));
        source
    }

    /// Lines end with a line feed, a carriage return, or both.
    fn take(&mut self, byte: u8) {
        let ends_pair = std::mem::replace(&mut self.after_return, byte == b'\r') && byte == b'\n';
        match byte {
            b'\n' if ends_pair => {}
            b'\n' | b'\r' => {
                let line = String::from_utf8(std::mem::take(&mut self.line)).unwrap();
                self.process(&line);
            }
            byte => self.line.push(byte),
        }
    }

    fn process(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => self.dispatch(),
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data += value;
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" => self.retry = value.parse().ok(),
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        self.last_id.clone_from(&self.id);
        let kind = std::mem::take(&mut self.kind);
        let data = std::mem::take(&mut self.data);
        if let Some(data) = data.strip_suffix('\n') {
            let kind = if kind.is_empty() { "message".to_owned() } else { kind };
            self.events.push(Heard { kind, data: data.to_owned(), id: self.last_id.clone() });
        }
    }
}

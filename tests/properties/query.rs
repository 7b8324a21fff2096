//! A request is a command that remains the same when it is written out again, or it is refused
//! as the client's fault. The refusal is JSON, and no header repeats the request.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use arbitrary::Unstructured;
use novcomet::cgi::{Body, Request};
use novcomet::error::Error;
use novcomet::event::{Since, Topic};
use novcomet::hub::{Publication, Subscription};
use novcomet::protocol::Protocol;
use novcomet::protocol::novcomet::{
    self as protocol, Command, Format, Inquiry, MAX_BATCH, NovComet,
};

const MAX_DATA: usize = 65_536;
const HEAD: &str = "Content-Type: application/problem+json\r\n\
    Cache-Control: no-store, no-cache, must-revalidate, no-transform\r\n\
    Pragma: no-cache\r\nExpires: 0\r\nX-Content-Type-Options: nosniff";
const ALLOW: &str = "\r\nAllow: GET, HEAD, POST, OPTIONS";
const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// The first lines of a request are its variables. The rest is its body.
const NAMES: [&str; 6] = [
    "QUERY_STRING",
    "REQUEST_METHOD",
    "CONTENT_TYPE",
    "HTTP_ACCEPT",
    "HTTP_LAST_EVENT_ID",
    "CONTENT_LENGTH",
];

/// Variables, and a body. An empty `CONTENT_LENGTH` is the body's own length.
#[derive(Clone, Default)]
struct Wire<'a>([&'a [u8]; 7]);

pub fn holds(input: &[u8]) {
    let wire = Wire::of(input);
    let command = wire.request().and_then(|request| {
        let command = protocol::parse(&request, MAX_DATA)?;
        says_what_was_asked(
            &wire.parameters(&request),
            wire.message(&request).as_deref(),
            &command,
        );
        Ok(command)
    });
    match command {
        Ok(command) => comes_back(&command),
        Err(error) => is_refused(&error),
    }
}

pub fn case(u: &mut Unstructured) -> arbitrary::Result<Vec<u8>> {
    let mut parts =
        vec![query(u)?, u.choose(&["GET", "POST", "HEAD", "OPTIONS", ""])?.as_bytes().to_vec()];
    let types = ["", "application/x-www-form-urlencoded", "text/plain", "Multipart/x", "a;b"];
    parts.push(u.choose(&types)?.as_bytes().to_vec());
    parts.push(u.choose(&["", "text/event-stream", "*/*"])?.as_bytes().to_vec());
    parts.push(super::joined(u, &["255s", "-", "hof6g6si4m", "zz", "é"], 5)?);
    parts.push(u.choose(&["", "", "", "0", "-1", "99999999", "5"])?.as_bytes().to_vec());
    parts.push(match u.int_in_range(0..=3)? {
        0 | 1 => query(u)?,
        2 => [b"data=", query(u)?.as_slice()].concat(),
        _ => u.arbitrary::<String>()?.into(),
    });
    Ok(parts.join(&0))
}

fn query(u: &mut Unstructured) -> arbitrary::Result<Vec<u8>> {
    let pieces = [
        "publish=",
        "subscribed[",
        "]=",
        "subscribed%5B",
        "%5D=",
        "&",
        "&",
        "&",
        "=",
        "[",
        "]",
        "][",
        "a",
        "b",
        "é",
        "%C3%A9",
        "%FF",
        "%",
        "%0A",
        "+",
        "data=",
        "batch=",
        "about=1",
        "metrics=1",
        "health=1",
        "info[a]=1&info[b/c]=1",
        "topics=news/&after=news/a",
        "[{\"publish\":\"a\"}]",
        "wait=",
        "1",
        "0",
        ".",
        "1795415403.163846",
        "earliest",
        "latest",
        "stream=",
        "json",
        "named=",
        "Last-Event-ID=",
        "255s",
        "-",
        "%2F",
        "/",
    ];
    if u.ratio(1, 4)? {
        return super::joined(u, &pieces, 12);
    }
    let pairs = (0..u.int_in_range(0..=5)?).map(|_| pair(u)).collect::<Result<Vec<_>, _>>()?;
    Ok(pairs.join("&").into())
}

/// A parameter as a client sends it.
fn pair(u: &mut Unstructured) -> arbitrary::Result<String> {
    let id = match u.arbitrary()? {
        true => u.arbitrary::<String>()?,
        false => (*u.choose(&["a", "b", "a/b", "a][b", "é", "..", "%"])?).to_owned(),
    };
    let cursor =
        u.choose(&["", "0", "1", "earliest", "latest", "1795415403.163846", "0.1", "x"])?;
    Ok(match u.int_in_range(0..=10)? {
        0..=3 => format!("subscribed[{}]={cursor}", encoded(&id)),
        4 => format!("{}={cursor}", encoded(&format!("subscribed[{id}]"))),
        5 | 6 => format!("publish={}", encoded(&id)),
        7 => format!("data={}", encoded(&id)),
        8 => format!("batch={}", encoded(&batch(u, &id)?)),
        9 => format!("wait={}", u.choose(&["0", "1", "0.25", "7.", "1e9", "99999999999"])?),
        _ => (*u.choose(&[
            "stream=1",
            "stream=0",
            "stream=json",
            "named=0",
            "about=1",
            "health=1",
            "topics=x",
            "x=y",
        ])?)
        .to_owned(),
    })
}

/// A batch, sometimes with something in it that is no message.
fn batch(u: &mut Unstructured, id: &str) -> arbitrary::Result<String> {
    let entry = |u: &mut Unstructured| {
        Ok(match u.int_in_range(0..=5)? {
            0 => u.choose(&["1", "[\"a\"]", "{}", "{\"publish\":1}", "x", ""])?.to_string(),
            1 => serde_json::json!({"data": id, "publish": "a", "x": [id]}).to_string(),
            _ => serde_json::json!({"publish": id}).to_string(),
        })
    };
    let count = *u.choose(&[0, 1, 1, 2, 3, MAX_BATCH, MAX_BATCH + 1])?;
    let entries = (0..count).map(|_| entry(u)).collect::<arbitrary::Result<Vec<_>>>()?;
    Ok(format!("[{}]", entries.join(",")))
}

impl<'a> Wire<'a> {
    fn of(input: &'a [u8]) -> Self {
        let mut wire = Self::default();
        for (part, given) in wire.0.iter_mut().zip(input.splitn(7, |&byte| byte == 0)) {
            *part = given;
        }
        wire
    }

    fn request(&self) -> Result<Request, Error> {
        let length = self.0[6].len().to_string();
        let variable = |name: &str| {
            let found = NAMES.iter().position(|known| *known == name)?;
            let value = match self.0[found] {
                b"" if name == "CONTENT_LENGTH" => length.as_bytes(),
                value => value,
            };
            Some(OsString::from_vec(value.to_vec()))
        };
        let mut request = Request::from_env(variable).expect("a query is a request");
        request.receive(self.0[6], 3 * MAX_DATA + 8_192)?;
        Ok(request)
    }

    /// Every parameter, decoded: those of the query, then those of a body that is a form. With a
    /// topic in the query, it is none, whatever it contains.
    fn parameters(&self, request: &Request) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut given = pairs(self.0[0]);
        match &request.body {
            Body::Form(form) if !names_topic(&given) => given.extend(pairs(form.as_bytes())),
            _ => {}
        }
        given
    }

    /// The message, by the query, the declared type, and the first letters of the body.
    fn message(&self, request: &Request) -> Option<Vec<u8>> {
        let query = pairs(self.0[0]);
        let kind = self.0[2].split(|&byte| byte == b';').next().unwrap();
        let is_declared = kind.trim_ascii().eq_ignore_ascii_case(FORM);
        let last =
            |given: &[Pair]| Some(given.iter().rfind(|(name, _)| name == b"data")?.1.clone());
        match &request.body {
            Body::Form(form) if !names_topic(&query) => {
                last(&pairs(form.as_bytes())).or_else(|| last(&query))
            }
            Body::Form(form) if is_declared && form.starts_with("data=") => {
                Some(pairs(form.as_bytes()).swap_remove(0).1)
            }
            Body::Form(text) | Body::Text(text) => Some(text.clone().into()),
            Body::Empty => last(&query),
        }
    }
}

/// A name and its value.
type Pair = (Vec<u8>, Vec<u8>);

fn pairs(encoded: &[u8]) -> Vec<Pair> {
    let pairs = encoded.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty());
    let pair = |pair: &[u8]| {
        let equals = pair.iter().position(|&byte| byte == b'=').unwrap_or(pair.len());
        (decoded(&pair[..equals]), decoded(pair.get(equals + 1..).unwrap_or_default()))
    };
    pairs.map(pair).collect()
}

fn names_topic(query: &[Pair]) -> bool {
    query.iter().any(|(name, id)| name == b"publish" && !id.is_empty())
}

/// Decodes as <https://url.spec.whatwg.org/#urlencoded-parsing> specifies.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).filter(|code| code.iter().all(u8::is_ascii_hexdigit));
        (bytes, rest) = match (first, code) {
            (b'%', Some(code)) => {
                let code = u8::from_str_radix(std::str::from_utf8(code).unwrap(), 16).unwrap();
                ([bytes, vec![code]].concat(), &after[2..])
            }
            (b'+', _) => ([bytes, vec![b' ']].concat(), after),
            (byte, _) => ([bytes, vec![byte]].concat(), after),
        };
    }
    bytes
}

fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte.is_ascii_alphanumeric() {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02x}"),
    };
    text.bytes().map(byte).collect()
}

/// The topics are those of the parameters, in the order of their first names.
fn says_what_was_asked(given: &[Pair], message: Option<&[u8]>, command: &Command) {
    let values =
        |name: &'static [u8]| given.iter().filter(move |(known, _)| known == name).map(|(_, v)| v);
    let published = distinct(values(b"publish").filter(|id| !id.is_empty()).cloned());
    let inner = |(name, _): &Pair| {
        let id = name.strip_prefix(b"subscribed[")?.strip_suffix(b"]");
        id.map(<[u8]>::to_vec)
    };
    let subscribed = distinct(given.iter().filter_map(inner));
    match command {
        Command::Publish { topics, data, .. } => {
            assert!(topics.iter().map(bytes_of).eq(published));
            assert_eq!(data.as_deref().map(str::as_bytes), message);
        }
        Command::Batch(entries) => {
            assert!(published.is_empty());
            has_the_messages(entries, values(b"batch").next_back().unwrap());
        }
        Command::Poll(topics, _) | Command::Stream(topics, ..) => {
            assert!(published.is_empty() && !topics.is_empty());
            assert!(topics.iter().map(|it| bytes_of(&it.topic)).eq(subscribed));
        }
        Command::PollMatching(wish, _) | Command::StreamMatching(wish, ..) => {
            let names = [&b"matching"[..], b"template", b"urlpattern"];
            let given = names.iter().map(|name| values(name).count()).sum::<usize>();
            assert!(published.is_empty() && subscribed.is_empty());
            assert_eq!(wish.patterns.len(), given);
        }
        Command::About => {
            assert!(published.is_empty() && subscribed.is_empty());
            assert_eq!(values(b"about").next_back().map(Vec::as_slice), Some(&b"1"[..]));
        }
        Command::Ask(inquiry) => {
            assert!(published.is_empty() && subscribed.is_empty());
            is_what_was_asked(inquiry, given);
        }
        Command::Head(command) => {
            let is_about = matches!(**command, Command::About | Command::Ask(_));
            assert!(is_about || !published.is_empty() || !subscribed.is_empty());
        }
        Command::Options => {}
    }
}

fn is_what_was_asked(inquiry: &Inquiry, given: &[Pair]) {
    let last = |name: &[u8]| given.iter().rfind(|(known, _)| known == name).map(|(_, v)| &v[..]);
    match inquiry {
        Inquiry::Metrics => assert_eq!(last(b"metrics"), Some(&b"1"[..])),
        Inquiry::Health => assert_eq!(last(b"health"), Some(&b"1"[..])),
        Inquiry::Topics { prefix, .. } => assert_eq!(last(b"topics"), Some(prefix.as_bytes())),
        Inquiry::Info(topics) | Inquiry::Who(topics) => {
            let is_who = matches!(inquiry, Inquiry::Who(_));
            let beginning: &[u8] = if is_who { b"who[" } else { b"info[" };
            let is_asked = |(name, _): &&Pair| name.starts_with(beginning);
            let names: std::collections::BTreeSet<_> = given.iter().filter(is_asked).collect();
            assert!((1..=names.len()).contains(&topics.len()));
        }
    }
}

/// Each message is in its place. A refused one is the client's fault.
fn has_the_messages(entries: &[Result<Publication, Error>], json: &[u8]) {
    let given: Vec<serde_json::Value> = match serde_json::from_slice(json) {
        Ok(given) => given,
        // A lone surrogate is no text, but only its own message is refused.
        Err(_) => return assert!(entries.iter().any(Result::is_err)),
    };
    assert!((1..=MAX_BATCH).contains(&given.len()) && entries.len() == given.len());
    for (entry, given) in entries.iter().zip(&given) {
        match entry {
            Ok(Publication { topic, data }) => {
                assert_eq!(given["publish"], topic.as_str());
                assert_eq!(given["data"].as_str(), data.as_deref());
            }
            Err(error) => is_refused(error),
        }
    }
}

fn bytes_of(topic: &Topic) -> Vec<u8> {
    topic.as_str().into()
}

fn distinct(ids: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    ids.fold(Vec::new(), |mut known, id| {
        if !known.contains(&id) {
            known.push(id);
        }
        known
    })
}

/// The command remains the same when it is written out as a form.
fn comes_back(command: &Command) {
    let form = match command {
        Command::Publish { topics, data, .. } => {
            let topics = topics.iter().map(|topic| format!("publish={}", encoded(topic.as_str())));
            let data = data.iter().map(|data| format!("data={}", encoded(data)));
            topics.chain(data).collect::<Vec<_>>().join("&")
        }
        Command::Batch(entries) => {
            let json = |entry: &Result<Publication, Error>| entry.as_ref().ok().map(json_of);
            let Some(batch) = entries.iter().map(json).collect::<Option<serde_json::Value>>()
            else {
                return;
            };
            format!("batch={}", encoded(&batch.to_string()))
        }
        Command::Poll(topics, wait) => subscriptions(topics, *wait),
        Command::Stream(topics, wait, format) => {
            let format = match format {
                Format::Json => "stream=json",
                Format::Events { named: true } => "stream=1",
                Format::Events { named: false } => "stream=1&named=0",
            };
            format!("{}&{format}", subscriptions(topics, *wait))
        }
        Command::About => "about=1".to_owned(),
        Command::Ask(inquiry) => asked(inquiry),
        // Patterns are not kept as their texts.
        Command::Head { .. }
        | Command::Options
        | Command::PollMatching(..)
        | Command::StreamMatching(..) => return,
    };
    let wire = Wire([b"", b"POST", FORM, b"", b"", b"", form.as_bytes()]);
    let again = wire.request().and_then(|request| protocol::parse(&request, MAX_DATA));
    if form.len() <= 3 * MAX_DATA + 8_192 {
        assert_eq!(again.ok(), Some(posted(command)), "{form}");
    }
}

fn each(name: &str, topics: &[Topic]) -> String {
    let one = |topic: &Topic| format!("{name}[{}]=1", encoded(topic.as_str()));
    topics.iter().map(one).collect::<Vec<_>>().join("&")
}

fn asked(inquiry: &Inquiry) -> String {
    match inquiry {
        Inquiry::Metrics => "metrics=1".to_owned(),
        Inquiry::Health => "health=1".to_owned(),
        Inquiry::Topics { prefix, after } => {
            format!("topics={}&after={}", encoded(prefix), encoded(after))
        }
        Inquiry::Info(topics) => each("info", topics),
        Inquiry::Who(topics) => each("who", topics),
    }
}

fn json_of(Publication { topic, data }: &Publication) -> serde_json::Value {
    match data {
        Some(data) => serde_json::json!({"publish": topic.as_str(), "data": data}),
        None => serde_json::json!({"publish": topic.as_str()}),
    }
}

/// The same command by POST: its answer has the cursors.
fn posted(command: &Command) -> Command {
    let mut command = command.clone();
    if let Command::Publish { is_brief, .. } = &mut command {
        *is_brief = false;
    }
    command
}

fn subscriptions(topics: &[Subscription], wait: Option<Duration>) -> String {
    let cursor = |since| match since {
        Since::Now => String::new(),
        Since::Second(second) => second.to_string(),
        Since::Cursor(cursor) | Since::Order(cursor) => cursor.to_string(),
        Since::Earliest => "earliest".to_owned(),
        Since::Latest => "latest".to_owned(),
    };
    let topics = topics
        .iter()
        .map(|it| format!("subscribed[{}]={}", encoded(it.topic.as_str()), cursor(it.since)));
    let wait = wait.map(|wait| format!("wait={}.{:09}", wait.as_secs(), wait.subsec_nanos()));
    topics.chain(wait).collect::<Vec<_>>().join("&")
}

/// The client is told its fault, and the error log remains empty.
fn is_refused(error: &Error) {
    let status = error.status();
    assert!((400..500).contains(&status) && error.log_line().is_none(), "{error:?}");
    let answer = String::from_utf8(NovComet.refuse(error).bytes()).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let problem: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    let title = problem["title"].as_str().unwrap();
    let allow = if status == 405 { ALLOW } else { "" };
    let length = format!("\r\nContent-Length: {}", body.len());
    assert_eq!(head, format!("Status: {status} {title}\r\n{HEAD}{allow}{length}"));
    assert!(title.chars().all(|c| c.is_ascii_alphabetic() || c == ' '));
}

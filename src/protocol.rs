//! The wire: a request becomes a [`Command`], an [`Outcome`] an answer.
//! docs/protocol.md has every byte of it.

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;
use url::form_urlencoded;

use crate::cgi::{Head, METHODS, Method, Request, Response, status_line};
use crate::error::Error;
use crate::event::{Cursor, Event, Since, Topic};
use crate::hub::{Outcome, Subscription};

const JSON: &str = "application/json; charset=utf-8";
/// RFC 9457 §3.
const PROBLEM: &str = "application/problem+json";

/// What the client wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// To make these events happen.
    Publish(Vec<Topic>),
    /// To hear of these topics, waiting at most this long if it says so.
    Subscribe(Vec<Subscription>, Option<Duration>),
    /// The head of an answer to GET (RFC 9110 §9.3.2). It is a safe method:
    /// it publishes nothing and waits for nothing.
    Head,
    /// To know which methods there are (RFC 9110 §9.3.7).
    Options,
}

/// Reads the query and the form; `publish` wins over `subscribed`, as in 2011.
///
/// # Errors
/// [`Error::BadRequest`] with what is wrong.
pub fn parse(request: &Request) -> Result<Command, Error> {
    if request.method == Method::Options {
        return Ok(Command::Options);
    }
    let mut parameters = Parameters::default();
    for pair in [&request.query, &request.form]
        .into_iter()
        .flat_map(|part| part.split(|&byte| byte == b'&'))
    {
        parameters.take(pair)?;
    }
    parameters.command(request.method)
}

#[derive(Default)]
struct Parameters {
    publish: Vec<Topic>,
    subscribed: Vec<Subscription>,
    wait: Option<Duration>,
}

impl Parameters {
    fn command(self, method: Method) -> Result<Command, Error> {
        match (self.publish.is_empty(), self.subscribed.is_empty()) {
            (true, true) => bad("say what: publish=ID or subscribed[ID]=CURSOR"),
            _ if method == Method::Head => Ok(Command::Head),
            (false, _) => Ok(Command::Publish(self.publish)),
            (true, false) => Ok(Command::Subscribe(self.subscribed, self.wait)),
        }
    }

    /// Takes one `name=value`; whatever has another name is junk.
    fn take(&mut self, pair: &[u8]) -> Result<(), Error> {
        let Some((name, value)) = form_urlencoded::parse(pair).next() else {
            return Ok(());
        };
        match name.as_ref() {
            "publish" if value.is_empty() => Ok(()),
            "publish" => utf8(pair).and_then(|()| self.publish(&value)),
            "wait" => self.wait(&value),
            name if name.starts_with("subscribed") => {
                utf8(pair)?;
                self.subscribe(topic_of(name, pair)?, &value)
            }
            _ => Ok(()),
        }
    }

    fn publish(&mut self, id: &str) -> Result<(), Error> {
        let topic = Topic::new(id)?;
        if !self.publish.contains(&topic) {
            self.publish.push(topic);
        }
        Ok(())
    }

    /// The last cursor of a topic counts, as in PHP.
    fn subscribe(&mut self, topic: Topic, cursor: &str) -> Result<(), Error> {
        let since = Since::parse(cursor)?;
        match self.subscribed.iter_mut().find(|known| known.topic == topic) {
            Some(known) => known.since = since,
            None => self.subscribed.push(Subscription { topic, since }),
        }
        Ok(())
    }

    fn wait(&mut self, seconds: &str) -> Result<(), Error> {
        let digits = !seconds.is_empty()
            && seconds.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let wait =
            seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match wait {
            Some(wait) if digits => self.wait = Some(wait),
            _ => return bad("wait is a number of seconds"),
        }
        Ok(())
    }
}

/// The topic in `subscribed[ID]`. Brackets that stand for themselves in `pair`
/// delimit; a client that encodes the id and not the outer brackets, as ours
/// does, can have any id, `][` too.
fn topic_of(name: &str, pair: &[u8]) -> Result<Topic, Error> {
    let raw = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
    let literal = raw.strip_prefix(b"subscribed[").and_then(|rest| rest.strip_suffix(b"]"));
    let id: Cow<'_, str> = match literal {
        Some(id) if id.windows(2).any(|two| two == b"][") => return nested(),
        // The name is UTF-8 by now, and so is every part between brackets.
        Some(id) => form_urlencoded::parse(id).next().map_or("".into(), |(id, _)| id),
        None => match name.strip_prefix("subscribed[").and_then(|rest| rest.strip_suffix(']')) {
            Some(id) if id.contains("][") => return nested(),
            Some(id) => id.into(),
            None => return bad("subscribe by subscribed[ID]=CURSOR"),
        },
    };
    Topic::new(id)
}

fn nested<T>() -> Result<T, Error> {
    bad("subscribed[ID] has one pair of brackets")
}

/// `form_urlencoded` puts U+FFFD in the place of what is not UTF-8, silently.
fn utf8(pair: &[u8]) -> Result<(), Error> {
    match percent_decode(pair).decode_utf8() {
        Ok(_) => Ok(()),
        Err(_) => bad("the query is not UTF-8"),
    }
}

fn bad<T>(why: &str) -> Result<T, Error> {
    Err(Error::BadRequest(why.to_owned()))
}

/// The answer to a command that was carried out; `None` when nobody is there.
#[must_use]
pub fn answer(outcome: &Outcome) -> Option<Response> {
    let body = match outcome {
        Outcome::Published(_) => "true".to_owned(),
        Outcome::News(events) => {
            state(1, events.iter().map(|Event { topic, cursor }| (topic, *cursor)))
        }
        Outcome::Quiet(topics) => state(0, topics.iter().map(|(topic, cursor)| (topic, *cursor))),
        Outcome::ClientGone => return None,
    };
    Some(Head::new(200, JSON).body(body))
}

/// The answer to HEAD.
#[must_use]
pub fn head() -> Response {
    Head::new(200, JSON).body("")
}

/// The answer to OPTIONS.
#[must_use]
pub fn options() -> Response {
    Head::new(204, JSON).header("Allow", METHODS).body("")
}

/// The answer to what cannot be done (RFC 9457).
#[must_use]
pub fn refusal(error: &Error) -> Response {
    let status = error.status();
    let head = Head::new(status, PROBLEM);
    let head = match error {
        Error::MethodNotAllowed => head.header("Allow", METHODS),
        _ => head,
    };
    let title = status_line(status).split_once(' ').map(|(_, phrase)| phrase);
    head.body(json!({"title": title, "status": status, "detail": error.to_string()}).to_string())
}

/// `{"s":…,"k":{…}}`: the state of 2011, and the cursors.
fn state<'a>(s: u8, k: impl Iterator<Item = (&'a Topic, Cursor)> + Clone) -> String {
    #[derive(serde::Serialize)]
    struct State<K: Serialize> {
        s: u8,
        k: K,
    }
    serde_json::to_string(&State { s, k: Map(k) }).unwrap_or_default()
}

struct Map<I>(I);

impl<'a, I: Iterator<Item = (&'a Topic, Cursor)> + Clone> Serialize for Map<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (topic, cursor) in self.0.clone() {
            map.serialize_entry(topic, &cursor)?;
        }
        map.end()
    }
}

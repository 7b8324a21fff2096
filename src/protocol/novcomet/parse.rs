//! A query and a form become a [`Command`].

use std::borrow::Cow;
use std::time::Duration;

use percent_encoding::percent_decode;
use url::form_urlencoded;

use super::action::Command;
use super::batch;
use super::inquiry::Inquiry;
use super::stream::{Format, resume};
use crate::cgi::{Body, Method, Request};
use crate::error::Error;
use crate::event::pattern::Pattern;
use crate::event::position::Position;
use crate::event::{Since, Topic};
use crate::hub::{Start, Subscription, Wish};

/// How many topics a request names at most. Each name is compared with those
/// before it, and each topic costs a watch and a read of the store: a form has room
/// for tens of thousands, which take seconds of processor time.
pub const MAX_TOPICS: usize = 64;

/// How many bytes the names of the topics have together that a client asks about. All of them
/// go to the process in which subscribers wait.
const MAX_NAMES: usize = 8_192;

/// The beginning of the parameter with a topic to be told of.
const INFO: &str = "info[";

/// The beginning of the parameter with a topic whose subscribers are asked for.
const WHO: &str = "who[";

/// Answered to a body of another type, such as JSON, without a topic for it.
const NO_FORM: &str = "this body is no form (application/x-www-form-urlencoded): send the \
    parameters in a form or in the query, such as ?publish=ID for a body that is the message";

/// What URL patterns and topics without a host are relative to.
const BASE: &str = "http://localhost/";

/// Reads the query and the form; `publish` wins over `subscribed`, as in 2011.
/// A message has at most `max_data` bytes.
///
/// # Errors
/// [`Error::BadRequest`] with what is wrong, [`Error::MessageTooLong`], and
/// [`Error::MethodNotAllowed`] for QUERY.
pub fn parse(request: &Request, max_data: usize) -> Result<Command, Error> {
    match request.method {
        Method::Options => return Ok(Command::Options),
        Method::Query => return Err(Error::MethodNotAllowed),
        _ => {}
    }
    let mut parameters = Parameters::default();
    parameters.add_all(&request.query)?;
    match (&request.body, request.form()) {
        (Body::Empty, _) => {}
        (_, Some(form)) => parameters.add_all(form.as_bytes())?,
        (Body::Form(text), None) if request.declares_form() && text.starts_with("data=") => {
            parameters.add(first_field(text))?;
        }
        (Body::Form(text) | Body::Text(text), None) => parameters.data = Some(text.clone()),
    }
    if parameters.data.as_ref().is_some_and(|data| data.len() > max_data) {
        return Err(Error::MessageTooLong(max_data));
    }
    let command = parameters.command(request, max_data)?;
    Ok(match request.method {
        Method::Head => Command::Head(Box::new(command)),
        _ => command,
    })
}

#[derive(Default)]
struct Parameters {
    publish: Vec<Topic>,
    batch: Option<String>,
    data: Option<String>,
    subscribed: Vec<Subscription>,
    wait: Option<Duration>,
    /// `stream` and `named`, as they came.
    stream: Option<String>,
    named: Option<String>,
    last_event_id: Option<String>,
    about: bool,
    metrics: bool,
    health: bool,
    info: Vec<Topic>,
    who: Vec<Topic>,
    topics: Option<String>,
    after: String,
    matching: Vec<Pattern>,
    since: Option<String>,
}

impl Parameters {
    fn command(mut self, request: &Request, max_data: usize) -> Result<Command, Error> {
        if let Some(batch) = &self.batch {
            return self
                .check_batch(request.method)
                .and_then(|()| batch::parse(batch, max_data).map(Command::Batch));
        }
        if self.publish.is_empty() && !self.matching.is_empty() {
            return self.matching(request);
        }
        match (self.publish.is_empty(), self.subscribed.is_empty()) {
            (true, true) if self.about => Ok(Command::About),
            (true, true) => self.inquiry(request).map(Command::Ask),
            (false, _) => Ok(Command::Publish {
                topics: self.publish,
                data: self.data,
                is_brief: request.method == Method::Get,
            }),
            (true, false) => match self.format(request.accepts_events)? {
                None => Ok(Command::Poll(self.subscribed, self.wait)),
                Some(format) => {
                    self.resume(&request.last_event_id)?;
                    Ok(Command::Stream(self.subscribed, self.wait, format))
                }
            },
        }
    }

    /// A question about the server, by a parameter or at a URL of its own.
    fn inquiry(self, request: &Request) -> Result<Inquiry, Error> {
        let path = &request.path;
        match self {
            Self { metrics: true, .. } => Ok(Inquiry::Metrics),
            Self { health: true, .. } => Ok(Inquiry::Health),
            Self { topics: Some(prefix), after, .. } => Ok(Inquiry::Topics { prefix, after }),
            Self { who, .. } if !who.is_empty() => Ok(Inquiry::Who(who)),
            Self { info, .. } if !info.is_empty() => Ok(Inquiry::Info(info)),
            _ if path.ends_with("/metrics") => Ok(Inquiry::Metrics),
            _ if path.ends_with("/health") => Ok(Inquiry::Health),
            _ if matches!(request.body, Body::Text(_)) => bad(NO_FORM),
            _ => bad("say what: publish=ID, subscribed[ID]=CURSOR or matching=PATTERN"),
        }
    }

    /// A subscription by pattern. All patterns share one position.
    fn matching(mut self, request: &Request) -> Result<Command, Error> {
        if !self.subscribed.is_empty() {
            return bad("subscribe to topics and by pattern in two requests");
        }
        let format = self.format(request.accepts_events)?;
        let header = String::from_utf8_lossy(&request.last_event_id);
        let id = if header.is_empty() { self.last_event_id.take() } else { Some(header.into()) };
        let since = match id.filter(|id| !id.is_empty() && format.is_some()) {
            Some(id) => Some(id),
            None => self.since.take(),
        };
        let start = start(since.as_deref().unwrap_or_default())?;
        let wish = Wish { patterns: self.matching, start, is_strict: false };
        Ok(match format {
            None => Command::PollMatching(wish, self.wait),
            Some(format) => Command::StreamMatching(wish, self.wait, format),
        })
    }

    fn check_batch(&self, method: Method) -> Result<(), Error> {
        match method {
            Method::Post if self.publish.is_empty() => Ok(()),
            Method::Post => bad("publish is in the batch, or there is no batch"),
            _ => bad("send a batch by POST"),
        }
    }

    fn format(&self, accepts_events: bool) -> Result<Option<Format>, Error> {
        let named = self.named.as_deref() != Some("0");
        match self.stream.as_deref() {
            Some("json") => Ok(Some(Format::Json)),
            Some("1") => Ok(Some(Format::Events { named })),
            Some("0") => Ok(None),
            None => Ok(accepts_events.then_some(Format::Events { named })),
            Some(_) => bad("stream is 0, 1 or json"),
        }
    }

    /// The last `id` that the client has seen replaces its cursors; the header is
    /// newer than the parameter.
    fn resume(&mut self, header: &[u8]) -> Result<(), Error> {
        let header = String::from_utf8_lossy(header);
        let id = if header.is_empty() { self.last_event_id.take() } else { Some(header.into()) };
        match id {
            Some(id) if !id.is_empty() => resume(&id, &mut self.subscribed),
            _ => Ok(()),
        }
    }

    fn add_all(&mut self, encoded: &[u8]) -> Result<(), Error> {
        encoded.split(|&byte| byte == b'&').try_for_each(|pair| self.add(pair))
    }

    /// Adds one `name=value`; other names are ignored.
    fn add(&mut self, pair: &[u8]) -> Result<(), Error> {
        let Some((name, value)) = form_urlencoded::parse(pair).next() else {
            return Ok(());
        };
        match name.as_ref() {
            "publish" => utf8(pair).and_then(|()| self.publish(&value))?,
            "batch" => {
                utf8(pair)?;
                self.batch = Some(value.into());
            }
            "data" => {
                utf8(pair)?;
                self.data = Some(value.into());
            }
            "matching" => self.select(pair, Pattern::segments(&value))?,
            "template" => self.select(pair, Pattern::template(&value))?,
            "urlpattern" => self.select(pair, Pattern::url(&value, BASE))?,
            "since" => self.since = Some(value.into()),
            "about" => self.about = value == "1",
            "metrics" => self.metrics = value == "1",
            "health" => self.health = value == "1",
            "topics" => {
                utf8(pair)?;
                self.topics = Some(value.into());
            }
            "after" => self.after = value.into(),
            name if name.starts_with(INFO) => {
                utf8(pair)?;
                ask(&mut self.info, topic_in(name, pair, INFO)?)?;
            }
            name if name.starts_with(WHO) => {
                utf8(pair)?;
                ask(&mut self.who, topic_in(name, pair, WHO)?)?;
            }
            "wait" => self.wait(&value)?,
            "stream" => self.stream = Some(value.into()),
            "named" => self.named = Some(value.into()),
            "Last-Event-ID" | "lastEventId" => self.last_event_id = Some(value.into()),
            name if name.starts_with("subscribed") => {
                utf8(pair)?;
                self.subscribe(topic_in(name, pair, "subscribed[")?, &value)?;
            }
            name if name.starts_with("data[") => return bad("data is one text: send it as JSON"),
            _ => {}
        }
        Ok(())
    }

    fn publish(&mut self, id: &str) -> Result<(), Error> {
        if id.is_empty() {
            return Ok(());
        }
        let topic = Topic::new(id)?;
        match self.publish.contains(&topic) {
            false if self.publish.len() == MAX_TOPICS => too_many(),
            false => {
                self.publish.push(topic);
                Ok(())
            }
            true => Ok(()),
        }
    }

    fn select(&mut self, pair: &[u8], pattern: Result<Pattern, Error>) -> Result<(), Error> {
        utf8(pair)?;
        if self.matching.len() == MAX_TOPICS {
            return bad(&format!("a request has at most {MAX_TOPICS} patterns"));
        }
        self.matching.push(pattern?);
        Ok(())
    }

    /// The last cursor of a topic counts, as in PHP.
    fn subscribe(&mut self, topic: Topic, cursor: &str) -> Result<(), Error> {
        let since = Since::parse(cursor)?;
        let is_full = self.subscribed.len() == MAX_TOPICS;
        match self.subscribed.iter_mut().find(|known| known.topic == topic) {
            Some(known) => known.since = since,
            None if is_full => return too_many(),
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

/// A topic counts once.
fn ask(asked: &mut Vec<Topic>, topic: Topic) -> Result<(), Error> {
    if asked.contains(&topic) {
        return Ok(());
    }
    if asked.len() == MAX_TOPICS {
        return too_many();
    }
    let size: usize = asked.iter().chain([&topic]).map(|topic| topic.as_str().len()).sum();
    if size > MAX_NAMES {
        return Err(Error::TooLarge(format!("the names have at most {MAX_NAMES} bytes together")));
    }
    asked.push(topic);
    Ok(())
}

/// The message in a form beside a query that has the topics. The other fields do not count: a
/// message that looks like a form chooses no topic.
fn first_field(form: &str) -> &[u8] {
    form.split('&').next().unwrap_or_default().as_bytes()
}

/// Where a subscription by pattern starts.
fn start(since: &str) -> Result<Start, Error> {
    match since {
        "" | "0" => Ok(Start::Now),
        "earliest" => Ok(Start::Earliest),
        text => match Position::parse(text) {
            Some(position) => Ok(Start::After(position)),
            None => bad("since is a position from an answer, or earliest"),
        },
    }
}

/// The topic in `subscribed[ID]`, `info[ID]` or `who[ID]`, whose beginning is `opening`. Brackets
/// that are not encoded in `pair` delimit. A client that encodes the id and not the outer brackets, as `NovComet.js` does,
/// can have any id, even `][`.
fn topic_in(name: &str, pair: &[u8], opening: &str) -> Result<Topic, Error> {
    let raw = pair.split(|&byte| byte == b'=').next().unwrap_or_default();
    let literal = raw.strip_prefix(opening.as_bytes()).and_then(|rest| rest.strip_suffix(b"]"));
    let id: Cow<'_, str> = match literal {
        Some(id) if id.windows(2).any(|two| two == b"][") => return nested(),
        // The name has been checked: it is UTF-8, and so is each part of it.
        Some(id) => form_urlencoded::parse(id).next().map_or("".into(), |(id, _)| id),
        None => match name.strip_prefix(opening).and_then(|rest| rest.strip_suffix(']')) {
            Some(id) if id.contains("][") => return nested(),
            Some(id) => id.into(),
            None if opening == INFO => return bad("ask by info[ID]=1"),
            None if opening == WHO => return bad("ask by who[ID]=1"),
            None => return bad("subscribe by subscribed[ID]=CURSOR"),
        },
    };
    Topic::new(id)
}

fn too_many<T>() -> Result<T, Error> {
    bad(&format!("a request names at most {MAX_TOPICS} topics"))
}

fn nested<T>() -> Result<T, Error> {
    bad("subscribed[ID] has one pair of brackets")
}

/// `form_urlencoded` silently replaces bytes that are not UTF-8 by U+FFFD.
fn utf8(pair: &[u8]) -> Result<(), Error> {
    match percent_decode(pair).decode_utf8() {
        Ok(_) => Ok(()),
        Err(_) => bad("the query is not UTF-8"),
    }
}

fn bad<T>(why: &str) -> Result<T, Error> {
    Err(Error::BadRequest(why.to_owned()))
}

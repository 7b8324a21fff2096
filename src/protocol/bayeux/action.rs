//! The messages of a request, performed one after the other.

use std::time::{Duration, Instant};

use super::channel::{Channel, is_meta, is_service};
use super::message::Message;
use super::poll::{Connect, JSON};
use super::reply::{PAUSE, Reply};
use crate::auth::Access;
use crate::cgi::{FieldValue, Head, Response};
use crate::error::Error;
use crate::hub::{Attendance, BATCH_LIMIT, HeldBack, Hub, Session, Sessions, too_late};
use crate::process::random::secret;
use crate::protocol::options::options;
use crate::protocol::{Action, Step};

/// The methods that are answered.
pub const METHODS: &str = "POST, OPTIONS";

/// The cookie that tells the pages of one browser from those of another, as in `CometD`.
pub const COOKIE: &str = "BAYEUX_BROWSER";

/// The action that a request asks for.
pub enum Command {
    /// To perform these messages.
    Messages(Request),
    /// To know the methods.
    Options,
}

/// The messages of a request.
pub struct Request {
    /// The messages.
    pub messages: Vec<Message>,
    /// The cookie of the browser.
    pub browser: Option<String>,
    /// The token in `ext` of a handshake.
    pub token: Option<String>,
    /// The most bytes of a message.
    pub max_data: usize,
}

impl Action for Command {
    fn access(&self) -> Access<'_> {
        match self {
            Self::Messages(request) => Access::Session(request.token.as_deref()),
            Self::Options => Access::None,
        }
    }

    fn writes(&self) -> bool {
        matches!(self, Self::Messages(_))
    }

    fn perform(self: Box<Self>, hub: &Hub) -> Result<Step, Error> {
        match *self {
            Self::Messages(request) => match Performance::begin(&request, hub) {
                Ok(performance) => Ok(performance.perform()),
                // In the replies, as Faye on Node.js takes any JSON for some.
                Err(error) if error.status() == 503 => {
                    let failed = |message| Reply::failed_by(message, &error).json();
                    let replies: Vec<_> = request.messages.iter().map(failed).collect();
                    Ok(Step::Partial(answer(&replies, None), error))
                }
                Err(error) => Err(error),
            },
            Self::Options => Ok(Step::Answer(options(METHODS, hub.is_cross_origin()))),
        }
    }

    /// A client would try a refused request for ever.
    fn forbid(&self, error: &Error) -> Option<Response> {
        let Self::Messages(request) = self else { return None };
        if !matches!(error.status(), 401 | 403) {
            return None;
        }
        let refuse = |message: &Message| {
            let refused = Reply::refused(message, error);
            match message.channel().as_str() {
                "/meta/handshake" => Reply::failed(message, 403, "", "handshake_denied").for_good(),
                "/meta/connect" => refused.for_good(),
                _ => refused,
            }
        };
        let replies = request.messages.iter().map(|message| refuse(message).json());
        Some(answer(&replies.collect::<Vec<_>>(), None))
    }
}

fn answer(replies: &[String], cookie: Option<FieldValue>) -> Response {
    let head = Head::new(200, JSON);
    let head = match cookie {
        Some(cookie) => head.header("Set-Cookie", cookie),
        None => head,
    };
    head.body(format!("[{}]", replies.join(",")))
}

/// The performance of a request.
struct Performance<'r, 'h, 'a, 's> {
    request: &'r Request,
    sessions: Sessions<'h, 'a, 's>,
    held: Duration,
    /// The session of the message before.
    session: Option<Session>,
    replies: Vec<String>,
    cookie: Option<FieldValue>,
    /// The first thing that the server could not do.
    fault: Option<Error>,
}

impl<'r, 'h, 'a, 's> Performance<'r, 'h, 'a, 's> {
    fn begin(request: &'r Request, hub: &'h Hub<'a, 's>) -> Result<Self, Error> {
        Ok(Self {
            request,
            sessions: hub.sessions()?,
            held: hub.held(),
            session: None,
            replies: Vec::new(),
            cookie: None,
            fault: None,
        })
    }

    /// A connect is served after all others, and held only if it came alone.
    fn perform(mut self) -> Step {
        let is_connect = |message: &&Message| message.channel() == "/meta/connect";
        let messages = &self.request.messages;
        let last = messages.iter().rposition(|message| is_connect(&message));
        let until = Instant::now() + BATCH_LIMIT;
        for (number, message) in messages.iter().enumerate() {
            if Some(number) != last {
                let reply = match Instant::now() < until {
                    true => self.reply(message),
                    false => Err(too_late()),
                };
                let reply = reply.unwrap_or_else(|error| self.fail(message, error));
                self.replies.push(reply.json());
            }
        }
        if let Some(connect) = last.map(|last| &messages[last]) {
            match self.connect(connect, messages.len() == 1) {
                Ok(Ok(step)) => return step,
                Ok(Err(reply)) => self.replies.push(reply.json()),
                Err(error) => {
                    let reply = self.fail(connect, error);
                    self.replies.push(reply.json());
                }
            }
        }
        let response = answer(&self.replies, self.cookie);
        match self.fault {
            Some(fault) => Step::Partial(response, fault),
            None => Step::Answer(response),
        }
    }

    fn fail(&mut self, message: &Message, error: Error) -> Reply {
        let reply = Reply::failed_by(message, &error);
        if error.status() >= 500 {
            self.fault.get_or_insert(error);
        }
        reply
    }

    fn reply(&mut self, message: &Message) -> Result<Reply, Error> {
        match message.channel().as_str() {
            "" => Ok(Reply::failed(message, 400, "", "channel_missing")),
            "/meta/handshake" => self.handshake(message),
            "/meta/subscribe" => self.subscribe(message),
            "/meta/unsubscribe" => self.unsubscribe(message),
            "/meta/disconnect" => self.disconnect(message),
            // Only the last one of a request counts.
            "/meta/connect" => Ok(Reply::to(message)),
            other if is_meta(other) => Ok(Reply::failed(message, 404, other, "unknown_meta")),
            other if is_service(other) => Ok(Reply::to(message)),
            other => self.publish(message, other),
        }
    }

    fn handshake(&mut self, message: &Message) -> Result<Reply, Error> {
        if !message.can_poll() {
            let why = "the server speaks long-polling only";
            return Ok(Reply::failed(message, 301, "", why).for_good());
        }
        let browser = self.browser()?;
        let acks = message.acks();
        match self.sessions.begin(acks, Some(&browser)) {
            Ok(Some(session)) => {
                let reply = Reply::to(message).with_session(session.name(), acks);
                self.session = Some(session);
                Ok(reply.again(Duration::ZERO, self.held))
            }
            Ok(None) => {
                // Without advice, as after any failed handshake.
                Ok(Reply::failed(message, 503, "", "too_many_sessions"))
            }
            Err(error) if error.status() < 500 => {
                Ok(Reply::failed(message, 403, "", "handshake_denied").for_good())
            }
            Err(error) => Err(error),
        }
    }

    /// The secret of the browser. A browser without one gets it.
    fn browser(&mut self) -> Result<String, Error> {
        if let Some(known) = &self.request.browser {
            return Ok(known.clone());
        }
        let bytes = secret::<16>()?;
        let new = format!("{:032x}", u128::from_be_bytes(bytes));
        self.cookie = FieldValue::new(format!("{COOKIE}={new}; Path=/; HttpOnly; SameSite=Lax"));
        Ok(new)
    }

    /// The session that a message names.
    fn session(&mut self, message: &Message) -> Result<Option<Session>, Error> {
        let Some(name) = message.text("clientId") else { return Ok(None) };
        match self.session.take().filter(|session| session.name() == name) {
            Some(session) => Ok(Some(session)),
            None => self.sessions.find(&name, self.request.browser.as_deref()),
        }
    }

    fn subscribe(&mut self, message: &Message) -> Result<Reply, Error> {
        self.change(message, "subscription_missing", |sessions, session, name| {
            if is_meta(name) {
                return Err(Refused::Invalid("subscription_invalid"));
            }
            let channel = Channel::parse(name)?;
            // Nobody is told of a service.
            if is_service(name) {
                return Ok(Some(session));
            }
            Ok(sessions.follow(session, channel.pattern, channel.topic.as_ref())?)
        })
    }

    fn unsubscribe(&mut self, message: &Message) -> Result<Reply, Error> {
        self.change(message, "subscription_missing", |sessions, session, name| {
            let channel = Channel::parse(name)?;
            Ok(sessions.leave(session, channel.pattern)?)
        })
    }

    /// Changes each channel in `subscription`, up to the first that is refused.
    fn change(
        &mut self,
        message: &Message,
        missing: &'static str,
        change: impl Fn(&Sessions, Session, &str) -> Result<Option<Session>, Refused>,
    ) -> Result<Reply, Error> {
        let names = message.subscriptions();
        let Some(mut session) = self.session(message)? else { return Ok(Reply::unknown(message)) };
        if names.is_empty() {
            self.session = Some(session);
            return Ok(Reply::failed(message, 403, "", missing));
        }
        for name in &names {
            let kept = session.clone();
            match change(&self.sessions, session, name) {
                Ok(Some(changed)) => session = changed,
                Ok(None) => return Ok(Reply::unknown(message)),
                Err(refused) => {
                    self.session = Some(kept);
                    let reply = refused.reply(message, name)?;
                    return Ok(reply.with_subscription(message.subscription()));
                }
            }
        }
        self.session = Some(session);
        Ok(Reply::to(message).with_subscription(message.subscription()))
    }

    fn disconnect(&mut self, message: &Message) -> Result<Reply, Error> {
        let Some(session) = self.session(message)? else { return Ok(Reply::unknown(message)) };
        self.sessions.end(&session)?;
        Ok(Reply::to(message))
    }

    fn publish(&mut self, message: &Message, name: &str) -> Result<Reply, Error> {
        let Ok(Channel { topic: Some(topic), .. }) = Channel::parse(name) else {
            return Ok(Reply::failed(message, 400, "", "channel_invalid"));
        };
        let data = message.data()?;
        if data.len() > self.request.max_data {
            return Err(Error::MessageTooLong(self.request.max_data));
        }
        let session = self.session(message)?;
        if session.is_none() && message.text("clientId").is_some() {
            return Ok(Reply::unknown(message));
        }
        let published = self.sessions.publish(session.as_ref(), &topic, data);
        self.session = session;
        match published {
            Err(error) if error.status() == 403 => {
                Ok(Reply::failed(message, 403, name, "publish_denied"))
            }
            published => published.map(|()| Reply::to(message)),
        }
    }

    /// The step that waits, or the reply if there is nothing to wait for.
    fn connect(&mut self, message: &Message, alone: bool) -> Result<Result<Step, Reply>, Error> {
        let Some(session) = self.session(message)? else {
            return Ok(Err(Reply::unknown(message)));
        };
        let wait = if alone { message.wait() } else { Some(Duration::ZERO) };
        let (acks, held) = (session.acks, self.held);
        let mut replies = std::mem::take(&mut self.replies);
        let attendance = Attendance { ack: message.ack(), wait };
        let before = replies.clone();
        let wanted = self.sessions.attend(session, attendance, |attended| {
            let reply = Reply::to(message).with_batch(attended.turn.filter(|_| acks));
            let pause = attended.held_back.map_or(Duration::ZERO, HeldBack::pause);
            let reply = match (reply.again(pause, held), attended.held_back) {
                (reply, Some(HeldBack::OtherPage)) => reply.beside_another(),
                (reply, _) => reply,
            };
            replies.push(reply.json());
            Box::new(Connect::new(replies, attended.floors))
        });
        match wanted {
            Ok(Some(wanted)) if self.fault.is_none() => Ok(Ok(Step::Wait(Box::new(wanted)))),
            Ok(Some(_)) => Ok(Err(self.again(message, before))),
            Ok(None) => {
                self.replies = before;
                Ok(Err(Reply::unknown(message)))
            }
            Err(error) => {
                self.replies = before;
                Err(error)
            }
        }
    }

    /// The connect of a request in which something else has failed.
    fn again(&mut self, message: &Message, before: Vec<String>) -> Reply {
        self.replies = before;
        Reply::to(message).again(PAUSE, self.held)
    }
}

/// Why a channel is not changed.
enum Refused {
    Invalid(&'static str),
    Error(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Refused {
    fn reply(self, message: &Message, name: &str) -> Result<Reply, Error> {
        match self {
            Self::Invalid(why) => Ok(Reply::failed(message, 403, name, why)),
            Self::Error(Error::Forbidden(_)) => {
                Ok(Reply::failed(message, 403, name, "subscribe_denied"))
            }
            Self::Error(error) if error.status() < 500 => {
                Ok(Reply::failed(message, error.status(), name, &error.to_string()))
            }
            Self::Error(error) => Err(error),
        }
    }
}

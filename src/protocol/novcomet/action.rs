//! The actions of requests, and their execution.

use std::time::Duration;

use super::batch::{self, Entry};
use super::inquiry::Inquiry;
use super::json::{JSON, state, to_json};
use super::metrics::TEXT;
use super::ordered::{OrderedPoll, OrderedStream};
use super::poll::Poll;
use super::stream::{EventStream, Format};
use crate::auth::Access;
use crate::cgi::{Head, METHODS, Response};
use crate::error::Error;
use crate::event::{Event, Topic};
use crate::hub::{Hub, Subscription, Until, Wanted, Wish};
use crate::protocol::options::options;
use crate::protocol::{Action, Step, sse};

/// The action that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// To publish an event to each topic.
    Publish {
        /// The topics.
        topics: Vec<Topic>,
        /// The message, if there is one.
        data: Option<String>,
        /// Whether the answer is `true`, as in 2011, and not the cursors.
        is_brief: bool,
    },
    /// To publish these messages one after the other.
    Batch(Vec<Entry>),
    /// To wait for the first event of these topics, for at most so long.
    Poll(Vec<Subscription>, Option<Duration>),
    /// To receive every event of these topics, for at most so long.
    Stream(Vec<Subscription>, Option<Duration>, Format),
    /// To wait for the first event of a topic that a pattern selects.
    PollMatching(Wish, Option<Duration>),
    /// To receive every event of these topics, in order.
    StreamMatching(Wish, Option<Duration>, Format),
    /// To receive the head of the answer to this command (RFC 9110 §9.3.2). HEAD
    /// is a safe method: it publishes nothing and waits for nothing.
    Head(Box<Command>),
    /// To know something about the server.
    Ask(Inquiry),
    /// To know the program.
    About,
    /// To know the methods (RFC 9110 §9.3.7).
    Options,
}

impl Action for Command {
    fn access(&self) -> Access<'_> {
        match self {
            Self::Publish { topics, .. } => Access::Publish(topics.iter().collect()),
            Self::Batch(entries) => {
                Access::Publish(entries.iter().flatten().map(|each| &each.topic).collect())
            }
            Self::Poll(subscriptions, _) | Self::Stream(subscriptions, ..) => {
                Access::Subscribe(subscriptions.iter().map(|each| &each.topic).collect())
            }
            Self::PollMatching(..) | Self::StreamMatching(..) => Access::Follow,
            Self::Head(command) => command.access(),
            Self::Ask(inquiry) => inquiry.access(),
            Self::About | Self::Options => Access::None,
        }
    }

    fn writes(&self) -> bool {
        match self {
            Self::Publish { .. } | Self::Batch(_) => true,
            Self::Ask(inquiry) => inquiry.writes(),
            Self::Head(command) => matches!(**command, Self::Ask(Inquiry::Health)),
            _ => false,
        }
    }

    fn perform(self: Box<Self>, hub: &Hub) -> Result<Step, Error> {
        match *self {
            Self::Publish { topics, data, is_brief } => {
                let events = hub.publish(topics, data.as_deref())?;
                Ok(Step::Answer(published(&events, is_brief)))
            }
            Self::Batch(entries) => hub.publish_each(entries).map(published_each),
            Self::Poll(subscriptions, wait) => {
                let poll = Box::new(Poll);
                hub.subscribe(subscriptions, Until::FirstUpdate, wait, poll).map(wait_for)
            }
            Self::Stream(subscriptions, wait, format) => {
                let stream = Box::new(EventStream::new(format, subscriptions.len()));
                hub.subscribe(subscriptions, Until::Deadline, wait, stream).map(wait_for)
            }
            Self::PollMatching(wish, wait) => {
                hub.follow(wish, Until::FirstUpdate, wait, Box::new(OrderedPoll)).map(wait_for)
            }
            Self::StreamMatching(wish, wait, format) => {
                let stream = Box::new(OrderedStream::new(format));
                hub.follow(wish, Until::Deadline, wait, stream).map(wait_for)
            }
            Self::Ask(inquiry) => inquiry.answer(hub),
            Self::About => Ok(Step::Answer(Head::new(200, JSON).body(to_json(&hub.about())))),
            Self::Head(command) => match *command {
                // A load balancer may ask so.
                Self::Ask(Inquiry::Health) => Ok(bare(Inquiry::Health.answer(hub)?)),
                command => Ok(Step::Answer(head(&command))),
            },
            Self::Options => Ok(Step::Answer(options(METHODS, hub.is_cross_origin()))),
        }
    }
}

fn wait_for(wanted: Wanted) -> Step {
    Step::Wait(Box::new(wanted))
}

/// The log gets the first fault of the server.
fn published_each(results: Vec<Result<Event, Error>>) -> Step {
    let response = Head::new(200, JSON).body(batch::answer(&results));
    let mut errors = results.into_iter().filter_map(Result::err);
    match errors.find(|error| error.log_line().is_some()) {
        Some(fault) => Step::Partial(response, fault),
        None => Step::Answer(response),
    }
}

fn published(events: &[Event], is_brief: bool) -> Response {
    let cursors = events.iter().map(|Event { topic, cursor }| (topic, cursor));
    let body = if is_brief { "true".to_owned() } else { state(1, cursors) };
    Head::new(200, JSON).body(body)
}

/// An answer without its body.
fn bare(step: Step) -> Step {
    match step {
        Step::Answer(response) => Step::Answer(response.without_body()),
        Step::Partial(response, fault) => Step::Partial(response.without_body(), fault),
        Step::Wait(_) => step,
    }
}

fn head(command: &Command) -> Response {
    match command {
        Command::Stream(..) | Command::StreamMatching(..) => sse::head().body(""),
        Command::Ask(Inquiry::Metrics) => Head::new(200, TEXT).body(""),
        _ => Head::new(200, JSON).body(""),
    }
}

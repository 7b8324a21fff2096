//! The actions of requests, and their execution.

use serde_json::json;

use super::refusal::METHODS;
use super::stream::UpdateStream;
use super::subscribe::Subscription;
use super::subscriber::Subscriber;
use super::subscriptions::Question;
use crate::auth::{Access, Generation};
use crate::cgi::{Head, Response};
use crate::error::Error;
use crate::event::Topic;
use crate::hub::{Hub, NewUpdate, Until, Wish};
use crate::protocol::options::options;
use crate::protocol::{Action, Step, sse};

/// The action that a request asks for.
pub enum Command {
    /// To publish an update.
    Publish(NewUpdate),
    /// To receive every update that matches.
    Follow(Subscription),
    /// To receive the head of the answer to the same.
    Head(Subscription),
    /// To know who subscribes.
    Subscriptions(Question),
    /// To know what a hub accepts (RFC 9728 §3.2).
    Metadata {
        /// Its URL.
        url: String,
        /// Whether it tells who subscribes.
        subscriptions: bool,
    },
    /// To know the methods.
    Options,
}

impl Action for Command {
    fn access(&self) -> Access<'_> {
        match self {
            Self::Publish(update) => Access::MercurePublish(topics(update)),
            Self::Follow(subscription) | Self::Head(subscription) => {
                Access::MercureFollow(subscription.generation)
            }
            Self::Subscriptions(question) => Access::MercureSubscriptions(&question.path),
            Self::Metadata { .. } | Self::Options => Access::None,
        }
    }

    fn writes(&self) -> bool {
        matches!(self, Self::Publish(_))
    }

    fn perform(self: Box<Self>, hub: &Hub) -> Result<Step, Error> {
        match *self {
            Self::Publish(update) => publish(update, hub).map(Step::Answer),
            Self::Follow(subscription) => follow(subscription, hub),
            Self::Head(_) => Ok(Step::Answer(sse::head().body(""))),
            Self::Subscriptions(question) => subscriptions(&question, hub).map(Step::Answer),
            Self::Metadata { url, subscriptions } => {
                Ok(Step::Answer(metadata(&url, subscriptions)))
            }
            Self::Options => Ok(Step::Answer(options(METHODS, hub.is_cross_origin()))),
        }
    }
}

fn topics(update: &NewUpdate) -> Vec<&Topic> {
    update.topics.iter().collect()
}

/// The body is the id, so that the publisher can tell it to a page.
fn publish(update: NewUpdate, hub: &Hub) -> Result<Response, Error> {
    let own = update.message.extra.client_id.clone();
    let position = hub.publish_update(update)?;
    let id = own.unwrap_or_else(|| format!("#{position}"));
    Ok(Head::new(200, "text/plain; charset=utf-8").body(id))
}

fn follow(subscription: Subscription, hub: &Hub) -> Result<Step, Error> {
    let (start, preceding) = subscription.start();
    let Subscription { generation, patterns, matchers, hub: path, .. } = subscription;
    let subscriber = (!matchers.is_empty()).then(|| Subscriber::new(&path, matchers));
    let stream = Box::new(UpdateStream::new(generation, preceding).by(subscriber));
    let wish = Wish { patterns, start, is_strict: true };
    match hub.follow(wish, Until::Deadline, None, stream) {
        Ok(wanted) => Ok(Step::Wait(Box::new(wanted))),
        Err(error) => match sse::postpone(&error) {
            Some(response) => Ok(Step::Partial(response, error)),
            None => Err(error),
        },
    }
}

fn subscriptions(question: &Question, hub: &Hub) -> Result<Response, Error> {
    let (documents, position) = hub.notices(&question.path)?;
    // A shell has no token.
    let generation = hub.generation().unwrap_or(Generation::V0);
    question.answer(generation, &documents, position)
}

fn metadata(url: &str, subscriptions: bool) -> Response {
    let mut metadata = json!({
        "resource": url,
        "authorization_details_types_supported": ["https://mercure.rocks/authorization-detail"],
        "bearer_methods_supported": ["header"],
        "mercure_cookie": "__Secure-mercure_access_token",
    });
    if subscriptions {
        metadata["mercure_subscriptions"] = true.into();
    }
    Head::new(200, "application/json").body(metadata.to_string())
}

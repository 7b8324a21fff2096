//! What a client asks about the server, and the answers.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::json::{JSON, to_json};
use super::metrics::{TEXT, exposition};
use crate::auth::Access;
use crate::cgi::{Head, Response};
use crate::error::Error;
use crate::event::{Cursor, Topic};
use crate::hub::{Hub, Kept, Listed, Subscribers};
use crate::protocol::Step;
use crate::protocol::problem::problem_with;

/// A question about the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inquiry {
    /// The figures.
    Metrics,
    /// Whether the server works.
    Health,
    /// The kept messages of these topics, as numbers.
    Info(Vec<Topic>),
    /// The subscribers of these topics.
    Who(Vec<Topic>),
    /// The topics that begin so, after this name.
    Topics {
        /// The beginning.
        prefix: String,
        /// The last name of the list before.
        after: String,
    },
}

impl Inquiry {
    /// The rights that it needs.
    #[must_use]
    pub fn access(&self) -> Access<'_> {
        match self {
            Self::Metrics => Access::Metrics,
            Self::Health => Access::Health,
            Self::Info(topics) | Self::Who(topics) => Access::Subscribe(topics.iter().collect()),
            Self::Topics { .. } => Access::Follow,
        }
    }

    /// Whether it writes to the store: the first two do, beside the topics.
    #[must_use]
    pub fn writes(&self) -> bool {
        matches!(self, Self::Metrics | Self::Health)
    }

    /// # Errors
    /// Those of the hub.
    pub fn answer(&self, hub: &Hub) -> Result<Step, Error> {
        Ok(Step::Answer(match self {
            Self::Metrics => {
                let text = exposition(&hub.figures()?, hub.about().version);
                Head::new(200, TEXT).body(text)
            }
            Self::Health => return Ok(health(hub)),
            Self::Info(topics) => json(&info(topics, &hub.kept(topics)?)),
            Self::Who(topics) => json(&who(topics, hub.subscribers(topics)?)?),
            Self::Topics { prefix, after } => json(&names(&hub.topics(prefix, after)?)),
        }))
    }
}

fn json(value: &impl Serialize) -> Response {
    Head::new(200, JSON).body(to_json(value))
}

/// Every fault is the same 503 to a load balancer. The reason in the log may name the
/// directory, so it is only told to those who may know that.
fn health(hub: &Hub) -> Step {
    match hub.check_health() {
        Ok(()) => Step::Answer(json(&Health { status: "pass" })),
        Err(error) => {
            let reason = error.log_line().filter(|_| hub.about().store.is_some());
            let reason = reason.unwrap_or_else(|| error.to_string());
            Step::Partial(problem_with(503, &reason), error)
        }
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

/// `{"topics":{"a":{"last":…,"oldest":…,"messages":2,"bytes":10}}}`
fn info<'a>(topics: &'a [Topic], kept: &[Kept]) -> BTreeMap<&'static str, Infos<'a>> {
    let infos = topics.iter().zip(kept.iter().map(Info::of)).collect();
    BTreeMap::from([("topics", infos)])
}

type Infos<'a> = BTreeMap<&'a Topic, Info>;

/// The answer for a topic.
#[derive(Serialize)]
struct Info {
    last: Option<Cursor>,
    oldest: Option<Cursor>,
    messages: usize,
    bytes: usize,
}

impl Info {
    fn of(kept: &Kept) -> Self {
        let Kept { last, oldest, messages, bytes } = *kept;
        Self { last, oldest, messages, bytes }
    }
}

/// `{"who":{"a":{"number":2,"names":["x"]}}}`
fn who(
    topics: &[Topic],
    subscribers: Option<Vec<Subscribers>>,
) -> Result<BTreeMap<&'static str, BTreeMap<&Topic, Who>>, Error> {
    let unknown = "subscribers wait alone here, so nobody knows them: NOVCOMET_TOGETHER is off";
    let subscribers = subscribers.ok_or(Error::NotImplemented(unknown))?;
    let who = subscribers.into_iter().map(|Subscribers { number, names }| Who { number, names });
    Ok(BTreeMap::from([("who", topics.iter().zip(who).collect())]))
}

/// Those who wait for a topic.
#[derive(Serialize)]
struct Who {
    number: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<BTreeSet<String>>,
}

#[derive(Serialize)]
struct Names<'a> {
    topics: &'a [Topic],
    /// The last name, if more follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<&'a Topic>,
}

fn names(listed: &Listed) -> Names<'_> {
    Names { topics: &listed.topics, after: listed.topics.last().filter(|_| listed.has_more) }
}

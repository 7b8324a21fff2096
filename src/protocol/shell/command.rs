//! The commands, and their execution.

use std::io::{self, Read};
use std::time::Duration;

use super::lines::Lines;
use super::who::{self, Form};
use crate::auth::Access;
use crate::cgi::Head;
use crate::error::{Error, escaped};
use crate::event::{Since, Topic};
use crate::hub::{Hub, Subscription, Until};
use crate::process::input::Stdin;
use crate::process::streams::is_terminal;
use crate::protocol::{Action, Step};

/// What a person at a shell asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// To publish an event.
    Publish(Topic, Text),
    /// To print every event of these topics.
    Subscribe {
        /// The topics, each once.
        topics: Vec<Topic>,
        /// The events before them are not printed.
        since: Since,
        /// For how long; `None` for ever.
        wait: Option<Duration>,
        /// Whether each event is an object of JSON.
        is_json: bool,
    },
    /// To list the topics whose names begin so.
    Topics(String),
    /// To tell who waits for these topics, in this order.
    Who {
        /// The topics.
        topics: Vec<Topic>,
        /// How each is told.
        form: Form,
    },
}

/// The text of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Text {
    /// There is no message.
    None,
    /// This one.
    Given(String),
    /// All of standard input.
    Stdin,
}

/// A command, with the most bytes of a message.
pub struct Bounded {
    pub command: Command,
    pub max_data: usize,
}

impl Action for Bounded {
    fn access(&self) -> Access<'_> {
        match &self.command {
            Command::Publish(topic, _) => Access::Publish(vec![topic]),
            Command::Subscribe { topics, .. } | Command::Who { topics, .. } => {
                Access::Subscribe(topics.iter().collect())
            }
            Command::Topics(_) => Access::Follow,
        }
    }

    fn writes(&self) -> bool {
        matches!(self.command, Command::Publish(..))
    }

    fn perform(self: Box<Self>, hub: &Hub) -> Result<Step, Error> {
        match self.command {
            Command::Publish(topic, text) => {
                let data = text.read(self.max_data)?;
                hub.publish(vec![topic], data.as_deref())?;
                Ok(answer(String::new()))
            }
            Command::Subscribe { topics, since, wait, is_json } => {
                let of = |topic| Subscription { topic, since };
                let subscriptions = topics.into_iter().map(of).collect();
                let lines = Box::new(Lines { is_json, is_terminal: is_terminal() });
                let wanted = hub.subscribe(subscriptions, Until::Deadline, wait, lines)?;
                Ok(Step::Wait(Box::new(wanted)))
            }
            Command::Topics(prefix) => {
                let topics = hub.all_topics(&prefix)?;
                let line = |topic: &Topic| match is_terminal() {
                    true => escaped(topic.as_str()) + "\n",
                    false => format!("{}\n", topic.as_str()),
                };
                Ok(answer(topics.iter().map(line).collect()))
            }
            Command::Who { topics, form } => {
                let ask = |topics: &[Topic]| hub.all_subscribers(topics);
                Ok(answer(who::tell(&topics, form, ask)?))
            }
        }
    }
}

fn answer(text: String) -> Step {
    Step::Answer(Head::unwritten().body(text))
}

impl Text {
    /// The message, exactly as it is.
    fn read(self, max: usize) -> Result<Option<String>, Error> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Given(text) => text,
            Self::Stdin => stdin(max)?,
        };
        if text.len() > max { Err(Error::MessageTooLong(max)) } else { Ok(Some(text)) }
    }
}

/// Standard input, or its beginning, which is longer than `max` bytes then.
fn stdin(max: usize) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let read = Stdin.take(max as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|cause| unreadable(&cause))?;
    if bytes.len() > max {
        return Err(Error::MessageTooLong(max));
    }
    String::from_utf8(bytes).map_err(|_| Error::bad_request("a message is text in UTF-8"))
}

fn unreadable(cause: &io::Error) -> Error {
    const DETAIL: &str = "standard input cannot be read";
    Error::unavailable(DETAIL, &format!("{DETAIL}: {cause}"), "give a file or a pipe")
}

//! The subscribers of topics, in a line for each.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::{Error, escaped};
use crate::event::Topic;
use crate::hub::Subscribers;
use crate::process::streams::is_terminal;

/// How a topic is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// By its name and its number, with a tab between.
    Numbers,
    /// The same and the names, each after a tab.
    Names,
    /// As an object of JSON.
    Json,
}

/// How many topics are asked for at once. A question to the leader has room for 32 topics that
/// are as long as may be.
const AT_ONCE: usize = 32;

/// All lines. The answers of `ask` are in the order of the topics.
///
/// # Errors
/// Those of `ask`.
pub fn tell(
    topics: &[Topic],
    form: Form,
    ask: impl Fn(&[Topic]) -> Result<Vec<Subscribers>, Error>,
) -> Result<String, Error> {
    let is_terminal = is_terminal();
    let mut lines = String::new();
    for topics in topics.chunks(AT_ONCE) {
        for (topic, subscribers) in topics.iter().zip(ask(topics)?) {
            let line = form.line(topic, &subscribers);
            // Lines for programs have no control characters but tabs between their parts.
            let shown = line.split('\t').map(escaped).collect::<Vec<_>>().join("\t");
            lines += &if is_terminal { shown } else { line };
            lines.push('\n');
        }
    }
    Ok(lines)
}

impl Form {
    fn line(self, topic: &Topic, subscribers: &Subscribers) -> String {
        let Subscribers { number, names } = subscribers;
        let numbers = format!("{}\t{number}", topic.as_str());
        match self {
            Self::Numbers => numbers,
            // A token can have any name.
            Self::Names => names
                .iter()
                .flatten()
                .fold(numbers, |line, name| format!("{line}\t{}", escaped(name))),
            Self::Json => {
                let object = Object { topic, number: *number, names: names.as_ref() };
                serde_json::to_string(&object).unwrap_or_default()
            }
        }
    }
}

#[derive(Serialize)]
struct Object<'a> {
    topic: &'a Topic,
    number: usize,
    /// `None` if a stranger may not know them.
    #[serde(skip_serializing_if = "Option::is_none")]
    names: Option<&'a BTreeSet<String>>,
}

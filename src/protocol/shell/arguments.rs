//! The words of a command line become a [`Command`].

use std::ffi::OsString;
use std::time::Duration;

use super::command::{Command, Text};
use super::remote::Question;
use super::who::Form;
use crate::error::Error;
use crate::event::{Since, Topic};

/// What `--help` prints.
pub const USAGE: &str = "\
usage: comet.cgi publish TOPIC [TEXT | -]
       comet.cgi subscribe TOPIC... [--since CURSOR|earliest|latest] [--json] [--wait SECONDS]
       comet.cgi topics [PREFIX]
       comet.cgi who TOPIC... [--names | --json] [--url URL]
       comet.cgi doctor [URL] [--long]
       comet.cgi --help | --version
       QUERY_STRING='publish=ID&data=TEXT' comet.cgi

publish takes TEXT as it is, and - for standard input. subscribe prints a line for each
event, and who one for each topic: how many wait for it. doctor says what is wrong with this
machine and the server at URL, and what to do. The last form answers as it does for a web
server. Settings: man comet.cgi
";

/// What a command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// To read [`USAGE`].
    Help,
    /// To know the version.
    Version,
    /// To do this.
    Command(Command),
    /// To ask the server at a URL.
    Remote(Question),
    /// To examine the installation.
    Doctor {
        /// The URL of the program.
        url: Option<String>,
        /// Whether that may take minutes.
        is_long: bool,
    },
}

/// Why a command line is not followed.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It is none; the text says why.
    Usage(String),
    /// The request is refused.
    Refused(Error),
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

/// Reads the words after the name of the program. Without any, a person needs help.
///
/// # Errors
/// The fault of the command line.
pub fn parse(mut words: impl Iterator<Item = OsString>) -> Result<Asked, Wrong> {
    let Some(first) = words.next() else { return Ok(Asked::Help) };
    let first = utf8(first)?;
    let options: &[_] = match first.as_str() {
        "--help" => return Ok(Asked::Help),
        "--version" => return Ok(Asked::Version),
        "publish" | "topics" => &[],
        "subscribe" => &[("--since", true), ("--json", false), ("--wait", true)],
        "who" => &[("--names", false), ("--json", false), ("--url", true)],
        "doctor" => &[("--long", false)],
        other if other.starts_with('-') => return usage(&format!("unknown option {other:?}")),
        other => return usage(&format!("unknown command {other:?}")),
    };
    let words = Words::split(words, options)?;
    if words.needs_help {
        return Ok(Asked::Help);
    }
    let command = match first.as_str() {
        "doctor" => return doctor(words),
        "who" => return who(words),
        "publish" => publish(words.operands),
        "topics" => topics(words.operands),
        _ => subscribe(words),
    };
    command.map(Asked::Command)
}

fn publish(operands: Vec<String>) -> Result<Command, Wrong> {
    let mut operands = operands.into_iter();
    let (topic, text) = match (operands.next(), operands.next(), operands.next()) {
        (Some(topic), text, None) => (topic, text),
        (None, ..) => return usage("publish needs a topic"),
        _ => return usage("publish takes one text: put it in quotes"),
    };
    let text = match text {
        None => Text::None,
        Some(text) if text == "-" => Text::Stdin,
        Some(text) => Text::Given(text),
    };
    Ok(Command::Publish(Topic::new(topic)?, text))
}

fn subscribe(words: Words) -> Result<Command, Wrong> {
    let (mut since, mut wait, mut is_json) = (Since::Now, None, false);
    for (name, value) in words.options {
        match name {
            "--since" => since = Since::parse(&value).or_else(|error| usage(&error.to_string()))?,
            "--wait" => wait = Some(seconds(&value)?),
            _ => is_json = true,
        }
    }
    let mut topics = words.operands.into_iter().map(Topic::new).collect::<Result<Vec<_>, _>>()?;
    topics.sort();
    topics.dedup();
    match topics.is_empty() {
        true => usage("subscribe needs a topic"),
        false => Ok(Command::Subscribe { topics, since, wait, is_json }),
    }
}

fn topics(mut operands: Vec<String>) -> Result<Command, Wrong> {
    match operands.len() {
        0 | 1 => Ok(Command::Topics(operands.pop().unwrap_or_default())),
        _ => usage("topics takes one prefix"),
    }
}

fn who(words: Words) -> Result<Asked, Wrong> {
    let (mut form, mut url) = (Form::Numbers, None);
    for (name, value) in words.options {
        match name {
            "--url" => url = Some(value),
            "--json" => form = Form::Json,
            _ if form != Form::Json => form = Form::Names,
            _ => {}
        }
    }
    let topics = words.operands.into_iter().map(Topic::new).collect::<Result<Vec<_>, _>>()?;
    match (topics.is_empty(), url) {
        (true, _) => usage("who needs a topic"),
        (false, None) => Ok(Asked::Command(Command::Who { topics, form })),
        (false, Some(url)) => Ok(Asked::Remote(Question { url, topics, form })),
    }
}

fn doctor(words: Words) -> Result<Asked, Wrong> {
    let (is_long, mut urls) = (!words.options.is_empty(), words.operands);
    match urls.len() {
        0 | 1 => Ok(Asked::Doctor { url: urls.pop(), is_long }),
        _ => usage("doctor takes one URL"),
    }
}

fn seconds(text: &str) -> Result<Duration, Wrong> {
    let seconds = text.parse().ok().and_then(|it| Duration::try_from_secs_f64(it).ok());
    seconds.map_or_else(|| usage("--wait needs a number of seconds"), Ok)
}

/// The words after the name of a command.
#[derive(Default)]
struct Words {
    operands: Vec<String>,
    options: Vec<(&'static str, String)>,
    needs_help: bool,
}

impl Words {
    /// Tells operands from options, as getopt(3) does for long options. Of each option that
    /// there is, `known` says whether it has a value.
    fn split(
        mut words: impl Iterator<Item = OsString>,
        known: &[(&'static str, bool)],
    ) -> Result<Self, Wrong> {
        let mut found = Self::default();
        while let Some(word) = words.next().map(utf8).transpose()? {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let option = known.iter().find(|(known, _)| *known == name);
            match (word.as_str(), option, value) {
                ("--", ..) => {
                    let rest: Result<Vec<_>, _> = words.by_ref().map(utf8).collect();
                    found.operands.extend(rest?);
                }
                ("--help", ..) => found.needs_help = true,
                (_, Some(&(name, true)), value) => {
                    let value = match value {
                        Some(value) => Some(value),
                        None => words.next().map(utf8).transpose()?,
                    };
                    let Some(value) = value else { return usage(&format!("{name} needs a value")) };
                    found.options.push((name, value));
                }
                (_, Some(&(name, false)), None) => found.options.push((name, String::new())),
                (other, ..) if other.len() > 1 && other.starts_with('-') => {
                    return usage(&format!("unknown option {other:?}; a text comes after --"));
                }
                _ => found.operands.push(word),
            }
        }
        Ok(found)
    }
}

fn utf8(word: OsString) -> Result<String, Error> {
    word.into_string().map_err(|_| Error::bad_request("topics and messages are text in UTF-8"))
}

fn usage<T>(why: &str) -> Result<T, Wrong> {
    Err(Wrong::Usage(why.to_owned()))
}

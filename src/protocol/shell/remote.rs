//! A command that asks the server at a URL, as any client does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::who::{self, Form};
use crate::error::Error;
use crate::event::Topic;
use crate::hub::Subscribers;
use crate::net::http::{Answer, Site};
use crate::protocol::problem;

/// How long all answers may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// A question about the subscribers of these topics at a server.
#[derive(Debug, PartialEq, Eq)]
pub struct Question {
    /// The URL of the program there.
    pub url: String,
    /// The topics.
    pub topics: Vec<Topic>,
    /// How each is told.
    pub form: Form,
}

/// The answer of a server.
#[derive(Deserialize)]
struct Told {
    who: BTreeMap<String, One>,
}

/// What it tells of a topic.
#[derive(Deserialize)]
struct One {
    number: usize,
    names: Option<BTreeSet<String>>,
}

impl One {
    fn subscribers(&self) -> Subscribers {
        Subscribers { number: self.number, names: self.names.clone() }
    }
}

impl Question {
    /// Asks, and returns the lines of the answer.
    ///
    /// # Errors
    /// 503 if the server does not tell it, with the reason.
    pub fn ask(&self) -> Result<String, Error> {
        let site = Site::parse(&self.url, Instant::now() + ANSWER_WITHIN);
        let site = site.map_err(|(what, hint)| untold(&what, &hint))?;
        who::tell(&self.topics, self.form, |topics| self.subscribers(&site, topics))
    }

    fn subscribers(&self, site: &Site, topics: &[Topic]) -> Result<Vec<Subscribers>, Error> {
        let mut query = Serializer::new(String::new());
        for topic in topics {
            query.append_pair(&format!("who[{}]", topic.as_str()), "1");
        }
        let answer = site.ask("GET", &query.finish(), &[]);
        let answer = answer.map_err(|cause| self.failed(&format!("does not answer: {cause}")))?;
        let told: Option<Told> = serde_json::from_slice(&answer.body).ok();
        let told = told.filter(|_| answer.status == 200);
        let of = |topic: &Topic| told.as_ref()?.who.get(topic.as_str()).map(One::subscribers);
        let all: Option<Vec<_>> = topics.iter().map(of).collect();
        all.ok_or_else(|| self.failed(&refusal(&answer)))
    }

    fn failed(&self, how: &str) -> Error {
        let hint = "comet.cgi doctor URL says what is wrong there";
        untold(&format!("{} {how}", self.url), hint)
    }
}

fn refusal(answer: &Answer) -> String {
    let reason = problem::detail(answer.header("Content-Type"), &answer.body);
    let reason = reason.unwrap_or_else(|| "that is not NovComet's answer".into());
    format!("answers {}: {reason}", answer.status)
}

fn untold(what: &str, hint: &str) -> Error {
    Error::unavailable("the server does not tell who waits", what, hint)
}

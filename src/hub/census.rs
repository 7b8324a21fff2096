//! The subscribers of a topic: how many wait, and the names of those that have one.

use std::collections::BTreeSet;

use super::askers::Present;
use super::asking::{Heard, ask_as_administrator, ask_for_topics};
use super::elsewhere;
use super::facade::Hub;
use crate::error::Error;
use crate::event::{Cursor, Topic};

/// Those who wait for a topic.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscribers {
    /// How many they are.
    pub number: usize,
    /// The names of those that have one, each once. `None` for a client that may not know
    /// them.
    pub names: Option<BTreeSet<String>>,
}

impl Hub<'_, '_> {
    /// Those who wait together for each of these topics, in order; `None` if nobody would wait
    /// with this client.
    ///
    /// # Errors
    /// 401 when the token has expired, 403 for a topic that is not granted, 503 if the leader
    /// of those who wait does not answer.
    pub fn subscribers(&self, topics: &[Topic]) -> Result<Option<Vec<Subscribers>>, Error> {
        self.grant.check_subscribe(topics, Cursor::now())?;
        let store = (self.open)()?;
        let Some(together) = (self.terms.together)(store.as_ref()) else { return Ok(None) };
        let mut present = ask_for_topics(&together, topics)?;
        if together.tells_presence {
            present.extend(elsewhere::present(&store.shared()?, &[together.name], topics));
        }
        Ok(Some(self.count(topics, present)))
    }

    /// The same for an administrator: those who wait at any server of this machine, and at those
    /// that have told the store.
    ///
    /// # Errors
    /// As for [`subscribers`](Self::subscribers), and 503 if some wait where this user may not
    /// ask.
    pub fn all_subscribers(&self, topics: &[Topic]) -> Result<Vec<Subscribers>, Error> {
        self.grant.check_subscribe(topics, Cursor::now())?;
        let store = (self.open)()?;
        let told = store.shared()?;
        let leaders = (self.terms.leaders)(store.as_ref()).ok_or_else(no_names)?;
        let (mut present, mut asked) = (Vec::new(), Vec::new());
        for leader in leaders {
            match ask_as_administrator(&leader, topics)? {
                Heard::Answer(there) => {
                    present.extend(there);
                    asked.push(leader);
                }
                Heard::Nobody => {}
                Heard::Refused if elsewhere::has_told(&told, &leader) => {}
                Heard::Refused => return Err(not_ours()),
            }
        }
        present.extend(elsewhere::present(&told, &asked, topics));
        Ok(self.count(topics, present))
    }

    /// The subscribers of each topic.
    fn count(&self, topics: &[Topic], present: Vec<Present>) -> Vec<Subscribers> {
        let may_know = |topic| self.grant.may_know_names(topic).then(BTreeSet::new);
        let nobody = topics.iter().map(|topic| Subscribers { number: 0, names: may_know(topic) });
        let mut subscribers: Vec<_> = nobody.collect();
        for Present { topics, name } in present {
            for number in topics {
                let Some(one) = subscribers.get_mut(number) else { continue };
                one.number += 1;
                one.names.iter_mut().for_each(|names| names.extend(name.clone()));
            }
        }
        subscribers
    }
}

fn no_names() -> Error {
    Error::unavailable(
        "those who wait are not known",
        "the kernel does not say who waits (/proc/net/unix)",
        "mount /proc, or ask the server by --url",
    )
}

fn not_ours() -> Error {
    Error::unavailable(
        "those who wait are another user's",
        "subscribers wait in a process of another user",
        "call this as the web server's user or as root, or ask the server by --url",
    )
}

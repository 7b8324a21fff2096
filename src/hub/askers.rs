//! The processes that ask who waits here, as the leader sees them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::AsFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::crowd::{Crowd, Id};
use super::notice::Presence;
use super::waiter::Waiter;
use crate::event::Topic;
use crate::process::clock::{Clock, Interest};
use crate::process::peer::Peer;

/// The first byte of a message, before a [`Question`] as JSON.
pub(super) const ASK: u8 = b'a';
/// The message of one notice, or another part of an answer, follows.
pub(super) const ONE: u8 = b'o';
/// Those were all.
pub(super) const END: u8 = b'e';

/// How many processes may ask at once. Another one tries again.
const MAX_ASKERS: usize = 64;

/// How many subscribers, and how many messages, the leader looks at before it attends to
/// others again.
const MAX_LOOKED_AT: usize = 256;
const MAX_TOLD: usize = 64;

/// How long a process may leave its answer unread.
const PATIENCE: Duration = Duration::from_secs(1);

/// What can be asked.
#[derive(Serialize, Deserialize)]
pub(super) enum Question {
    /// The messages of the notices in topics that begin so.
    Notices(String),
    /// How many wait.
    Numbers,
    /// The subscribers of these topics.
    Topics(Vec<Topic>),
}

/// One who waits for some of the topics that were asked for.
#[derive(Serialize, Deserialize)]
pub(super) struct Present {
    /// The numbers of the topics in the question.
    pub topics: Vec<usize>,
    /// Its name, if its token has one.
    pub name: Option<String>,
}

/// Those that have asked and have not got the whole answer.
#[derive(Default)]
pub(super) struct Askers(BTreeMap<Id, Asker>);

struct Asker {
    peer: Peer,
    question: Question,
    /// The last subscriber that was looked at.
    last: Id,
    /// The messages about it that are still to be sent.
    unsaid: VecDeque<String>,
    /// When it has read last.
    progress: Duration,
}

impl Askers {
    /// Takes in a process that asks, which is answered when the leader attends to it.
    pub fn insert(&mut self, id: Id, peer: Peer, question: &[u8], clock: &mut dyn Clock) {
        let question = serde_json::from_slice(question).ok();
        let Some(question) = question.filter(|_| self.0.len() < MAX_ASKERS) else {
            return clock.ignore(peer.as_fd());
        };
        clock.attend(peer.as_fd(), id, Interest::Write);
        let (unsaid, progress) = (VecDeque::new(), clock.now());
        self.0.insert(id, Asker { peer, question, last: 0, unsaid, progress });
    }

    pub fn contains(&self, id: Id) -> bool {
        self.0.contains_key(&id)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says a part of the answer.
    pub fn answer(&mut self, id: Id, crowd: &Crowd, clock: &mut dyn Clock) {
        let Some(asker) = self.0.get_mut(&id) else { return };
        if asker.go_on(crowd, clock.now()).is_break() {
            clock.ignore(asker.peer.as_fd());
            self.0.remove(&id);
        }
    }

    /// Lets those go who do not read.
    pub fn drop_late(&mut self, clock: &mut dyn Clock) {
        let now = clock.now();
        self.0.retain(|_, asker| {
            let is_late = now > asker.progress + PATIENCE;
            if is_late {
                clock.ignore(asker.peer.as_fd());
            }
            !is_late
        });
    }

    /// Lets all go: they ask the next leader.
    pub fn clear(&mut self, clock: &mut dyn Clock) {
        for asker in std::mem::take(&mut self.0).values() {
            clock.ignore(asker.peer.as_fd());
        }
    }
}

impl Asker {
    /// Breaks at the end of the answer.
    fn go_on(&mut self, crowd: &Crowd, now: Duration) -> ControlFlow<()> {
        let mut left = self.question.subscribers_at_once();
        for _ in 0..MAX_TOLD {
            if self.unsaid.is_empty() {
                self.look(crowd, &mut left);
                self.progress = now;
            }
            let Some(text) = self.unsaid.front() else {
                let is_over = self.has_seen_all(crowd) && self.say(&[END]) != Said::Later;
                return if is_over { Break(()) } else { Continue(()) };
            };
            match self.say(&[&[ONE], text.as_bytes()].concat()) {
                Said::Now => drop(self.unsaid.pop_front()),
                Said::Later => return Continue(()),
                Said::Never => return Break(()),
            }
            self.progress = now;
        }
        Continue(())
    }

    /// Looks at the next subscribers, until there is something to say, or at none that is `left`.
    fn look(&mut self, crowd: &Crowd, left: &mut usize) {
        if let Question::Numbers = self.question {
            if self.last == 0 {
                self.unsaid.extend(serde_json::to_string(&crowd.numbers()));
            }
            self.last = Id::MAX - 1;
            return;
        }
        for (id, waiter) in crowd.after(self.last).take(*left) {
            (self.last, *left) = (id, *left - 1);
            self.unsaid.extend(self.question.about(waiter));
            if !self.unsaid.is_empty() {
                return;
            }
        }
    }

    fn has_seen_all(&self, crowd: &Crowd) -> bool {
        crowd.after(self.last).next().is_none()
    }

    fn say(&self, message: &[u8]) -> Said {
        match self.peer.send(message, &[]) {
            Ok(()) => Said::Now,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Said::Later,
            Err(_) => Said::Never,
        }
    }
}

impl Question {
    /// At how many subscribers the leader looks before it attends to others again. Each topic is
    /// compared with their patterns.
    fn subscribers_at_once(&self) -> usize {
        match self {
            Self::Topics(topics) => (MAX_LOOKED_AT / topics.len().max(1)).max(1),
            Self::Notices(_) | Self::Numbers => MAX_LOOKED_AT,
        }
    }

    /// The parts of the answer about one subscriber.
    fn about(&self, waiter: &Waiter) -> Vec<String> {
        match self {
            Self::Numbers => Vec::new(),
            Self::Notices(prefix) => {
                let notices = waiter.notices(Presence::Here).into_iter();
                let notices = notices.filter(|it| it.topic.as_str().starts_with(prefix));
                notices.map(|notice| notice.message.data).collect()
            }
            Self::Topics(topics) => {
                let wanted = topics.iter().enumerate().filter(|(_, it)| waiter.waits_for(it));
                let topics: Vec<_> = wanted.map(|(number, _)| number).collect();
                let name = waiter.name().map(str::to_owned);
                let is_one = !topics.is_empty();
                let present = is_one.then(|| serde_json::to_string(&Present { topics, name }));
                present.and_then(Result::ok).into_iter().collect()
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Said {
    Now,
    /// It has not read what was said before.
    Later,
    /// It has gone, or this is too long.
    Never,
}

#[cfg(test)]
mod tests {
    use std::os::fd::BorrowedFd;

    use super::*;
    use crate::event::Cursor;
    use crate::process::clock::Wake;
    use crate::process::peer::{Listener, Received};

    struct At(Duration);

    impl Clock for At {
        fn now(&self) -> Duration {
            self.0
        }

        fn wall(&self) -> Cursor {
            unreachable!("nobody asks for the time of day")
        }

        fn sleep(&mut self, _: Option<BorrowedFd<'_>>, _: Duration) -> Vec<Wake> {
            unreachable!("nobody sleeps")
        }

        fn attend(&mut self, _: BorrowedFd<'_>, _: Id, _: Interest) {}

        fn ignore(&mut self, _: BorrowedFd<'_>) {}
    }

    /// Both ends of the connection of a process that asks.
    fn pair(listener: &Listener, name: &str) -> (Peer, Peer) {
        let asker = Peer::connect(name).unwrap();
        (listener.accept().next().unwrap(), asker)
    }

    fn listener(name: &str) -> (Listener, String) {
        let name = format!("novcomet-askers-{name}-{}", std::process::id());
        (Listener::bind(&name).unwrap(), name)
    }

    #[test]
    fn process_that_reads_nothing_is_dropped() {
        let (listener, name) = listener("late");
        let (peer, asker) = pair(&listener, &name);
        let (mut askers, mut clock, mut buffer) = (Askers::default(), At(PATIENCE), Vec::new());
        askers.insert(1, peer, br#"{"Notices":"/a"}"#, &mut clock);
        clock.0 += PATIENCE;
        askers.drop_late(&mut clock);
        assert!(askers.contains(1), "it still has time");
        clock.0 += Duration::from_millis(1);
        askers.drop_late(&mut clock);
        assert!(!askers.contains(1));
        assert!(matches!(asker.receive(&mut buffer), Received::End));
    }

    #[test]
    fn so_many_ask_at_once() {
        let (listener, name) = listener("many");
        let (mut askers, mut clock, mut ends) = (Askers::default(), At(PATIENCE), Vec::new());
        for id in 0..=MAX_ASKERS as Id {
            let (peer, asker) = pair(&listener, &name);
            askers.insert(id, peer, br#"{"Notices":""}"#, &mut clock);
            ends.push(asker);
        }
        assert_eq!(askers.len(), MAX_ASKERS);
        let mut buffer = Vec::new();
        assert!(matches!(ends[MAX_ASKERS].receive(&mut buffer), Received::End));
        assert!(matches!(ends[0].receive(&mut buffer), Received::Nothing));
        askers.answer(0, &Crowd::default(), &mut clock);
        assert!(
            matches!(ends[0].receive(&mut buffer), Received::Message(said, _) if said == [END])
        );
        assert!(!askers.contains(0), "that was all");
    }

    /// Each topic is compared with the patterns of each subscriber.
    #[test]
    fn many_topics_are_compared_with_few_subscribers_at_once() {
        let topic = Topic::new("a").unwrap();
        let at_once = |count| Question::Topics(vec![topic.clone(); count]).subscribers_at_once();
        assert_eq!([1, 64, 999].map(at_once), [MAX_LOOKED_AT, MAX_LOOKED_AT / 64, 1]);
    }
}

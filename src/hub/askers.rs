//! The processes that ask who waits here, as the leader sees them.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::AsFd;
use std::time::Duration;

use super::crowd::{Crowd, Id};
use super::notice::Presence;
use crate::process::clock::{Clock, Interest};
use crate::process::peer::Peer;

/// The first byte of a message, before the beginning of the topics of what is asked for.
pub(super) const ASK: u8 = b'a';
/// The whole message of one who asks how many wait.
pub(super) const NUMBERS: u8 = b'n';
/// The message of one notice, or the numbers, follows.
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

/// Those that have asked and have not got the whole answer.
#[derive(Default)]
pub(super) struct Askers(BTreeMap<Id, Asker>);

struct Asker {
    peer: Peer,
    prefix: String,
    /// Whether it asks how many wait, and not who.
    wants_numbers: bool,
    /// The last subscriber that was looked at.
    last: Id,
    /// The messages about it that are still to be sent.
    unsaid: VecDeque<String>,
    /// When it has read last.
    progress: Duration,
}

impl Askers {
    /// Takes in a process that asks how many wait.
    pub fn insert_for_numbers(&mut self, id: Id, peer: Peer, clock: &mut dyn Clock) {
        self.insert(id, peer, b"", clock);
        if let Some(asker) = self.0.get_mut(&id) {
            asker.wants_numbers = true;
        }
    }

    /// Takes in a process that asks, which is answered when the leader attends to it.
    pub fn insert(&mut self, id: Id, peer: Peer, prefix: &[u8], clock: &mut dyn Clock) {
        if self.0.len() >= MAX_ASKERS {
            return clock.ignore(peer.as_fd());
        }
        clock.attend(peer.as_fd(), id, Interest::Write);
        let prefix = String::from_utf8_lossy(prefix).into_owned();
        let (unsaid, progress) = (VecDeque::new(), clock.now());
        self.0.insert(id, Asker { peer, prefix, wants_numbers: false, last: 0, unsaid, progress });
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
        for _ in 0..MAX_TOLD {
            if self.unsaid.is_empty() {
                self.look(crowd);
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

    /// Looks at the next subscribers, until there is something to say.
    fn look(&mut self, crowd: &Crowd) {
        if std::mem::take(&mut self.wants_numbers) {
            self.last = Id::MAX - 1;
            self.unsaid.extend(serde_json::to_string(&crowd.numbers()));
            return;
        }
        for (id, waiter) in crowd.after(self.last).take(MAX_LOOKED_AT) {
            self.last = id;
            let notices = waiter.notices(Presence::Here).into_iter();
            let notices = notices.filter(|it| it.topic.as_str().starts_with(&self.prefix));
            self.unsaid.extend(notices.map(|notice| notice.message.data));
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
        askers.insert(1, peer, b"/a", &mut clock);
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
            askers.insert(id, peer, b"", &mut clock);
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
}

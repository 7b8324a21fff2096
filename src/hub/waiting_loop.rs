//! The waiting loop of polls and streams, for one subscriber or a crowd: arm the watch,
//! read, deliver, sleep.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use super::crowd::{Crowd, Id};
use super::elsewhere;
use super::following::Following;
use super::forwarding::Forwarding;
use super::joining::{self, Duty, Early, Leader, Role, Said, Together};
use super::look::{Look, Wanted};
use super::notice::{Notice, Presence};
use super::sweep::Quiet;
use super::update::MAX_PIECE;
use super::waiter::{Found, Next, Waiter};
use crate::error::Error;
use crate::process::clock::{Clock, Interest, Wake};
use crate::process::connections::closed_by_clients;
use crate::process::figures::{self, Counter};
use crate::process::output::unwritable;
use crate::process::random::Random;
use crate::process::sandbox;
use crate::store::{Changes, Horizon, Store, Watch};

/// How long a leader without a standby goes on after its own answer. Its client, which
/// returns, may be the next.
const STRETCH: Duration = Duration::from_millis(250);

/// The same after SIGTERM: a server that stops waits for this process.
const HASTE: Duration = Duration::from_millis(40);

/// How long a client may take to read its last bytes after SIGTERM.
const GRACE: Duration = Duration::from_millis(100);

/// How often the clients of a crowd are looked for. A server tells nobody that a client has
/// gone whose process has ended.
const ROLL_CALL: Duration = Duration::from_secs(5);

/// How often other servers with the same store are told who waits here, and how soon after
/// somebody has come or gone.
const SHARING: Duration = Duration::from_secs(3);
const SHARING_SOON: Duration = Duration::from_millis(500);

/// How long a subscriber that waits alone lets pass before it tries again to join the
/// others; each time twice as long, up to the second time.
const JOIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_JOIN_PAUSE: Duration = Duration::from_secs(16);

/// Of how many subscribers that came or went the others learn between two sleeps.
const AT_ONCE: usize = 32;

/// How many that came before it are looked at for a newcomer.
const MAX_CAUGHT_UP: usize = 256;

/// How much a client may have unread when it is told of others, in bytes.
const MAX_UNREAD: usize = 2 * MAX_PIECE;

/// The number of the listening socket among those that a sleep attends to.
const LISTENER: Id = 0;

/// All subscribers that wait in a process, and what they share.
pub struct Shared<'a> {
    store: &'a dyn Store,
    clock: &'a mut dyn Clock,
    report: &'a mut dyn FnMut(&Error),
    watch: Option<Box<dyn Watch>>,
    crowd: Crowd,
    quiet: Quiet,
    /// The last number that was given.
    last: Id,
    /// Between two reads of the store, when nothing wakes the process.
    interval: Duration,
    /// When the store is read for all, though nothing has happened.
    next_look: Duration,
    /// When clients are looked for that have gone.
    next_roll_call: Duration,
    /// When other servers are told who waits here.
    next_sharing: Duration,
    /// When a subscriber that waits alone tries again to join the others, and how long
    /// it waits after that.
    next_join: Duration,
    join_pause: Duration,
    /// Whether the watch has woken the process, and nothing has come of it.
    is_in_vain: bool,
    together: Option<Together>,
    leader: Option<Box<Leader>>,
    forwarding: Option<Forwarding>,
    /// The notices of those who came and went, which they themselves do not hear.
    news: VecDeque<(Id, Vec<Notice>)>,
    /// Those whose answers have ended: to close them takes longer than to answer.
    finished: Vec<Id>,
    own: Own,
}

/// The subscriber of this process.
struct Own {
    id: Id,
    /// Its end, and when it came.
    ended: Option<(Duration, Ended)>,
    is_refused: bool,
    /// Whether its output is that of this process.
    has_streams: bool,
    /// Whether SIGTERM has come.
    is_terminated: bool,
    /// When this process exits, even if others wait.
    closes: Option<Duration>,
}

/// The end of a subscriber.
pub struct Ended {
    /// The answer of a poll, which is still to be written. It is empty after a stream, and
    /// for a client that has gone.
    pub answer: Vec<u8>,
    /// Whether the answer is an error.
    pub is_refused: bool,
    /// To be dropped after the answer is written: the kernel takes some 7 ms to remove an
    /// inotify instance.
    pub watch: Option<Box<dyn Watch>>,
}

impl<'a> Shared<'a> {
    /// No watch is made yet: many an answer is known at once. A topic that cannot
    /// be read is told to `report`.
    pub fn new(
        store: &'a dyn Store,
        clock: &'a mut dyn Clock,
        report: &'a mut dyn FnMut(&Error),
        together: Option<Together>,
    ) -> Self {
        let own = Own {
            id: LISTENER,
            ended: None,
            is_refused: false,
            has_streams: true,
            is_terminated: false,
            closes: None,
        };
        Self {
            store,
            clock,
            report,
            watch: None,
            crowd: Crowd::default(),
            quiet: Quiet::default(),
            last: LISTENER,
            interval: Duration::ZERO,
            next_look: Duration::ZERO,
            next_roll_call: Duration::ZERO,
            next_sharing: Duration::ZERO,
            next_join: Duration::MAX,
            join_pause: JOIN_PAUSE,
            is_in_vain: false,
            together,
            leader: None,
            forwarding: None,
            news: VecDeque::new(),
            finished: Vec::new(),
            own,
        }
    }

    /// Serves the subscriber of this process until its end, and those that join.
    #[must_use]
    pub fn wait(mut self, own: Waiter) -> Ended {
        if own.lacks_slot() {
            figures::add(Counter::SlotsRefused, 1);
        }
        self.interval = own.interval;
        self.next_look = self.clock.now() + self.interval;
        self.own.id = self.insert(own);
        self.join_at_first();
        loop {
            self.serve();
            self.clear();
            self.forward();
            self.relieve();
            self.announce(AT_ONCE);
            if self.is_over() {
                break;
            }
            if self.watch.is_none() && !self.crowd.is_dirty() && self.has_time() {
                self.settle();
                continue;
            }
            self.sleep();
        }
        self.end()
    }

    fn insert(&mut self, waiter: Waiter) -> Id {
        self.last += 1;
        // One that only looks has no time to go.
        if waiter.deadline > self.clock.now() {
            self.clock.attend(waiter.output.as_fd(), self.last, Interest::End);
        }
        self.crowd.insert(self.last, waiter);
        self.last
    }

    fn end(self) -> Ended {
        let ended = self.own.ended.map(|(_, ended)| ended);
        let nothing = Ended { answer: Vec::new(), is_refused: false, watch: None };
        Ended { watch: self.watch, ..ended.unwrap_or(nothing) }
    }

    /// Whether this process goes: its own answer has ended, and nobody else waits here.
    fn is_over(&mut self) -> bool {
        let Some((since, _)) = self.own.ended else { return false };
        if self.crowd.len() == 0 {
            self.forward_last();
            return true;
        }
        if self.own.closes.is_none() {
            // The next leader does not know of it.
            while self.has_standby() && !self.news.is_empty() {
                self.announce(AT_ONCE);
            }
            if self.leader.as_mut().is_some_and(|it| it.hand_over(&self.crowd, self.clock)) {
                figures::add(Counter::Handovers, 1);
                self.forward_last();
                return true;
            }
            let patience = if self.own.is_terminated { HASTE } else { STRETCH };
            if self.clock.now() >= since + patience {
                self.close();
            }
        }
        self.own.closes.is_some_and(|closes| self.clock.now() >= closes)
    }

    /// Ends all answers, each where it stands.
    fn close(&mut self) {
        let now = self.clock.now();
        self.own.closes = Some(now + GRACE);
        if let Some(leader) = &mut self.leader {
            leader.retire(self.clock);
        }
        for id in self.crowd.ids() {
            self.terminate(id);
        }
    }

    /// Whether the subscriber of this process has time to wait.
    fn has_time(&self) -> bool {
        let own = self.crowd.get(self.own.id);
        own.is_some_and(|own| !own.is_ending() && own.deadline > self.clock.now())
    }

    /// Before the first look: one by pattern with a position joins those that wait in another
    /// process, because that process knows the topics. This one would list the directory.
    fn join_at_first(&mut self) {
        let Some(together) = self.together.clone().filter(|_| self.has_time()) else { return };
        let Some(own) = self.crowd.get(self.own.id) else { return };
        if own.following.as_ref().and_then(Following::after).is_none() {
            return;
        }
        match joining::join_at_first(&together, own) {
            Early::Joined(standby) => self.stand_by(standby, &together),
            Early::Absent => {}
            Early::Busy => self.put_off_joining(),
        }
    }

    /// Lets processes end that are not needed any more, once newcomers have been served.
    fn relieve(&mut self) {
        if let Some(leader) = self.leader.as_mut().filter(|_| !self.crowd.is_dirty()) {
            leader.relieve(self.clock);
        }
    }

    /// Before the first sleep: joins those that wait in another process, or makes the
    /// watch.
    fn settle(&mut self) {
        if self.next_join == Duration::MAX {
            if self.joins() {
                return;
            }
            self.put_off_joining();
        }
        self.watch = Some(self.store.watch());
        self.plan_look();
        self.crowd.touch_all();
    }

    /// Joins those that wait in another process, or leads them. Returns whether the
    /// subscriber waits, or has waited, in the other process.
    fn joins(&mut self) -> bool {
        let Some(together) = self.together.clone().filter(|_| self.can_join()) else {
            return false;
        };
        let role = match self.crowd.get(self.own.id) {
            Some(own) => joining::join(&together, own),
            None => Role::Alone,
        };
        match role {
            Role::Alone => false,
            Role::Leader(leader) => {
                self.lead(leader);
                self.note(self.own.id, Presence::Here);
                false
            }
            Role::Standby(standby) => {
                self.watch = None;
                self.stand_by(standby, &together);
                true
            }
        }
    }

    /// A leader that was too busy for this newcomer, or had no room, may have time now.
    /// Returns whether the subscriber waits there.
    fn joins_late(&mut self, now: Duration) -> bool {
        if now < self.next_join {
            return false;
        }
        self.put_off_joining();
        self.has_time() && self.joins()
    }

    /// Newcomers of one moment do not come again at one moment.
    fn put_off_joining(&mut self) {
        let is_alone = self.together.is_some() && self.leader.is_none();
        let spread = self.join_pause.mul_f64(f64::from(Random::new().below(1000)) / 1000.0);
        let next = self.clock.now() + self.join_pause / 2 + spread;
        self.next_join = if is_alone { next } else { Duration::MAX };
        self.join_pause = (self.join_pause * 2).min(MAX_JOIN_PAUSE);
    }

    fn plan_look(&mut self) {
        let pause = self.watch.as_ref().map_or(Duration::MAX, |watch| watch.poll_interval());
        self.next_look = self.clock.now().saturating_add(self.interval.min(pause));
    }

    fn can_join(&self) -> bool {
        let own = self.crowd.get(self.own.id);
        own.is_some_and(|own| !own.is_unsent() && own.is_quiet()) && !self.own.is_terminated
    }

    fn lead(&mut self, leader: Box<Leader>) {
        leader.attend(self.clock, LISTENER);
        self.leader = Some(leader);
        self.forwarding = self.together.as_ref().and_then(|it| Forwarding::to(&it.proxies));
        self.next_join = Duration::MAX;
    }

    /// The subscriber of this process waits in the leader. Its descriptors are closed
    /// here, so that its answer ends when the leader says so.
    fn stand_by(&mut self, standby: joining::Standby, together: &Together) {
        if let Some((waiter, _)) = self.crowd.remove(self.own.id) {
            self.clock.ignore(waiter.output.as_fd());
        }
        sandbox::detach_standard_streams();
        self.own.has_streams = false;
        let nothing = Ended { answer: Vec::new(), is_refused: false, watch: None };
        let ended = Some((self.clock.now(), nothing));
        match standby.wait(together, self.interval, self.clock) {
            Duty::Over => self.own.ended = ended,
            Duty::Lost => {
                figures::add(Counter::LostLeaders, 1);
                (self.report)(&lost());
                self.own.ended = ended;
            }
            Duty::Leads(succession) => {
                self.last = succession.last;
                self.own.id = succession.own.unwrap_or(LISTENER);
                self.own.is_terminated = succession.is_terminated;
                if succession.own.is_none() {
                    self.own.ended = ended;
                }
                self.lead(Box::new(succession.leader));
                for (id, waiter) in succession.waiters {
                    self.clock.attend(waiter.output.as_fd(), id, Interest::End);
                    self.crowd.insert(id, waiter);
                    self.flush(id);
                }
                self.watch = Some(self.store.watch());
                self.plan_look();
                if self.own.is_terminated {
                    self.close();
                }
            }
        }
    }

    /// Reads the store for as many as one look serves, and delivers what it has for them.
    ///
    /// The watch is armed before the read, so an event between the read and the
    /// sleep ends the sleep. A wake-up is only a hint: the store is read after
    /// each, and at every interval without any. There is no watch before the
    /// first read.
    fn serve(&mut self) {
        let (batch, wanted) = self.crowd.batch();
        if batch.is_empty() {
            return;
        }
        self.arm(&wanted);
        let horizon = self.find_horizon(&batch);
        let following = self.crowd.following(&batch);
        let look = Look::at(self.store, &wanted, &following, horizon, &mut self.quiet);
        if let Err(error) = &look {
            figures::add(Counter::StoreErrors, 1);
            (self.report)(error);
        }
        for id in batch {
            self.serve_one(id, look.as_ref());
        }
    }

    fn arm(&mut self, wanted: &Wanted) {
        let Some(watch) = &mut self.watch else { return };
        if self.crowd.has_following() || self.forwarding.is_some() {
            watch.arm_all();
        }
        watch.arm(&wanted.topics());
    }

    /// For subscribers by pattern. The changes before it must be known to the survey, so
    /// that it misses no topic.
    fn find_horizon(&mut self, batch: &[Id]) -> Option<Result<Horizon, Error>> {
        if self.crowd.following(batch).is_empty() {
            return None;
        }
        let horizon = self.store.horizon();
        if let Some(watch) = &mut self.watch {
            let changes = watch.catch_up();
            self.notice(&changes);
        }
        Some(horizon)
    }

    /// Returns whether the store is to be read for somebody here.
    fn notice(&mut self, changes: &Changes) -> bool {
        if let Some(forwarding) = &mut self.forwarding {
            forwarding.note(changes);
        }
        self.crowd.touch_changed(changes)
    }

    /// Tells proxies of what others than publishers have changed.
    fn forward(&mut self) {
        let now = self.clock.now();
        let is_served = !self.crowd.is_dirty() || self.own.ended.is_some();
        if !is_served || self.forwarding_due() > now {
            return;
        }
        let Some(forwarding) = &mut self.forwarding else { return };
        // The connection to a server may be in use for the watch.
        if let Some(watch) = &mut self.watch {
            watch.arm(&[]);
        }
        forwarding.forward(self.store, now, self.report);
    }

    /// The same at the end: the next leader does not hear of what was changed before.
    fn forward_last(&mut self) {
        if let (Some(forwarding), Some(watch)) = (&mut self.forwarding, &mut self.watch) {
            forwarding.note(&watch.catch_up());
            self.forward();
        }
    }

    /// When a proxy is to be told; never after SIGTERM, because a server that stops waits.
    fn forwarding_due(&self) -> Duration {
        let forwarding = self.forwarding.as_ref().filter(|_| !self.own.is_terminated);
        forwarding.map_or(Duration::MAX, Forwarding::due)
    }

    fn serve_one(&mut self, id: Id, look: Result<&Look, &Error>) {
        let now = self.clock.now();
        let Some(waiter) = self.crowd.get_mut(id) else { return };
        let report = &mut |error: &Error| {
            figures::add(Counter::StoreErrors, 1);
            (self.report)(error);
        };
        let taken = match look {
            Ok(look) => waiter.take(look, now, report),
            Err(error) => return self.refuse(id, error),
        };
        let is_whole = match taken {
            Ok(is_whole) => is_whole,
            Err(error) => {
                (self.report)(&error);
                return self.refuse(id, &error);
            }
        };
        if let Some(found) = waiter.found(is_whole, now) {
            self.is_in_vain &= found != Found::Updates;
            return self.deliver(id, found);
        }
        let is_settled = waiter.subscriptions.is_settled();
        self.is_in_vain &= is_settled;
        if is_settled && !is_whole && !waiter.is_held(now) {
            self.crowd.touch(id);
        }
        self.crowd.plan(id, now);
    }

    fn deliver(&mut self, id: Id, found: Found) {
        let now = self.clock.now();
        let Some(waiter) = self.crowd.get_mut(id) else { return };
        match waiter.deliver(found, now) {
            Ok(Next::Continue(bytes)) => {
                waiter.output.push(bytes, now);
                self.flush(id);
                // There may be more than one piece holds.
                if found == Found::Updates {
                    self.crowd.touch(id);
                }
            }
            Ok(Next::End(bytes)) => match self.keep_place(id) {
                Ok(()) => self.finish(id, bytes),
                Err(error) => self.refuse(id, &error),
            },
            Err(error) => self.refuse(id, &error),
        }
    }

    /// The log of a session says what its client is told before that is told: after a kill in
    /// between it comes again only to a client that says what it has received. Without a place
    /// in the log it would come again to everybody.
    fn keep_place(&mut self, id: Id) -> Result<(), Error> {
        let Some(waiter) = self.crowd.get(id) else { return Ok(()) };
        let Some((bookmark, following)) = waiter.bookmark() else { return Ok(()) };
        // The connection to a server may be in use for the watch.
        if let Some(watch) = &mut self.watch {
            watch.arm(&[]);
        }
        let noted = bookmark.note(self.store, following.position(), following.told());
        noted.inspect_err(|error| (self.report)(error))
    }

    fn refuse(&mut self, id: Id, error: &Error) {
        let Some(waiter) = self.crowd.get(id) else { return };
        let bytes = waiter.refuse(error);
        figures::refused(error.status());
        self.own.is_refused |= id == self.own.id;
        self.finish(id, bytes);
    }

    /// Ends an answer with these bytes. If nobody else waits here, they are left to be
    /// written, so that the other streams of the process end before them.
    fn finish(&mut self, id: Id, bytes: Vec<u8>) {
        let now = self.clock.now();
        let is_alone = self.crowd.len() == 1 && self.forwarding_due() > now;
        let is_last = id == self.own.id && self.own.has_streams && is_alone;
        let Some(waiter) = self.crowd.get(id) else { return };
        if is_last && !waiter.is_unsent() {
            return self.remove(id, bytes);
        }
        self.crowd.end(id, bytes, now);
        let is_hurried = self.own.is_terminated || self.own.closes.is_some();
        if let Some(waiter) = self.crowd.get_mut(id).filter(|_| is_hurried) {
            waiter.hurry(now + GRACE);
        }
        self.flush(id);
    }

    /// Tells a subscriber that this is all.
    fn terminate(&mut self, id: Id) {
        let Some(waiter) = self.crowd.get_mut(id) else { return };
        if waiter.is_ending() {
            let haste = self.clock.now() + GRACE;
            waiter.hurry(haste);
            return self.crowd.plan(id, haste);
        }
        match waiter.has_updates() {
            true if !waiter.is_unsent() => self.deliver(id, Found::Updates),
            _ => self.deliver(id, Found::Terminated),
        }
        // A stream goes on after its updates.
        if self.crowd.get(id).is_some_and(|waiter| !waiter.is_ending()) {
            self.deliver(id, Found::Terminated);
        }
    }

    /// Writes what the client reads without delay.
    fn flush(&mut self, id: Id) {
        let now = self.clock.now();
        let Some(waiter) = self.crowd.get_mut(id) else { return };
        match waiter.output.flush(now) {
            Ok(true) if waiter.is_ending() => return self.finished.push(id),
            Ok(true) => {}
            Ok(false) => self.clock.attend(waiter.output.as_fd(), id, Interest::Write),
            Err(cause) => {
                if let Some(fault) = unwritable(&cause) {
                    (self.report)(&fault);
                    self.own.is_refused |= id == self.own.id;
                }
                return self.remove(id, Vec::new());
            }
        }
        self.crowd.plan(id, now);
    }

    /// The client has read, or has gone.
    fn ready(&mut self, id: Id, is_gone: bool) {
        let Some(waiter) = self.crowd.get(id) else { return };
        match waiter.is_unsent() {
            _ if is_gone => self.remove(id, Vec::new()),
            false => self.clock.attend(waiter.output.as_fd(), id, Interest::End),
            true => {
                self.flush(id);
                let Some(waiter) = self.crowd.get(id).filter(|waiter| !waiter.is_unsent()) else {
                    return;
                };
                self.clock.attend(waiter.output.as_fd(), id, Interest::End);
                self.crowd.touch(id);
            }
        }
    }

    /// Lets those go whose answers have ended, after all have been written.
    fn clear(&mut self) {
        for id in std::mem::take(&mut self.finished) {
            self.remove(id, Vec::new());
        }
    }

    /// Lets a subscriber go, with what is left to be written.
    fn remove(&mut self, id: Id, answer: Vec<u8>) {
        self.note(id, Presence::Gone);
        let Some((waiter, abandoned)) = self.crowd.remove(id) else { return };
        self.clock.ignore(waiter.output.as_fd());
        if let Some(watch) = &mut self.watch {
            for topic in &abandoned {
                watch.forget(topic);
            }
        }
        if let Some(leader) = &mut self.leader {
            leader.release(id, self.clock);
        }
        if id == self.own.id {
            let ended = Ended { answer, is_refused: self.own.is_refused, watch: None };
            self.own.ended = Some((self.clock.now(), ended));
        }
    }

    /// A subscriber has come or goes. The others learn it soon, unless all end here.
    fn note(&mut self, id: Id, presence: Presence) {
        if self.leader.is_none() || self.own.closes.is_some() {
            return;
        }
        self.next_sharing = self.next_sharing.min(self.clock.now() + SHARING_SOON);
        let notices = self.crowd.get(id).map(|waiter| self.notices(waiter, presence));
        if let Some(notices) = notices.filter(|notices| !notices.is_empty()) {
            self.news.push_back((id, notices));
        }
    }

    fn notices(&self, waiter: &Waiter, presence: Presence) -> Vec<Notice> {
        let mut notices = waiter.notices(presence);
        if self.together.as_ref().is_some_and(|together| together.tells_presence) {
            notices.extend(waiter.arrivals(presence));
        }
        notices
    }

    /// Tells a newcomer of those who came before it, but after the beginning of its stream:
    /// its client may have asked who is here since then. Only followers are told of others.
    fn catch_up(&mut self, id: Id) {
        let Some(waiter) = self.crowd.get(id) else { return };
        if waiter.following.is_none() {
            return;
        }
        let since = waiter.started();
        let others = self.crowd.latest_followers().take(MAX_CAUGHT_UP);
        let later = others.filter(|(other, waiter)| *other != id && waiter.started() >= since);
        let notices: Vec<_> =
            later.flat_map(|(_, waiter)| self.notices(waiter, Presence::Here)).collect();
        if !notices.is_empty() {
            self.announce_to(id, &notices);
        }
    }

    /// Tells the others of those who came and went, of at most `count` of them.
    fn announce(&mut self, count: usize) {
        let count = count.min(self.news.len());
        for (about, notices) in self.news.drain(..count).collect::<Vec<_>>() {
            for id in self.crowd.followers() {
                if id != about {
                    self.announce_to(id, &notices);
                }
            }
        }
    }

    /// A client that has left too much unread comes back.
    fn announce_to(&mut self, id: Id, notices: &[Notice]) {
        let now = self.clock.now();
        let Some(waiter) = self.crowd.get_mut(id) else { return };
        let bytes = waiter.hear(notices);
        if bytes.is_empty() {
            return;
        }
        if waiter.output.unsent().len() + bytes.len() > MAX_UNREAD {
            return self.remove(id, Vec::new());
        }
        let is_slow = waiter.is_unsent();
        waiter.output.push(bytes, now);
        // What a slow one has unread is written when it reads.
        if !is_slow {
            self.flush(id);
        }
    }

    /// Sleeps until somebody is due or something happens, and ignores the watch while
    /// that is to rest. A change during the rest ends the sleep afterwards.
    fn sleep(&mut self) {
        figures::flush();
        let now = self.clock.now();
        let mut until = self.until(now);
        let fd = match &mut self.watch {
            Some(watch) if until > now => {
                if std::mem::take(&mut self.is_in_vain) {
                    watch.report_false_wakeup();
                }
                let rest = watch.cooldown();
                if rest.is_zero() {
                    watch.fd(until.saturating_sub(now))
                } else {
                    until = until.min(now + rest);
                    None
                }
            }
            _ => None,
        };
        let wakes = self.clock.sleep(fd, until);
        for wake in wakes {
            self.woken(wake);
        }
        self.look_after();
        self.clear();
    }

    /// When to wake though nothing happens.
    fn until(&self, now: Duration) -> Duration {
        if self.crowd.is_dirty() || !self.news.is_empty() {
            return now;
        }
        let due = self.crowd.next_due().unwrap_or(Duration::MAX);
        let end = match (&self.own.ended, self.own.closes) {
            (Some(_), Some(closes)) => closes,
            (Some((since, _)), None) if self.own.is_terminated => *since + HASTE,
            (Some((since, _)), None) => *since + STRETCH,
            (None, _) => Duration::MAX,
        };
        let roll_call = if self.has_others() { self.next_roll_call } else { Duration::MAX };
        let sharing = if self.shares() { self.next_sharing } else { Duration::MAX };
        let forwarding = self.forwarding_due();
        let next = due.min(end).min(forwarding).min(self.next_look);
        next.min(self.next_join).min(roll_call).min(sharing)
    }

    fn woken(&mut self, wake: Wake) {
        match wake {
            Wake::Terminated => self.stop(),
            Wake::Changed => {
                let changes = self.watch.as_mut().map(|watch| watch.changes());
                self.is_in_vain = changes.is_some_and(|changes| self.notice(&changes));
            }
            Wake::Ready { id: LISTENER, .. } => {
                if let Some(leader) = &mut self.leader {
                    leader.accept(&self.crowd, self.clock, &mut self.last);
                }
            }
            Wake::Ready { id, is_gone } => match &mut self.leader {
                Some(leader) if leader.knows(id) => self.hear(id),
                _ => self.ready(id, is_gone),
            },
        }
    }

    /// A process has said something.
    fn hear(&mut self, id: Id) {
        let Some(leader) = &mut self.leader else { return };
        match leader.hear(id, &self.crowd, self.interval, self.clock) {
            Said::Nothing => {}
            Said::Terminated(waiter) => self.terminate(waiter),
            Said::Joins(newcomer) => {
                let (waiter, process) = newcomer.split();
                let waiter = self.insert(waiter);
                self.note(waiter, Presence::Here);
                self.catch_up(waiter);
                self.last += 1;
                if let Some(leader) = &mut self.leader {
                    leader.welcome(self.last, waiter, process, self.clock);
                }
            }
        }
    }

    /// SIGTERM: the server stops, or the client of this process has gone.
    fn stop(&mut self) {
        self.own.is_terminated = true;
        if self.own.ended.is_none() {
            self.terminate(self.own.id);
            if !self.has_standby() && self.crowd.len() > 0 {
                self.close();
            }
        }
    }

    fn has_standby(&self) -> bool {
        self.leader.as_ref().is_some_and(|leader| leader.has_standby())
    }

    /// Looks after those whose time has come.
    fn look_after(&mut self) {
        let now = self.clock.now();
        for id in self.crowd.take_due(now) {
            let Some(waiter) = self.crowd.get(id) else { continue };
            if waiter.is_unsent() || waiter.is_ending() {
                // It reads nothing, or too slowly.
                self.remove(id, Vec::new());
            } else {
                self.crowd.touch(id);
            }
        }
        if self.joins_late(now) {
            return;
        }
        if now >= self.next_look {
            self.crowd.touch_all();
            self.plan_look();
        }
        if self.has_others() && now >= self.next_roll_call {
            self.call_the_roll();
            self.next_roll_call = now + ROLL_CALL;
        }
        if self.shares() && now >= self.next_sharing {
            self.share();
            self.next_sharing = now + SHARING;
        }
    }

    /// Whether other servers with the same store are told who waits here.
    fn shares(&self) -> bool {
        let tells = self.together.as_ref().is_some_and(|together| together.tells_presence);
        tells && self.leader.is_some() && self.store.directory().is_none()
    }

    fn share(&mut self) {
        let Some(together) = &self.together else { return };
        // The connection to a server may be in use for the watch.
        if let Some(watch) = &mut self.watch {
            watch.arm(&[]);
        }
        // A store that cannot be used is reported by those who read it.
        let _ = elsewhere::share(self.store, together, &self.crowd);
    }

    /// Whether subscribers of other processes wait here.
    fn has_others(&self) -> bool {
        self.leader.is_some() && self.crowd.len() > 1
    }

    /// Ends the answers of clients that have closed their connections.
    fn call_the_roll(&mut self) {
        let closed = closed_by_clients();
        for id in self.crowd.ids() {
            let client = self.crowd.get(id).and_then(|waiter| waiter.client);
            if client.is_some_and(|client| closed.contains(&client)) {
                self.terminate(id);
            }
        }
    }
}

/// One line, by the process that would have been next.
fn lost() -> Error {
    Error::unavailable(
        "the subscriber's process was killed",
        "the process in which subscribers wait together was killed",
        "their clients reconnect, and nothing is lost",
    )
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::fs::File;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::rc::Rc;

    use super::*;
    use crate::auth::grant::Grant;
    use crate::cgi::{Head, Response};
    use crate::event::{Cursor, Draft, Message, Since, Topic};
    use crate::hub::subscription::Subscription;
    use crate::hub::update::{Piece, UNSETTLED_LIMIT, UNSETTLED_PAUSE, Update};
    use crate::hub::waiter::{self, Renderer, Until};
    use crate::process::output::Output;
    use crate::store::{Budget, Reading, Readings};

    const SECOND: Duration = Duration::from_secs(1);
    const TIMEOUT: Duration = Duration::from_secs(40);

    /// A store whose readings are fixed beforehand. The last one is repeated.
    struct Script {
        readings: RefCell<VecDeque<Reading>>,
        said: Rc<RefCell<Vec<&'static str>>>,
    }

    struct ScriptWatch(Rc<RefCell<Vec<&'static str>>>);

    impl Watch for ScriptWatch {
        fn arm(&mut self, _: &[&Topic]) {
            self.0.borrow_mut().push("arm");
        }

        fn fd(&mut self, _: Duration) -> Option<BorrowedFd<'_>> {
            None
        }
    }

    impl Store for Script {
        fn put(&self, _: &Topic, _: Option<Draft>) -> Result<Cursor, Error> {
            unreachable!("a subscriber publishes nothing")
        }

        fn look(&self, wanted: &[(&Topic, Since)], _: &mut Budget) -> Result<Readings, Error> {
            let read = |_| {
                self.said.borrow_mut().push("read");
                let mut readings = self.readings.borrow_mut();
                let first = readings[0].clone();
                if readings.len() > 1 {
                    readings.pop_front();
                }
                Some(Ok(first))
            };
            Ok(wanted.iter().map(read).collect())
        }

        fn watch(&self) -> Box<dyn Watch> {
            Box::new(ScriptWatch(self.said.clone()))
        }
    }

    /// A clock that never waits; `wakes` end its sleeps.
    #[derive(Default)]
    struct FakeClock {
        time: Duration,
        wakes: VecDeque<Wake>,
        sleeps: Vec<Duration>,
    }

    impl Clock for FakeClock {
        fn now(&self) -> Duration {
            self.time
        }

        fn wall(&self) -> Cursor {
            Cursor::at(1000, 500_000_000)
        }

        fn sleep(&mut self, _: Option<BorrowedFd<'_>>, until: Duration) -> Vec<Wake> {
            self.sleeps.push(until.saturating_sub(self.time));
            self.time = self.time.max(until);
            self.wakes.pop_front().into_iter().collect()
        }

        fn attend(&mut self, _: BorrowedFd<'_>, _: u64, _: Interest) {}

        fn ignore(&mut self, _: BorrowedFd<'_>) {}
    }

    fn woken_by(wake: Wake) -> FakeClock {
        FakeClock { wakes: [wake].into(), ..FakeClock::default() }
    }

    fn at(seconds: i64) -> Cursor {
        Cursor::at(seconds, 250_000_000)
    }

    fn settled(standing: Cursor) -> Reading {
        Reading::quiet(standing)
    }

    fn at_work(standing: Cursor) -> Reading {
        Reading { pending: Some(at(950)), ..Reading::quiet(standing) }
    }

    fn script(readings: &[Reading]) -> Script {
        Script { readings: RefCell::new(readings.to_vec().into()), said: Rc::default() }
    }

    fn no_report(error: &Error) {
        panic!("{error:?}");
    }

    fn topic() -> Topic {
        Topic::new("a").unwrap()
    }

    fn run(store: &Script, clock: &mut FakeClock, since: Since) -> Piece {
        let subscriptions = vec![Subscription { topic: topic(), since }];
        pieces_of(store, clock, Until::FirstUpdate, subscriptions, 1).pop().unwrap()
    }

    /// Keeps the pieces, until it has `enough`.
    struct Recorder {
        pieces: Rc<RefCell<Vec<Piece>>>,
        enough: usize,
    }

    impl Renderer for Recorder {
        fn head(&self) -> Head {
            Head::new(200, "text/plain")
        }

        fn render(&mut self, piece: &Piece) -> Vec<u8> {
            self.pieces.borrow_mut().push(piece.clone());
            Vec::new()
        }

        fn size(&self, _: &Topic, _: &Message) -> usize {
            0
        }

        fn is_done(&self) -> bool {
            self.pieces.borrow().len() >= self.enough
        }

        fn refuse(&self, error: &Error) -> Response {
            panic!("{error:?}")
        }

        fn save(&self) -> String {
            unreachable!("nobody else is there")
        }
    }

    fn pieces_of(
        store: &Script,
        clock: &mut FakeClock,
        until: Until,
        subscriptions: Vec<Subscription>,
        enough: usize,
    ) -> Vec<Piece> {
        let pieces = Rc::default();
        let wanted = waiter::Wanted {
            subscriptions,
            following: None,
            until,
            timeout: TIMEOUT,
            interval: 2 * SECOND,
            retry_after: None,
            grant: Grant::to_subscribe(),
            renderer: Box::new(Recorder { pieces: Rc::clone(&pieces), enough }),
            client: None,
            slot: None,
            pause: Duration::ZERO,
            bookmark: None,
            hold: None,
        };
        let null: &'static File =
            Box::leak(Box::new(File::options().write(true).open("/dev/null").unwrap()));
        let waiter = Waiter::new(wanted, Output::new(null.as_fd()), clock.now(), clock.wall());
        let ended = Shared::new(store, clock, &mut no_report, None).wait(waiter);
        assert!(!ended.is_refused);
        pieces.take()
    }

    fn run_script(readings: &[Reading], since: Since) -> Piece {
        run(&script(readings), &mut FakeClock::default(), since)
    }

    fn updates(cursor: Cursor) -> Piece {
        Piece::Updates(vec![Update { topic: topic(), cursor, messages: vec![], gap: false }])
    }

    fn timeout(cursor: Cursor) -> Piece {
        Piece::Timeout(vec![(topic(), cursor)])
    }

    fn start(cursors: Vec<(Topic, Cursor)>) -> Piece {
        Piece::Start { cursors, retry_after: None }
    }

    #[test]
    fn store_is_read_after_watch_is_armed() {
        let old = settled(at(900));
        let store = script(&[old.clone(), old.clone(), old, settled(at(2000))]);
        run(&store, &mut FakeClock::default(), Since::Cursor(at(900)));
        assert_eq!(*store.said.borrow(), ["read", "arm", "read", "arm", "read", "arm", "read"]);
    }

    #[test]
    fn immediate_news_creates_no_watch() {
        let store = script(&[settled(at(900))]);
        run(&store, &mut FakeClock::default(), Since::Cursor(at(1)));
        assert_eq!(*store.said.borrow(), ["read"]);
    }

    #[test]
    fn store_is_read_after_each_sleep() {
        let store = script(&[settled(at(900))]);
        let mut clock = FakeClock::default();
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), timeout(at(900)));
        assert_eq!(clock.sleeps, [2 * SECOND; 20]);
        assert_eq!(store.said.borrow().len(), 1 + 2 * 21);
    }

    #[test]
    fn event_at_the_last_moment_is_delivered() {
        let mut readings = vec![settled(at(900)); 21];
        readings.push(settled(at(1040)));
        assert_eq!(run_script(&readings, Since::Now), updates(at(1040)));
    }

    #[test]
    fn future_now_is_resolved_once() {
        let readings = [settled(at(5000)), settled(at(5000)), settled(at(5001))];
        for since in [Since::Now, Since::Second(1000), Since::Second(9999)] {
            assert_eq!(run_script(&readings, since), updates(at(5001)));
        }
    }

    #[test]
    fn first_event_with_a_future_time_counts() {
        let readings = [settled(Cursor::SMALLEST), settled(at(3))];
        assert_eq!(run_script(&readings, Since::Now), updates(at(3)));
    }

    #[test]
    fn gap_with_an_earlier_cursor_is_news() {
        let gap = Reading { gap: true, ..settled(at(800)) };
        let expected = Update { topic: topic(), cursor: at(800), messages: Vec::new(), gap: true };
        let outcome = run_script(&[settled(at(900)), gap], Since::Cursor(at(900)));
        assert_eq!(outcome, Piece::Updates(vec![expected]));
    }

    #[test]
    fn earliest_without_messages_waits() {
        let message = Message::new(at(950), "x");
        let found = Reading { messages: vec![message.clone()], ..settled(at(950)) };
        for since in [Since::Earliest, Since::Cursor(at(900))] {
            match run_script(&[settled(at(900)), found.clone()], since) {
                Piece::Updates(all) => {
                    assert_eq!(all[0].messages, std::slice::from_ref(&message));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(run_script(&[settled(at(900))], Since::Earliest), timeout(at(900)));
    }

    #[test]
    fn latest_without_message_means_from_now_on() {
        for since in [Since::Latest, Since::Cursor(Cursor::LATEST)] {
            assert_eq!(run_script(&[settled(at(900))], since), timeout(at(900)));
            let readings = [settled(at(900)), settled(at(950))];
            assert_eq!(run_script(&readings, since), updates(at(950)));
        }
        let mut clock = FakeClock::default();
        let store = script(&[at_work(at(900))]);
        assert_eq!(run(&store, &mut clock, Since::Latest), timeout(at(900)));
    }

    #[test]
    fn running_publisher_is_polled_every_millisecond() {
        let mut clock = FakeClock::default();
        let store = script(&[vec![at_work(at(900)); 3].as_slice(), &[settled(at(950))]].concat());
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), updates(at(950)));
        assert_eq!(clock.sleeps, [UNSETTLED_PAUSE; 2]);
        let store = script(&[vec![at_work(at(900)); 5].as_slice(), &[settled(at(950))]].concat());
        clock.sleeps.clear();
        run(&store, &mut clock, Since::Cursor(at(900)));
        assert_eq!(clock.sleeps, [1, 1, 2, 4].map(Duration::from_millis));
    }

    #[test]
    fn hanging_publisher_holds_readers_only_briefly() {
        let mut clock = FakeClock::default();
        let store = script(&[at_work(at(900))]);
        // The time may yet be replaced: the cursor stays.
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), updates(at(900)));
        assert!(clock.time == UNSETTLED_LIMIT);
    }

    #[test]
    fn sigterm_answers_with_settled_cursors() {
        let end = |reading| run(&script(&[reading]), &mut woken_by(Wake::Terminated), Since::Now);
        assert_eq!(end(settled(at(900))), timeout(at(900)));
        assert_eq!(end(at_work(at(900))), Piece::Timeout(vec![]));
    }

    #[test]
    fn disconnected_client_gets_nothing() {
        let mut clock = woken_by(Wake::Ready { id: 1, is_gone: true });
        let subscriptions = vec![Subscription { topic: topic(), since: Since::Now }];
        let store = script(&[settled(at(900))]);
        assert_eq!(pieces_of(&store, &mut clock, Until::FirstUpdate, subscriptions, 1), []);
    }

    /// The pieces of a stream, until it ends or there are `enough`.
    fn stream(store: &Script, clock: &mut FakeClock, since: Since, enough: usize) -> Vec<Piece> {
        let subscriptions = vec![Subscription { topic: topic(), since }];
        pieces_of(store, clock, Until::Deadline, subscriptions, enough)
    }

    #[test]
    fn stream_starts_with_cursors_and_continues() {
        let readings = [settled(at(900)), settled(at(950)), settled(at(950)), settled(at(960))];
        let sent = stream(&script(&readings), &mut FakeClock::default(), Since::Now, 3);
        let begin = start(vec![(topic(), at(900))]);
        assert_eq!(sent, [begin, updates(at(950)), updates(at(960))]);
    }

    #[test]
    fn stream_sends_heartbeats_until_its_end() {
        let mut clock = FakeClock::default();
        let sent = stream(&script(&[settled(at(900))]), &mut clock, Since::Now, 99);
        // At 1, 2, 4, 8, 16, 31 and 40 s.
        assert_eq!(sent[1..], [const { Piece::Heartbeat }; 7]);
        assert_eq!(clock.time, TIMEOUT);
    }

    #[test]
    fn busy_stream_ends_on_sigterm() {
        let busy = Reading { gap: true, ..settled(at(900)) };
        let mut clock = woken_by(Wake::Terminated);
        assert_eq!(stream(&script(&[busy]), &mut clock, Since::Cursor(at(1)), 99).len(), 2);
    }

    /// A client that returns with fewer cursors than topics gets 400, after which an
    /// `EventSource` never reconnects.
    #[test]
    fn stream_ended_at_start_has_no_cursors() {
        let mut clock = woken_by(Wake::Terminated);
        let sent = stream(&script(&[at_work(at(900))]), &mut clock, Since::Now, 99);
        assert_eq!(sent, [start(Vec::new())]);
        let subscription =
            |name: &str| Subscription { topic: Topic::new(name).unwrap(), since: Since::Now };
        let news = Reading { gap: true, ..settled(at(950)) };
        let store = script(&[at_work(at(900)), news]);
        let topics = vec![subscription("a"), subscription("b")];
        let mut clock = woken_by(Wake::Terminated);
        let sent = pieces_of(&store, &mut clock, Until::Deadline, topics, 99);
        assert_eq!(sent, [start(Vec::new())]);
    }

    #[test]
    fn stream_reports_a_hanging_publisher_once() {
        let mut clock = FakeClock::default();
        let sent = stream(&script(&[at_work(at(900))]), &mut clock, Since::Cursor(at(900)), 99);
        let told = sent.iter().filter(|part| matches!(part, Piece::Updates(_)));
        assert_eq!(told.count(), 1, "{sent:?}");
    }
}

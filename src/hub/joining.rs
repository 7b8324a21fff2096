//! How subscribers come to wait in one process, and how that process ends before them.
//! DESIGN.md has the protocol and its races.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;

use super::askers::{ASK, Askers};
use super::crowd::{Crowd, Id};
use super::waiter::{Record, Restore, Waiter};
use crate::grip::Proxies;
use crate::process::clock::{Clock, Interest, Wake, monotonic};
use crate::process::peer::{Listener, MAX_MESSAGE, Peer, Received};
use crate::process::sys;

/// How long a newcomer waits for the leader. A leader that is stopped or busy costs it
/// this time, and nothing else.
pub(super) const READY_WITHIN: Duration = Duration::from_millis(100);

/// The same before its first look: about as long as that look takes in a store of many
/// topics. Until then it does not know whether there is an answer.
const READY_AT_FIRST: Duration = Duration::from_millis(20);

/// How long a standby may take to take over.
const TAKEN_WITHIN: Duration = Duration::from_millis(250);

/// How long a process that is told to end waits for the leader to end its answer.
const LEAVE_WITHIN: Duration = Duration::from_millis(40);

/// Descriptors that a leader needs besides those of its subscribers: its own, and those
/// of newcomers.
const RESERVED: usize = 64;

/// How long a newcomer that was told to come may take.
const PENDING: Duration = Duration::from_secs(1);

/// The first byte of a message. The leader is ready for the newcomer.
pub(super) const READY: u8 = b'r';
/// A part of what a subscriber has not read. The subscriber follows.
const UNSENT: u8 = b'u';
/// A subscriber, with its descriptors. It is the receiver's once that has answered. The
/// next byte has flags.
const WAITER: u8 = b'w';
/// To the standby: it is to take over, and answers that it is ready.
const HEIR: u8 = b'h';
/// To the standby: those were all; with the listening socket.
const ALL: u8 = b'l';
/// From the standby: it has taken over.
const TAKEN: u8 = b'k';
/// To a process: its subscriber needs it no more.
const EXIT: u8 = b'x';
/// From a process: it is told to end, and so is its answer.
const TERMINATE: u8 = b't';
/// To a process: it is the standby.
const STANDBY: u8 = b's';
/// To a process that stays: another is the standby.
const MEMBER: u8 = b'm';

/// The subscriber of the process that receives it.
const YOURS: u8 = 1;
/// Its process is still there; the last descriptor is the connection to it.
const WITH_PROCESS: u8 = 2;

/// Where and how subscribers wait together.
#[derive(Clone)]
pub struct Together {
    /// The name of their leader in the abstract namespace.
    pub name: String,
    /// Makes the renderers of subscribers that join.
    pub restore: Restore,
    /// Whether a process stays until its subscriber's answer has ended.
    pub stays: bool,
    /// Whether they are told who comes to a topic and goes.
    pub tells_presence: bool,
    /// The proxies that their leader tells of events that no publisher tells of.
    pub proxies: Proxies,
}

/// What a process is among those that wait.
pub(super) enum Role {
    /// It waits for its own subscriber.
    Alone,
    /// It waits for all, and others may join.
    Leader(Box<Leader>),
    /// Its subscriber waits in the leader.
    Standby(Standby),
}

/// Joins the leader, or becomes it.
pub(super) fn join(together: &Together, own: &Waiter) -> Role {
    if raise_descriptors().is_err() {
        return Role::Alone;
    }
    // The leader may end, or another newcomer become it, between two calls.
    for _ in 0..3 {
        match Peer::connect(&together.name) {
            Ok(peer) => match enter(&peer, own, together.stays, READY_WITHIN) {
                Ok(is_first) => return Role::Standby(Standby { peer, is_first }),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(_) => return Role::Alone,
            },
            Err(Errno::CONNREFUSED) => match Listener::bind(&together.name) {
                Ok(listener) => return Role::Leader(Box::new(Leader::new(listener, together))),
                Err(Errno::ADDRINUSE) => {}
                Err(_) => return Role::Alone,
            },
            Err(_) => return Role::Alone,
        }
    }
    Role::Alone
}

/// What came of an attempt to join before the first look.
pub(super) enum Early {
    Joined(Standby),
    /// Nobody leads.
    Absent,
    /// The leader has no time or no room.
    Busy,
}

/// Joins the leader if there is one.
pub(super) fn join_at_first(together: &Together, own: &Waiter) -> Early {
    match Peer::connect(&together.name) {
        Err(_) => Early::Absent,
        Ok(_) if raise_descriptors().is_err() => Early::Absent,
        Ok(peer) => match enter(&peer, own, together.stays, READY_AT_FIRST) {
            Ok(is_first) => Early::Joined(Standby { peer, is_first }),
            Err(_) => Early::Busy,
        },
    }
}

/// Hands its subscriber to a leader that is ready. The leader may leave it unread, and
/// writes nothing before it has said that this process is the standby; the newcomer
/// writes nothing after that. Returns whether it can take over.
fn enter(peer: &Peer, own: &Waiter, stays: bool, within: Duration) -> io::Result<bool> {
    let until = monotonic() + READY_WITHIN;
    let mut buffer = Vec::new();
    peer.hear_word(&mut buffer, READY, &[], within)?;
    send_waiter(peer, own, None, stays.into())?;
    peer.hear_word(&mut buffer, STANDBY, &[], until.saturating_sub(monotonic()))
}

/// The kernel refuses to pass more descriptors at once than the sender may have open.
fn raise_descriptors() -> io::Result<()> {
    let limit = sys::limit(libc::RLIMIT_NOFILE, None)?;
    let most = libc::rlimit64 { rlim_cur: limit.rlim_max, ..limit };
    sys::limit(libc::RLIMIT_NOFILE, Some(most)).map(|_| ())
}

/// Of a newcomer: whether its process stays. Of a standby to be: [`YOURS`] and
/// [`WITH_PROCESS`].
fn send_waiter(peer: &Peer, waiter: &Waiter, process: Option<&Peer>, flags: u8) -> io::Result<()> {
    let record = serde_json::to_vec(&waiter.record())?;
    for part in waiter.output.unsent().chunks(MAX_MESSAGE / 2) {
        peer.send_within(&[&[UNSENT], part].concat(), &[], TAKEN_WITHIN)?;
    }
    let mut descriptors = waiter.descriptors();
    descriptors.extend(process.map(AsFd::as_fd));
    peer.send_within(&[&[WAITER, flags], record.as_slice()].concat(), &descriptors, TAKEN_WITHIN)
}

/// The parts of a subscriber that came over one connection.
#[derive(Default)]
struct Inbox {
    unsent: Vec<u8>,
}

/// The most bytes that a client has not read, of one piece and its head.
const MAX_UNSENT: usize = 4_194_304;

impl Inbox {
    fn part(&mut self, bytes: &[u8]) -> Option<()> {
        self.unsent.extend(bytes);
        (self.unsent.len() <= MAX_UNSENT).then_some(())
    }

    fn waiter(
        &mut self,
        record: &[u8],
        descriptors: Vec<OwnedFd>,
        interval: Duration,
        restore: Restore,
    ) -> Option<Waiter> {
        let unsent = std::mem::take(&mut self.unsent);
        let record: Record = serde_json::from_slice(record).ok()?;
        record.waiter(descriptors, unsent, interval, monotonic(), restore)
    }
}

/// The other processes, as the leader sees them.
pub(super) struct Leader {
    together: Together,
    /// `None` once nobody can join.
    listener: Option<Listener>,
    /// Those that were told to come, and when.
    pending: BTreeMap<Id, (Peer, Inbox, Duration)>,
    /// Those whose subscribers wait here.
    processes: BTreeMap<Id, Process>,
    /// The process of each subscriber that has one.
    of_waiter: BTreeMap<Id, Id>,
    /// Those that ask who waits here.
    askers: Askers,
    buffer: Vec<u8>,
}

struct Process {
    peer: Peer,
    waiter: Id,
    stays: bool,
}

/// What another process has said.
pub(super) enum Said {
    /// A subscriber joins.
    Joins(Box<Newcomer>),
    /// The answer of this one is to end.
    Terminated(Id),
    Nothing,
}

/// A subscriber that joins, and its process.
pub(super) struct Newcomer {
    waiter: Waiter,
    peer: Peer,
    stays: bool,
}

impl Leader {
    fn new(listener: Listener, together: &Together) -> Self {
        sys::set_process_name(c"comet: leader");
        Self {
            together: together.clone(),
            listener: Some(listener),
            pending: BTreeMap::new(),
            processes: BTreeMap::new(),
            of_waiter: BTreeMap::new(),
            askers: Askers::default(),
            buffer: Vec::new(),
        }
    }

    /// Attends to newcomers, under this number, and to the processes that another leader
    /// has left.
    pub fn attend(&self, clock: &mut dyn Clock, id: Id) {
        if let Some(listener) = &self.listener {
            clock.attend(listener.as_fd(), id, Interest::Read);
        }
        for (&id, process) in &self.processes {
            clock.attend(process.peer.as_fd(), id, Interest::Read);
        }
    }

    /// Lets nobody join any more: the next newcomer is another leader.
    pub fn retire(&mut self, clock: &mut dyn Clock) {
        if let Some(listener) = self.listener.take() {
            clock.ignore(listener.as_fd());
        }
        for (peer, ..) in std::mem::take(&mut self.pending).values() {
            clock.ignore(peer.as_fd());
        }
        self.askers.clear(clock);
    }

    /// Tells newcomers to come, as long as there is room for their descriptors. Another
    /// waits by itself.
    pub fn accept(&mut self, crowd: &Crowd, clock: &mut dyn Clock, next: &mut Id) {
        let now = clock.now();
        self.pending.retain(|_, (peer, _, since)| {
            let is_late = now > *since + PENDING;
            if is_late {
                clock.ignore(peer.as_fd());
            }
            !is_late
        });
        self.askers.drop_late(clock);
        let Some(listener) = &self.listener else { return };
        for peer in listener.accept() {
            if !self.has_room(crowd) || peer.send(&[READY], &[]).is_err() {
                continue;
            }
            *next += 1;
            clock.attend(peer.as_fd(), *next, Interest::Read);
            self.pending.insert(*next, (peer, Inbox::default(), now));
        }
    }

    fn has_room(&self, crowd: &Crowd) -> bool {
        let limit = sys::limit(libc::RLIMIT_NOFILE, None).map_or(0, |limit| limit.rlim_cur);
        let coming = (self.pending.len() + 1) * 6;
        let used =
            crowd.descriptors() + self.processes.len() + self.askers.len() + coming + RESERVED;
        u64::try_from(used).is_ok_and(|used| used < limit)
    }

    /// Whether this number is that of another process.
    pub fn knows(&self, id: Id) -> bool {
        self.pending.contains_key(&id)
            || self.processes.contains_key(&id)
            || self.askers.contains(id)
    }

    /// Hears what a process says, or goes on to answer it.
    pub fn hear(
        &mut self,
        id: Id,
        crowd: &Crowd,
        interval: Duration,
        clock: &mut dyn Clock,
    ) -> Said {
        if self.askers.contains(id) {
            self.askers.answer(id, crowd, clock);
            return Said::Nothing;
        }
        if let Some(process) = self.processes.get(&id) {
            return match process.peer.receive(&mut self.buffer) {
                Received::Message(message, _) if message == [TERMINATE] => {
                    Said::Terminated(process.waiter)
                }
                Received::Nothing => Said::Nothing,
                // Its subscriber waits on: the leader has all of it.
                Received::Message(..) | Received::End => {
                    self.forget(id, clock);
                    Said::Nothing
                }
            };
        }
        let newcomer = self.hear_newcomer(id, interval, clock);
        newcomer.map_or(Said::Nothing, |newcomer| Said::Joins(Box::new(newcomer)))
    }

    fn hear_newcomer(
        &mut self,
        id: Id,
        interval: Duration,
        clock: &mut dyn Clock,
    ) -> Option<Newcomer> {
        let (peer, mut inbox, since) = self.pending.remove(&id)?;
        let newcomer = match peer.receive(&mut self.buffer) {
            Received::Nothing => Some(None),
            Received::End => None,
            Received::Message(message, descriptors) => match message.as_slice() {
                [ASK, question @ ..] => {
                    self.askers.insert(id, peer, question, clock);
                    return None;
                }
                [UNSENT, part @ ..] => inbox.part(part).map(|()| None),
                [WAITER, stays, record @ ..] => inbox
                    .waiter(record, descriptors, interval, self.together.restore)
                    .map(|waiter| Some((waiter, *stays != 0))),
                _ => None,
            },
        };
        match newcomer {
            // A newcomer that has not waited for this word keeps its subscriber.
            Some(Some((waiter, stays))) if peer.send(&[STANDBY], &[]).is_ok() => {
                return Some(Newcomer { waiter, peer, stays });
            }
            Some(None) => drop(self.pending.insert(id, (peer, inbox, since))),
            _ => clock.ignore(peer.as_fd()),
        }
        None
    }

    /// The process `id` of a newcomer, who is now the subscriber `waiter`, is the standby.
    pub fn welcome(
        &mut self,
        id: Id,
        waiter: Id,
        (peer, stays): (Peer, bool),
        clock: &mut dyn Clock,
    ) {
        let before = self.processes.last_key_value().map(|(&id, process)| (id, process.stays));
        // It may have come before the one that it relieves.
        clock.attend(peer.as_fd(), id, Interest::Read);
        self.add(id, Process { peer, waiter, stays });
        if let Some((before, true)) = before {
            self.tell(before, MEMBER);
        }
    }

    /// Lets the processes end that the last one relieves. A newcomer may have its answer at
    /// once, and then the one before it is still the standby.
    pub fn relieve(&mut self, clock: &mut dyn Clock) {
        let standby = self.processes.keys().next_back().copied();
        let is_relieved = |(id, process): &(&Id, &Process)| Some(**id) != standby && !process.stays;
        let relieved: Vec<_> =
            self.processes.iter().take_while(is_relieved).map(|(&id, _)| id).collect();
        for id in relieved {
            self.dismiss(id, clock);
        }
    }

    fn tell(&self, id: Id, message: u8) {
        if let Some(process) = self.processes.get(&id) {
            let _ = process.peer.send(&[message], &[]);
        }
    }

    fn add(&mut self, id: Id, process: Process) {
        self.of_waiter.insert(process.waiter, id);
        self.processes.insert(id, process);
    }

    /// Lets the process of a subscriber end, whose answer has.
    pub fn release(&mut self, waiter: Id, clock: &mut dyn Clock) {
        if let Some(&id) = self.of_waiter.get(&waiter) {
            self.dismiss(id, clock);
        }
    }

    fn dismiss(&mut self, id: Id, clock: &mut dyn Clock) {
        self.tell(id, EXIT);
        self.forget(id, clock);
    }

    fn forget(&mut self, id: Id, clock: &mut dyn Clock) {
        if let Some(process) = self.processes.remove(&id) {
            self.of_waiter.remove(&process.waiter);
            clock.ignore(process.peer.as_fd());
        }
    }

    /// Whether there is a process that can take over.
    pub fn has_standby(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Hands all subscribers to the process that came last. From the beginning of this on
    /// the leader writes nothing. Until the standby says that it has taken over, and
    /// can still say so, it writes nothing either. If this fails, the leader goes on.
    pub fn hand_over(&mut self, crowd: &Crowd, clock: &mut dyn Clock) -> bool {
        let until = monotonic() + TAKEN_WITHIN;
        while let Some(&standby) = self.processes.keys().next_back() {
            let has_taken = self.try_hand_over(standby, crowd, until).is_ok();
            self.dismiss(standby, clock);
            if has_taken {
                return true;
            }
        }
        false
    }

    fn try_hand_over(&self, standby: Id, crowd: &Crowd, until: Duration) -> io::Result<()> {
        let mut buffer = Vec::new();
        let Some(Process { peer, waiter: yours, .. }) = self.processes.get(&standby) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let left = || until.saturating_sub(monotonic());
        // One that is stopped would hold the outputs open.
        peer.send(&[HEIR], &[])?;
        peer.hear_word(&mut buffer, READY, &[TERMINATE], READY_WITHIN.min(left()))?;
        for id in crowd.ids() {
            self.send_to_heir(peer, *yours, id, crowd)?;
            if left().is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::NotFound)?;
        peer.send_within(&[ALL], &[listener.as_fd()], left())?;
        peer.hear_word(&mut buffer, TAKEN, &[TERMINATE], left()).map(|_| ())
    }

    fn send_to_heir(&self, heir: &Peer, yours: Id, id: Id, crowd: &Crowd) -> io::Result<()> {
        let Some(waiter) = crowd.get(id) else { return Ok(()) };
        let process = self.of_waiter.get(&id).filter(|_| id != yours);
        let process = process.and_then(|process| self.processes.get(process));
        let flags =
            if id == yours { YOURS } else { 0 } | if process.is_some() { WITH_PROCESS } else { 0 };
        send_waiter(heir, waiter, process.map(|process| &process.peer), flags)
    }
}

/// A process whose subscriber waits in another, and that can take over from it.
pub(super) struct Standby {
    peer: Peer,
    /// Whether it is the next to lead.
    is_first: bool,
}

/// How the time of a standby ends.
pub(super) enum Duty {
    /// Its subscriber has its answer, or another process has its place.
    Over,
    /// The leader was killed, and this process was the next.
    Lost,
    /// It leads.
    Leads(Box<Succession>),
}

/// What a leader leaves to the next.
pub(super) struct Succession {
    pub leader: Leader,
    pub waiters: BTreeMap<Id, Waiter>,
    /// Its own subscriber, unless that has ended.
    pub own: Option<Id>,
    /// The last number that is taken.
    pub last: Id,
    /// Whether this process is told to end as well.
    pub is_terminated: bool,
}

impl Standby {
    /// Sleeps until it is needed, or not needed any more.
    pub fn wait(self, together: &Together, interval: Duration, clock: &mut dyn Clock) -> Duty {
        sys::set_process_name(c"comet: standby");
        clock.attend(self.peer.as_fd(), 0, Interest::Read);
        let mut heir = Heir::default();
        let (mut until, mut is_terminated, mut is_first) = (Duration::MAX, false, self.is_first);
        let mut buffer = Vec::new();
        loop {
            for wake in clock.sleep(None, until) {
                if wake == Wake::Terminated && !is_terminated {
                    is_terminated = true;
                    until = clock.now() + LEAVE_WITHIN;
                    let _ = self.peer.send(&[TERMINATE], &[]);
                }
            }
            loop {
                match self.peer.receive(&mut buffer) {
                    Received::Message(message, _) if message == [STANDBY] => {
                        sys::set_process_name(c"comet: standby");
                        is_first = true;
                    }
                    Received::Message(message, _) if message == [MEMBER] => {
                        sys::set_process_name(c"comet: member");
                        is_first = false;
                    }
                    Received::Message(message, _) if message == [HEIR] => {
                        if self.peer.send(&[READY], &[]).is_err() {
                            return Duty::Over;
                        }
                    }
                    Received::Message(message, descriptors) => {
                        match heir.hear(&message, descriptors, together, interval) {
                            Heard::More => {}
                            Heard::Exit => return Duty::Over,
                            Heard::All(listener) => {
                                clock.ignore(self.peer.as_fd());
                                if self.peer.send(&[TAKEN], &[]).is_err() {
                                    return Duty::Over;
                                }
                                return heir.leads(listener, together, is_terminated);
                            }
                        }
                    }
                    Received::Nothing => break,
                    Received::End if is_first => return Duty::Lost,
                    Received::End => return Duty::Over,
                }
            }
            if clock.now() >= until {
                return Duty::Over;
            }
        }
    }
}

/// The part of a succession that has arrived.
#[derive(Default)]
struct Heir {
    inbox: Inbox,
    waiters: BTreeMap<Id, Waiter>,
    processes: BTreeMap<Id, Process>,
    own: Option<Id>,
    last: Id,
}

enum Heard {
    More,
    Exit,
    All(Listener),
}

impl Heir {
    fn hear(
        &mut self,
        message: &[u8],
        mut descriptors: Vec<OwnedFd>,
        together: &Together,
        interval: Duration,
    ) -> Heard {
        match message {
            [EXIT] => return Heard::Exit,
            [ALL] => return descriptors.pop().map_or(Heard::Exit, |fd| Heard::All(fd.into())),
            [UNSENT, part @ ..] => drop(self.inbox.part(part)),
            [WAITER, flags, record @ ..] => {
                let process = match flags & WITH_PROCESS {
                    0 => None,
                    _ => descriptors.pop().map(Peer::from),
                };
                let waiter = self.inbox.waiter(record, descriptors, interval, together.restore);
                if let Some(waiter) = waiter {
                    self.last += 1;
                    let id = self.last;
                    self.waiters.insert(id, waiter);
                    if flags & YOURS != 0 {
                        self.own = Some(id);
                    }
                    // Numbers of processes and of subscribers differ.
                    if let Some(peer) = process {
                        self.last += 1;
                        let process = Process { peer, waiter: id, stays: together.stays };
                        self.processes.insert(self.last, process);
                    }
                }
            }
            _ => {}
        }
        Heard::More
    }

    fn leads(self, listener: Listener, together: &Together, is_terminated: bool) -> Duty {
        let mut leader = Leader::new(listener, together);
        self.processes.into_iter().for_each(|(id, process)| leader.add(id, process));
        if let Some((&id, _)) = leader.processes.last_key_value() {
            leader.tell(id, STANDBY);
        }
        Duty::Leads(Box::new(Succession {
            leader,
            waiters: self.waiters,
            own: self.own,
            last: self.last,
            is_terminated,
        }))
    }
}

impl Newcomer {
    /// Its subscriber, and its process.
    pub fn split(self) -> (Waiter, (Peer, bool)) {
        (self.waiter, (self.peer, self.stays))
    }
}

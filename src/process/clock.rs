//! The time, and the events that end a sleep.

use std::cell::OnceCell;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::event::Cursor;
use crate::process::sys;

/// Why a sleep ended before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The descriptor of the store is readable.
    Changed,
    /// SIGTERM arrived: answer and exit. It is reported once.
    Terminated,
    /// A descriptor can be used as it was asked for, or has failed.
    Ready {
        /// The number that it was attended to by.
        id: u64,
        /// Its other end is gone.
        is_gone: bool,
    },
}

/// What a descriptor is attended to for. Its other end's going is always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Nothing else.
    End,
    /// Something to read.
    Read,
    /// Room to write.
    Write,
}

/// A monotonic clock that can sleep.
pub trait Clock {
    /// The time since the start of the machine (`CLOCK_MONOTONIC`), the same for all
    /// its processes.
    fn now(&self) -> Duration;
    /// The time of day, as a cursor.
    fn wall(&self) -> Cursor;
    /// Sleeps until `now` reaches `until`, or until something happens.
    fn sleep(&mut self, watch: Option<BorrowedFd<'_>>, until: Duration) -> Vec<Wake>;
    /// Attends to a descriptor from now on, or for another interest than before.
    fn attend(&mut self, fd: BorrowedFd<'_>, id: u64, interest: Interest);
    /// Attends to a descriptor no more. It comes before the descriptor is closed, for
    /// another process may hold it open.
    fn ignore(&mut self, fd: BorrowedFd<'_>);
}

/// The time since the start of the machine.
#[must_use]
pub fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    // It is never negative (clock_gettime(2)).
    Duration::try_from(now).unwrap_or_default()
}

/// How many events one sleep reports.
const EVENTS: usize = 128;

/// The numbers of the two that every sleep attends to.
const SIGNALS: u64 = u64::MAX;
const WATCH: u64 = u64::MAX - 1;

/// The clock of a process.
pub struct ProcessClock {
    signals: Option<OwnedFd>,
    /// Made when it is needed: many a request waits for nothing.
    epoll: OnceCell<Option<OwnedFd>>,
}

impl ProcessClock {
    /// Starts the clock and blocks SIGTERM, which then ends a sleep. If no
    /// descriptor is left, SIGTERM keeps its default action.
    #[must_use]
    pub fn start(under_server: bool) -> Self {
        let signals = sys::signal_fd(&[libc::SIGTERM]).ok();
        // At a stop or a graceful restart Apache's mod_cgid exits without a signal
        // to its CGIs, and their threads would hold Apache for 10 s. A shell may
        // exit before the programs that it has started.
        if under_server {
            let _ = sys::signal_when_parent_ends(libc::SIGTERM);
        }
        Self { signals, epoll: OnceCell::new() }
    }

    fn epoll(&self) -> Option<&OwnedFd> {
        let make = || {
            let epoll = epoll::create(CreateFlags::CLOEXEC).ok()?;
            if let Some(signals) = &self.signals {
                let _ = epoll::add(&epoll, signals, EventData::new_u64(SIGNALS), EventFlags::IN);
            }
            Some(epoll)
        };
        self.epoll.get_or_init(make).as_ref()
    }

    /// Sleeps without epoll, for which no descriptor was left.
    fn sleep_by_poll(
        &self,
        watch: Option<BorrowedFd<'_>>,
        timeout: Option<&Timespec>,
    ) -> Vec<Wake> {
        let of = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let signals = self.signals.as_ref().map(|fd| (of(fd.as_fd()), Wake::Terminated));
        let watch = watch.map(|fd| (of(fd), Wake::Changed));
        let (mut fds, wakes): (Vec<_>, Vec<_>) = signals.into_iter().chain(watch).unzip();
        let _ = poll(&mut fds, timeout);
        let woken = fds.iter().zip(wakes).filter(|(fd, _)| !fd.revents().is_empty());
        woken.map(|(_, wake)| wake).collect()
    }
}

impl Clock for ProcessClock {
    fn now(&self) -> Duration {
        monotonic()
    }

    fn wall(&self) -> Cursor {
        Cursor::now()
    }

    fn sleep(&mut self, watch: Option<BorrowedFd<'_>>, until: Duration) -> Vec<Wake> {
        let timeout = Timespec::try_from(until.saturating_sub(self.now())).ok();
        let Some(epoll) = self.epoll() else { return self.sleep_by_poll(watch, timeout.as_ref()) };
        if let Some(watch) = watch {
            let _ = epoll::add(epoll, watch, EventData::new_u64(WATCH), EventFlags::IN);
        }
        let mut events = [MaybeUninit::uninit(); EVENTS];
        // EINTR is a wake-up like any other: the caller reads and sleeps again.
        let wakes: Vec<_> = match epoll::wait(epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events.iter().map(wake).collect(),
            Err(_) => Vec::new(),
        };
        // The signal stays pending, so that a last answer is written in a hurry.
        if let Some(signals) = self.signals.as_ref().filter(|_| wakes.contains(&Wake::Terminated)) {
            let _ = epoll::delete(epoll, signals);
        }
        if let Some(watch) = watch {
            let _ = epoll::delete(epoll, watch);
        }
        wakes
    }

    /// The kernel always reports EPOLLERR and EPOLLHUP, which mean that the server closed
    /// its end. EPOLLRDHUP would always be set under `mod_cgid`, because that half-closes
    /// the socket. It refuses a regular file, which is always ready.
    fn attend(&mut self, fd: BorrowedFd<'_>, id: u64, interest: Interest) {
        let Some(epoll) = self.epoll() else { return };
        let flags = match interest {
            Interest::End => EventFlags::empty(),
            Interest::Read => EventFlags::IN,
            Interest::Write => EventFlags::OUT,
        };
        let data = EventData::new_u64(id);
        if epoll::modify(epoll, fd, data, flags).is_err() {
            let _ = epoll::add(epoll, fd, data, flags);
        }
    }

    fn ignore(&mut self, fd: BorrowedFd<'_>) {
        if let Some(Some(epoll)) = self.epoll.get() {
            let _ = epoll::delete(epoll, fd);
        }
    }
}

fn wake(event: &epoll::Event) -> Wake {
    let (flags, data) = (event.flags, event.data);
    match data.u64() {
        SIGNALS => Wake::Terminated,
        WATCH => Wake::Changed,
        id => Wake::Ready { id, is_gone: flags.intersects(EventFlags::ERR | EventFlags::HUP) },
    }
}

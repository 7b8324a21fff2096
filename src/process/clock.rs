//! The time, and the events that end a sleep.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::event::Cursor;
use crate::process::sys;

/// Why a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// The time is over.
    Due,
    /// The descriptor of the store is readable.
    Changed,
    /// SIGTERM arrived: answer and exit.
    Terminated,
    /// The reader of standard output is gone.
    ClientGone,
}

/// A monotonic clock that can sleep.
pub trait Clock {
    /// Time since the request began.
    fn elapsed(&self) -> Duration;
    /// The time of day, as a cursor.
    fn wall(&self) -> Cursor;
    /// Sleeps until `elapsed` reaches `until`, or an earlier [`Wake`].
    fn sleep(&mut self, watch: Option<BorrowedFd<'_>>, until: Duration) -> Wake;
}

/// The clock of a process that serves one request on its standard output.
pub struct ProcessClock {
    start: Instant,
    signals: Option<OwnedFd>,
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
        Self { start: Instant::now(), signals }
    }
}

impl Clock for ProcessClock {
    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn wall(&self) -> Cursor {
        Cursor::now()
    }

    fn sleep(&mut self, watch: Option<BorrowedFd<'_>>, until: Duration) -> Wake {
        let stdout = io::stdout();
        let of = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        // poll(2) always reports POLLERR and POLLHUP, which mean that the server
        // closed its end of stdout. POLLRDHUP would always be set under mod_cgid,
        // because that half-closes the socket.
        let mut fds = vec![PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::empty())];
        let signals = self.signals.as_ref().map(|fd| of(fd.as_fd()));
        let watched = watch.map(of);
        fds.extend(signals.clone());
        fds.extend(watched.clone());
        let left = until.saturating_sub(self.elapsed());
        // EINTR is a wake-up like any other: the caller reads and sleeps again.
        if poll(&mut fds, Timespec::try_from(left).ok().as_ref()).unwrap_or(0) == 0 {
            return Wake::Due;
        }
        let ready = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        match () {
            () if ready(0) => Wake::ClientGone,
            () if signals.is_some() && ready(1) => Wake::Terminated,
            () => Wake::Changed,
        }
    }
}

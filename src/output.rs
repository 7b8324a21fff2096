//! Standard output of a stream, that no slow reader holds for ever.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::sys;

/// How long a reader may take nothing.
const PROGRESS: Duration = Duration::from_secs(10);

/// The same after SIGTERM: enough for who reads to get the rest of an event.
const FAREWELL: Duration = Duration::from_millis(100);

/// A pipe or socket that poll(2) calls writable takes so many bytes without
/// blocking (`PIPE_BUF` in pipe(7)). To make it non-blocking instead would
/// change it for everybody who shares it: a shell's terminal, say.
const PIPE_BUF: usize = 4096;

/// Standard output as it is: `io::stdout` would write line by line, and wake
/// the server twice; to duplicate it takes a descriptor, and none may be left.
pub struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(self, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stdout {
    fn as_fd(&self) -> BorrowedFd<'_> {
        rustix::stdio::stdout()
    }
}

/// Somebody's output.
pub struct Output<W> {
    to: W,
    begun: bool,
}

impl<W: Write + AsFd> Output<W> {
    /// Nothing has been written yet.
    pub fn new(to: W) -> Self {
        Self { to, begun: false }
    }

    /// Whether something has been written.
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Writes a whole answer at once: the server takes it, however large.
    ///
    /// # Errors
    /// What write(2) says; EPIPE when nobody listens any more.
    pub fn answer(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.begun = true;
        self.to.write_all(bytes)?;
        self.to.flush()
    }

    /// Writes a part of a stream.
    ///
    /// # Errors
    /// `TimedOut` when the reader makes no progress for 10 s, and what poll(2)
    /// and write(2) say.
    pub fn stream(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.begun = true;
        for part in bytes.chunks(PIPE_BUF) {
            self.await_reader()?;
            self.to.write_all(part)?;
        }
        self.to.flush()
    }

    /// Until the reader takes more. SIGTERM, which the clock has taken, makes
    /// that a short wait: a server that stops waits for us.
    fn await_reader(&self) -> io::Result<()> {
        if self.is_writable(Duration::ZERO, None)? {
            return Ok(());
        }
        let signals = sys::signal_fd(&[libc::SIGTERM]).ok();
        let told = signals.as_ref().map(AsFd::as_fd);
        if self.is_writable(PROGRESS, told)? || self.is_writable(FAREWELL, None)? {
            return Ok(());
        }
        Err(ErrorKind::TimedOut.into())
    }

    /// Waits for that, or until `or` is readable.
    fn is_writable(&self, patience: Duration, or: Option<BorrowedFd<'_>>) -> io::Result<bool> {
        let mut fds = vec![PollFd::new(&self.to, PollFlags::OUT)];
        fds.extend(or.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        poll(&mut fds, Timespec::try_from(patience).ok().as_ref())?;
        Ok(fds.first().is_some_and(|fd| !fd.revents().is_empty()))
    }
}

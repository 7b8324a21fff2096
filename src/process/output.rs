//! Standard output, and how long a slow reader may hold it.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::process::sys;

/// How long a reader may take nothing.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the answer of a poll may take in all, however its reader dawdles:
/// 256 KiB are 9 kB a second, and what lies between holds most of them.
pub const ANSWER: Duration = Duration::from_secs(30);

/// How long the rest may take after SIGTERM: enough for a client that reads to
/// get the rest of an event.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(100);

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

    /// Writes an answer, or a part of a stream, which ends at `until` at the
    /// latest if its reader is slower than we are.
    ///
    /// # Errors
    /// `TimedOut` when the reader takes nothing for 10 s or has not taken all at
    /// `until`, and what write(2) says; EPIPE when nobody listens any
    /// more.
    pub fn send(&mut self, bytes: &[u8], mut until: Instant) -> io::Result<()> {
        self.begun = true;
        for part in bytes.chunks(PIPE_BUF) {
            self.wait_until_writable(&mut until)?;
            self.to.write_all(part)?;
        }
        self.to.flush()
    }

    /// Until the reader takes more. SIGTERM, which the clock has taken, brings
    /// `until` near: a server that stops waits for us.
    fn wait_until_writable(&self, until: &mut Instant) -> io::Result<()> {
        if self.is_writable(Duration::ZERO, None) {
            return Ok(());
        }
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let begin = Instant::now();
        let signals = sys::signal_fd(&[libc::SIGTERM]).ok();
        let told = signals.as_ref().map(AsFd::as_fd);
        let timeout = READ_TIMEOUT.min(left(*until));
        if self.is_writable(timeout, told) {
            return Ok(());
        }
        if begin.elapsed() < timeout {
            *until = (*until).min(Instant::now() + SHUTDOWN_GRACE);
            if self.is_writable(left(*until), None) {
                return Ok(());
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    /// Waits for that, or until `or` is readable. If poll(2) fails, write(2) reports the
    /// state of the reader.
    fn is_writable(&self, timeout: Duration, or: Option<BorrowedFd<'_>>) -> bool {
        let mut fds = vec![PollFd::new(&self.to, PollFlags::OUT)];
        fds.extend(or.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let polled = poll(&mut fds, Timespec::try_from(timeout).ok().as_ref());
        polled.is_err() || fds.first().is_some_and(|fd| !fd.revents().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{PipeWriter, Read, pipe};
    use std::os::fd::OwnedFd;
    use std::thread;

    /// More than a pipe holds.
    const LARGE: usize = 1_000_000;

    fn into(writer: PipeWriter) -> Output<File> {
        Output::new(File::from(OwnedFd::from(writer)))
    }

    #[test]
    fn a_slow_reader_ends_at_the_deadline() {
        let (mut reader, writer) = pipe().unwrap();
        let slow = thread::spawn(move || {
            while reader.read(&mut [0; PIPE_BUF]).is_ok_and(|read| read > 0) {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let mut output = into(writer);
        let until = Instant::now() + Duration::from_millis(200);
        let sent = output.send(&vec![0; LARGE], until);
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(output);
        slow.join().unwrap();
    }

    #[test]
    fn a_reader_in_time_gets_all() {
        let (mut reader, writer) = pipe().unwrap();
        let reading = thread::spawn(move || reader.read_to_end(&mut Vec::new()).unwrap());
        let mut output = into(writer);
        output.send(&vec![0; LARGE], Instant::now() + ANSWER).unwrap();
        drop(output);
        assert_eq!(reading.join().unwrap(), LARGE);
    }
}

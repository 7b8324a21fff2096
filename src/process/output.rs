//! Standard output, with deadlines for a slow reader.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::process::sys;

/// The longest time in which a reader may read nothing.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest time for the whole answer of a poll. 256 KiB in this time are 9 kB a
/// second, and the buffers of the server hold most of them.
pub const ANSWER: Duration = Duration::from_secs(30);

/// The longest time after SIGTERM. A client that reads gets the rest of an event in
/// this time.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(100);

/// A pipe or socket that poll(2) calls writable takes this number of bytes without
/// blocking (`PIPE_BUF` in pipe(7)). `O_NONBLOCK` instead would also change it for
/// other processes that share it, such as the shell of a terminal.
const PIPE_BUF: usize = 4096;

/// A stream that a client reads. It writes to the descriptor itself: `io::stdout`
/// would write line by line, and wake the server twice; to duplicate the descriptor
/// takes one more, and none may be left.
pub struct Output<'fd> {
    to: BorrowedFd<'fd>,
    begun: bool,
}

impl<'fd> Output<'fd> {
    /// Nothing has been written yet.
    #[must_use]
    pub fn new(to: BorrowedFd<'fd>) -> Self {
        Self { to, begun: false }
    }

    /// Whether something has been written.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Writes an answer, or a part of a stream, until `until` at the latest.
    ///
    /// # Errors
    /// `TimedOut` if the reader reads nothing for [`READ_TIMEOUT`], or has not read
    /// all at `until`; the error of write(2), EPIPE if the reader is
    /// gone.
    pub fn send(&mut self, bytes: &[u8], mut until: Instant) -> io::Result<()> {
        self.begun = true;
        for part in bytes.chunks(PIPE_BUF) {
            self.wait_until_writable(&mut until)?;
            self.write_all(part)?;
        }
        Ok(())
    }

    fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match retry_on_intr(|| rustix::io::write(self.to, bytes))? {
                0 => return Err(ErrorKind::WriteZero.into()),
                written => bytes = &bytes[written..],
            }
        }
        Ok(())
    }

    /// Waits until the reader reads more. SIGTERM, which the clock has blocked,
    /// shortens `until` to [`SHUTDOWN_GRACE`]: a server that stops waits for this
    /// process.
    fn wait_until_writable(&self, until: &mut Instant) -> io::Result<()> {
        if self.is_writable(Duration::ZERO, None) {
            return Ok(());
        }
        let left = |until: Instant| until.saturating_duration_since(Instant::now());
        let begin = Instant::now();
        let signals = sys::signal_fd(&[libc::SIGTERM]).ok();
        let terminated = signals.as_ref().map(AsFd::as_fd);
        let timeout = READ_TIMEOUT.min(left(*until));
        if self.is_writable(timeout, terminated) {
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

    /// Waits until the output is writable, or `or` is readable. If poll(2) fails,
    /// write(2) reports the state of the reader.
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
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::thread;

    /// More bytes than a socket holds.
    const LARGE: usize = 1_000_000;

    #[test]
    fn slow_reader_times_out_at_the_deadline() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let slow = thread::spawn(move || {
            while reader.read(&mut [0; PIPE_BUF]).is_ok_and(|read| read > 0) {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let mut output = Output::new(writer.as_fd());
        let until = Instant::now() + Duration::from_millis(200);
        let sent = output.send(&vec![0; LARGE], until);
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::TimedOut);
        drop(writer);
        slow.join().unwrap();
    }

    #[test]
    fn reader_in_time_gets_all() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let reading = thread::spawn(move || reader.read_to_end(&mut Vec::new()).unwrap());
        let mut output = Output::new(writer.as_fd());
        output.send(&vec![0; LARGE], Instant::now() + ANSWER).unwrap();
        drop(writer);
        assert_eq!(reading.join().unwrap(), LARGE);
    }
}

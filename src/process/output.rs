//! Standard output, with deadlines for a slow reader.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;

use crate::error::Error;
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
/// other processes that share it, such as the shell of a terminal. A write that does not
/// wait (`RWF_NOWAIT`) would need no poll(2). But it fills a socket to the brim, which is
/// then not writable before three quarters of it are read: a slow reader would seem to
/// have stopped.
const PIPE_BUF: usize = 4096;

/// The error of an output that cannot be written, such as a file on a full disk; `None` if only
/// its reader has gone.
#[must_use]
pub fn unwritable(cause: &io::Error) -> Option<Error> {
    const DETAIL: &str = "the output cannot be written";
    let is_gone = matches!(cause.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
    let error = || Error::unavailable(DETAIL, &format!("{DETAIL}: {cause}"), "see where it goes");
    (!is_gone).then(error)
}

/// A stream that a client reads. It writes to the descriptor itself: `io::stdout`
/// would write line by line, and wake the server twice; to duplicate the descriptor
/// takes one more, and none may be left.
pub struct Output<'fd> {
    to: Target<'fd>,
    begun: bool,
    unsent: Vec<u8>,
    /// How much of `unsent` is written.
    written: usize,
    /// When the reader last read something, or had nothing to read.
    progress: Duration,
    /// The longest time in which its reader may read nothing.
    timeout: Duration,
}

enum Target<'fd> {
    Borrowed(BorrowedFd<'fd>),
    /// Handed over by another process.
    Owned(OwnedFd),
}

impl AsFd for Output<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.to {
            Target::Borrowed(fd) => *fd,
            Target::Owned(fd) => fd.as_fd(),
        }
    }
}

impl From<OwnedFd> for Output<'static> {
    /// An output that another process has handed over.
    fn from(fd: OwnedFd) -> Self {
        Self::to(Target::Owned(fd))
    }
}

impl<'fd> Output<'fd> {
    /// Nothing has been written yet.
    #[must_use]
    pub fn new(to: BorrowedFd<'fd>) -> Self {
        Self::to(Target::Borrowed(to))
    }

    fn to(to: Target<'fd>) -> Self {
        let (progress, timeout) = (Duration::ZERO, READ_TIMEOUT);
        Self { to, begun: false, unsent: Vec::new(), written: 0, progress, timeout }
    }

    /// Waits for its reader: a pager, or a slow command.
    #[must_use]
    pub fn patient(self) -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 86_400);
        Self { timeout: YEAR, ..self }
    }

    /// The longest time in which its reader may read an answer.
    #[must_use]
    pub fn limit(&self) -> Duration {
        ANSWER.max(self.timeout)
    }

    /// Whether something has been written.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// What the reader has left unread.
    #[must_use]
    pub fn unsent(&self) -> &[u8] {
        &self.unsent[self.written..]
    }

    /// Adds to what is to be written.
    pub fn push(&mut self, bytes: Vec<u8>, now: Duration) {
        self.begun = true;
        if self.unsent().is_empty() {
            (self.unsent, self.written, self.progress) = (bytes, 0, now);
        } else {
            self.unsent.extend(bytes);
        }
    }

    /// Writes as much as the reader takes now, without waiting for it. Returns whether
    /// that is all.
    ///
    /// # Errors
    /// The error of write(2), EPIPE if the reader is gone.
    pub fn flush(&mut self, now: Duration) -> io::Result<bool> {
        while !self.unsent().is_empty() {
            if !self.is_writable(Duration::ZERO, None) {
                return Ok(false);
            }
            let end = self.unsent.len().min(self.written + PIPE_BUF);
            self.write_all(&self.unsent[self.written..end])?;
            (self.written, self.progress) = (end, now);
        }
        (self.unsent, self.written) = (Vec::new(), 0);
        Ok(true)
    }

    /// When a reader that reads nothing is cut off.
    #[must_use]
    pub fn patience(&self) -> Duration {
        self.progress + self.timeout
    }

    /// Writes an answer, or a part of a stream, until `until` at the latest.
    ///
    /// # Errors
    /// `TimedOut` if the reader reads nothing for [`READ_TIMEOUT`] (unless it is
    /// [`patient`](Self::patient)), or has not read
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
            match retry_on_intr(|| rustix::io::write(self.as_fd(), bytes))? {
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
        let timeout = self.timeout.min(left(*until));
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
        let to = self.as_fd();
        let mut fds = vec![PollFd::new(&to, PollFlags::OUT)];
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
    fn slow_reader_gets_what_it_takes() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        let mut output = Output::from(OwnedFd::from(writer));
        output.push(vec![0; LARGE], Duration::from_secs(7));
        assert!(!output.flush(Duration::from_secs(8)).unwrap());
        assert_eq!(output.patience(), Duration::from_secs(8) + READ_TIMEOUT);
        let left = output.unsent().len();
        assert!(left > 0 && left < LARGE);
        let mut read = 0;
        while !output.flush(Duration::from_secs(9)).unwrap() {
            read += reader.read(&mut vec![0; 65_536]).unwrap();
        }
        drop(output);
        assert_eq!(read + reader.read_to_end(&mut Vec::new()).unwrap(), LARGE);
    }

    #[test]
    fn patient_output_waits_for_its_reader() {
        let (_reader, writer) = UnixStream::pair().unwrap();
        let mut output = Output::new(writer.as_fd()).patient();
        output.push(vec![0; LARGE], Duration::from_secs(7));
        assert!(!output.flush(Duration::from_secs(7)).unwrap());
        let day = Duration::from_secs(86_400);
        assert!(output.patience() > day && output.limit() > day);
    }

    #[test]
    fn reader_that_has_gone_is_no_fault() {
        assert_eq!(unwritable(&ErrorKind::BrokenPipe.into()), None);
        let fault = unwritable(&ErrorKind::StorageFull.into());
        assert!(fault.unwrap().log_line().unwrap().starts_with("the output cannot be written"));
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

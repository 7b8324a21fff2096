//! Standard input with a deadline, so that a slow sender cannot hold the process.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The longest time for a body. Without a deadline a client that sends a byte now
/// and then could keep any number of processes for ever.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Standard input without a buffer. `io::stdin` would read ahead, and poll(2) would
/// not report the buffered bytes.
pub struct Stdin;

impl Read for Stdin {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(self, buffer)?)
    }
}

impl AsFd for Stdin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        rustix::stdio::stdin()
    }
}

/// An input with a deadline.
pub struct Input<R> {
    from: R,
    deadline: Instant,
}

impl<R: Read + AsFd> Input<R> {
    /// The deadline is `limit` from now.
    pub fn new(from: R, limit: Duration) -> Self {
        Self { from, deadline: Instant::now() + limit }
    }

    /// Waits until a read returns at once. A regular file and an end of input are
    /// always ready. Bytes that have arrived at the deadline are still read, because
    /// the server may read the answer from the same socket.
    fn wait_readable(&self) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.from, PollFlags::IN)];
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            match poll(&mut fds, Timespec::try_from(left).ok().as_ref()) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<R: Read + AsFd> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait_readable()?;
        self.from.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    #[test]
    fn read_ends_at_the_deadline() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(b"ab").unwrap();
        let mut input = Input::new(reader, Duration::from_millis(20));
        let mut read = Vec::new();
        let error = input.read_to_end(&mut read).unwrap_err();
        assert_eq!((read.as_slice(), error.kind()), (&b"ab"[..], ErrorKind::TimedOut));
        // A program that another test starts holds a copy for a moment, so closing
        // the writer would not be enough.
        writer.shutdown(Shutdown::Both).unwrap();
        assert_eq!(input.read(&mut [0]).unwrap(), 0, "an end is an end");
    }
}

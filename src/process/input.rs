//! Standard input, that no slow sender holds for ever.

use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long a body may take. Without an end a client that sends a byte now and
/// then keeps a process for as long as it likes, and as many as it likes.
pub const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Standard input as it is: `io::stdin` would read ahead, and poll(2) would
/// know less than we do.
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

/// Somebody's input, until its deadline.
pub struct Input<R> {
    from: R,
    deadline: Instant,
}

impl<R: Read + AsFd> Input<R> {
    /// The clock runs from now on.
    pub fn new(from: R, limit: Duration) -> Self {
        Self { from, deadline: Instant::now() + limit }
    }

    /// A regular file is always ready, and so is an end. What waits to be read
    /// at the deadline is still taken, so that little is left in the socket
    /// that a server of ours may also read the answer from.
    fn await_part(&self) -> io::Result<()> {
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
        self.await_part()?;
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
    fn what_has_come_is_read_and_what_does_not_come_ends_at_the_deadline() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        writer.write_all(b"ab").unwrap();
        let mut input = Input::new(reader, Duration::from_millis(20));
        let mut read = Vec::new();
        let error = input.read_to_end(&mut read).unwrap_err();
        assert_eq!((read.as_slice(), error.kind()), (&b"ab"[..], ErrorKind::TimedOut));
        // Not by closing it: a test that starts a program holds a copy for a moment.
        writer.shutdown(Shutdown::Both).unwrap();
        assert_eq!(input.read(&mut [0]).unwrap(), 0, "an end is an end");
    }
}

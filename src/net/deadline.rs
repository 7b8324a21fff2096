//! Waits for a descriptor that end at a deadline.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Waits until `fd` is readable.
///
/// # Errors
/// `TimedOut` if it is not readable before `until`.
pub fn wait_readable(fd: &impl AsFd, until: Instant) -> io::Result<()> {
    wait_for_event(fd, PollFlags::IN, until)
}

/// As [`wait_readable`], for any event of poll(2).
pub fn wait_for_event(fd: &impl AsFd, event: PollFlags, until: Instant) -> io::Result<()> {
    let mut fds = [PollFd::new(fd, event)];
    match poll(&mut fds, Timespec::try_from(remaining(until)?).ok().as_ref()) {
        Ok(0) => Err(late()),
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The time until the deadline; `TimedOut` if it has passed.
pub fn remaining(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left) }
}

fn late() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "it does not answer in time")
}

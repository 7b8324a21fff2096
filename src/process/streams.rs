//! The standard streams of a process that serves one request, and their end.

use std::any::Any;
use std::io::{self, Write};
use std::time::Instant;

use super::input::{BODY_DEADLINE, Input, Stdin};
use super::output::{ANSWER, Output};
use super::sys;
use crate::error::Error;

/// Standard output and the error log.
pub struct Streams {
    /// The answer, which the client reads.
    pub output: Output<'static>,
    /// The error log, which the administrator reads.
    pub log: Log,
    /// Dropped after all streams have ended. A watch: the kernel takes some 7 ms to
    /// remove an inotify instance.
    pub last: Option<Box<dyn Any>>,
}

/// The most lines of one process. `mod_cgi` reads them after the answer only, and a full
/// pipe (64 KiB) would stop a process in which a crowd waits.
const MAX_LINES: u32 = 100;

/// The web server's error log: standard error.
pub struct Log {
    to: io::Stderr,
    lines: u32,
}

impl Log {
    /// Writes the line of `error`, if it has one.
    pub fn report(&mut self, error: &Error) {
        let line = error.log_line().filter(|_| self.lines < MAX_LINES);
        if let Some(line) = line {
            self.lines += 1;
            // In one write(2): `mod_cgi` makes a line of each.
            let _ = self.to.write_all(format!("novcomet: {line}\n").as_bytes());
        }
    }
}

impl Streams {
    /// The streams of this process; nothing is written yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            output: Output::new(rustix::stdio::stdout()),
            log: Log { to: io::stderr(), lines: 0 },
            last: None,
        }
    }

    /// Writes `answer` and ends the streams.
    ///
    /// A server waits for the end of all three streams. `mod_cgid`, where input and
    /// output are one socket, may poll for an end that comes late; so input and
    /// the log end before the answer is written.
    pub fn finish(mut self, answer: &[u8]) {
        sys::close_standard_streams(&[libc::STDIN_FILENO, libc::STDERR_FILENO]);
        if !answer.is_empty() {
            // A client that has gone loses nothing: the events are in the store.
            let _ = self.output.send(answer, Instant::now() + ANSWER);
        }
        sys::close_standard_streams(&[libc::STDOUT_FILENO]);
        drop(self.last);
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self::new()
    }
}

/// Standard input until the deadline of a body.
#[must_use]
pub fn input() -> Input<Stdin> {
    Input::new(Stdin, BODY_DEADLINE)
}

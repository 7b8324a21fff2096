//! The standard streams of a process that serves one request, and their end.

use std::any::Any;
use std::io::{self, IsTerminal, Write};
use std::time::Instant;

use super::input::{BODY_DEADLINE, Input, Stdin};
use super::output::{Output, unwritable};
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

/// Standard error: the web server's error log, or what a person reads at a shell.
pub struct Log {
    to: io::Stderr,
    lines: u32,
    reader: Reader,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Administrator,
    Person,
}

impl Log {
    /// Writes the line of `error`, if it has one. A person has no answer that says what
    /// is wrong with a request, and is told here.
    pub fn report(&mut self, error: &Error) {
        let (name, line) = match self.reader {
            Reader::Administrator => ("novcomet", error.log_line()),
            Reader::Person => ("comet.cgi", error.log_line().or_else(|| Some(error.to_string()))),
        };
        if let Some(line) = line.filter(|_| self.lines < MAX_LINES) {
            self.lines += 1;
            // In one write(2): `mod_cgi` makes a line of each.
            let _ = self.to.write_all(format!("{name}: {line}\n").as_bytes());
        }
    }
}

impl Streams {
    /// The streams of this process; nothing is written yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            output: Output::new(rustix::stdio::stdout()),
            log: Log { to: io::stderr(), lines: 0, reader: Reader::Administrator },
            last: None,
        }
    }

    /// The streams of a process that a person has started at a shell.
    #[must_use]
    pub fn of_person() -> Self {
        let output = Output::new(rustix::stdio::stdout()).patient();
        let log = Log { to: io::stderr(), lines: 0, reader: Reader::Person };
        Self { output, log, last: None }
    }

    /// Writes `answer` and ends the streams. Returns `false` to a person if
    /// it could not be written.
    ///
    /// A server waits for the end of all three streams. `mod_cgid`, where input and
    /// output are one socket, may poll for an end that comes late; so input and
    /// the log end before the answer is written.
    pub fn finish(mut self, answer: &[u8]) -> bool {
        let is_person = self.log.reader == Reader::Person;
        if !is_person {
            sys::close_standard_streams(&[libc::STDIN_FILENO, libc::STDERR_FILENO]);
        }
        // A client that has gone loses nothing: the events are in the store.
        let until = Instant::now() + self.output.limit();
        let sent = if answer.is_empty() { Ok(()) } else { self.output.send(answer, until) };
        let fault = sent.as_ref().err().and_then(unwritable).filter(|_| is_person);
        if let Some(fault) = fault {
            self.log.report(&fault);
        }
        sys::close_standard_streams(&[libc::STDOUT_FILENO]);
        drop(self.last);
        sent.is_ok() || !is_person
    }
}

impl Default for Streams {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether standard output is a terminal.
#[must_use]
pub fn is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Standard input until the deadline of a body.
#[must_use]
pub fn input() -> Input<Stdin> {
    Input::new(Stdin, BODY_DEADLINE)
}

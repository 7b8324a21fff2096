//! The findings: a line for each, printed as soon as it is known.

use std::io::{Stdout, Write, stdout};

use crate::error::{Error, escaped};

/// The findings so far.
pub struct Findings {
    to: Stdout,
    faults: u32,
}

impl Findings {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { to: stdout(), faults: 0 }
    }

    /// Something is as it should be.
    pub fn ok(&mut self, what: &str) {
        self.print("ok   ", what);
    }

    /// Something that the administrator should know, and may want.
    pub fn note(&mut self, what: &str) {
        self.print("note ", what);
    }

    /// Something is wrong. `fix` is one line of configuration, or one command.
    pub fn fault(&mut self, what: &str, fix: &str) {
        self.faults += 1;
        self.print("fault", &format!("{what}; fix: {fix}"));
    }

    /// The program itself tells a fault, with its remedy at the end.
    pub fn error(&mut self, error: &Error) {
        let line = error.log_line().unwrap_or_else(|| error.to_string());
        let (what, fix) = line.rsplit_once("; ").unwrap_or((&line, "see docs/troubleshooting.md"));
        self.fault(what, fix);
    }

    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.faults == 0
    }

    /// Texts of a server may hold any character.
    fn print(&mut self, grade: &str, what: &str) {
        let _ = writeln!(self.to, "{grade} {}", escaped(what));
    }
}

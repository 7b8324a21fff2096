//! The findings: a line for each. At a shell it is printed as soon as it is known.

use std::io::{Stdout, Write, stdout};

use crate::error::{Error, escaped};

/// A text of a server as one word of a shell, whatever it has.
pub fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._:@%+=,-".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.into();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// The findings so far.
pub struct Findings {
    to: To,
    faults: u32,
}

enum To {
    Shell(Stdout),
    Page(String),
}

impl Findings {
    /// Nothing yet, at a shell.
    pub fn of_shell() -> Self {
        Self { to: To::Shell(stdout()), faults: 0 }
    }

    /// Nothing yet, on a page of a web server.
    pub fn of_page() -> Self {
        Self { to: To::Page(String::new()), faults: 0 }
    }

    /// Whether the web server's own process finds them.
    pub fn are_of_page(&self) -> bool {
        matches!(self.to, To::Page(_))
    }

    /// All lines of a page.
    pub fn page(self) -> String {
        match self.to {
            To::Page(text) => text,
            To::Shell(_) => String::new(),
        }
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
        let line = format!("{grade} {}\n", escaped(what));
        match &mut self.to {
            To::Page(text) => text.push_str(&line),
            To::Shell(to) => {
                let _ = to.write_all(line.as_bytes());
            }
        }
    }
}

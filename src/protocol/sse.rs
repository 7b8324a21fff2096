//! The format of an event stream (Server-Sent Events, WHATWG HTML §9.2.6).

use std::fmt::Write;

use crate::cgi::{Head, Response};
use crate::error::Error;
use crate::hub::retry_after_seconds;

/// A block that no client takes for an event: it keeps the connection open.
pub const HEARTBEAT: &str = ":\n\n";

/// The head of an event stream.
#[must_use]
pub fn head() -> Head {
    // Some readers take a text of no declared encoding for Latin-1, such as Python's requests. A
    // proxy such as nginx would collect the stream without the other header.
    Head::new(200, "text/event-stream; charset=utf-8").header("X-Accel-Buffering", "no")
}

/// The answer to an `EventSource` while the store does not work: a stream that ends at once and
/// says when to come back. After any other answer it never comes back, also when the store works
/// again. `None` for errors that waiting does not mend.
#[must_use]
pub fn postpone(error: &Error) -> Option<Response> {
    let Error::Unavailable { .. } = error else { return None };
    let seconds = retry_after_seconds();
    let mut text = String::new();
    comment(&mut text, &error.to_string());
    retry(&mut text, seconds);
    text.push('\n');
    Some(head().retry_after(Some(seconds)).body(text))
}

/// Writes a comment, which a client ignores.
pub fn comment(text: &mut String, comment: &str) {
    let _ = writeln!(text, ": {comment}");
}

/// Writes after how many seconds a client reconnects.
pub fn retry(text: &mut String, seconds: u32) {
    let _ = writeln!(text, "retry: {seconds}000");
}

/// The fields of an event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Event<'a> {
    /// Its type; a client calls it `message` without one.
    pub kind: Option<&'a str>,
    /// When a client reconnects, in milliseconds.
    pub retry: Option<u64>,
    /// Without it a client keeps its last; an empty one would make it forget that.
    pub id: Option<&'a str>,
    /// A client ignores an event without data, except for the other fields.
    pub data: Option<&'a str>,
}

impl Event<'_> {
    /// Writes `event:`, `retry:`, `id:`, a `data:` for each line, and the empty line
    /// that dispatches them.
    pub fn write(&self, text: &mut String) {
        if let Some(kind) = self.kind {
            let _ = writeln!(text, "event: {kind}");
        }
        if let Some(retry) = self.retry {
            let _ = writeln!(text, "retry: {retry}");
        }
        if let Some(id) = self.id {
            let _ = writeln!(text, "id: {id}");
        }
        for line in self.data.into_iter().flat_map(lines) {
            let _ = match line {
                "" => writeln!(text, "data:"),
                line => writeln!(text, "data: {line}"),
            };
        }
        text.push('\n');
    }
}

/// Writes an event without a reconnection time.
pub fn event(text: &mut String, kind: Option<&str>, id: Option<&str>, data: Option<&str>) {
    Event { kind, retry: None, id, data }.write(text);
}

/// The size of the `data:` lines of a text, in bytes.
#[must_use]
pub fn data_size(data: &str) -> usize {
    let size = |line: &str| "data: \n".len() - usize::from(line.is_empty()) + line.len();
    lines(data).map(size).sum()
}

/// The lines of a text, as a client joins them again: CRLF, LF and CR alike end one.
fn lines(data: &str) -> impl Iterator<Item = &str> {
    data.split("\r\n").flat_map(|part| part.split(['\n', '\r']))
}

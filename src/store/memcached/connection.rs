//! memcached's meta commands and their replies, on one connection.

use std::io::{self, ErrorKind, Write};
use std::time::Instant;

use crate::net::address::Address;
use crate::net::stream::{DeadlineStream, Transport, invalid_reply, quoted, read_more};

/// How long a line may be; memcached's own have at most 2,048 bytes.
const LONGEST_LINE: usize = 65_536;

/// A reply to a meta command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The item's number, if it was asked for, and its content.
    Value(u64, Vec<u8>),
    /// The item's number.
    Number(u64),
    /// The command was executed.
    Done,
    /// The item does not exist.
    Missing,
    /// The item exists already, or has changed.
    Conflict,
}

/// A connection, and the bytes of it that are not decoded.
pub struct Connection {
    stream: DeadlineStream,
    unread: Vec<u8>,
}

impl Connection {
    /// Connects. At most `max_bytes` are read before one deadline.
    pub fn open(address: &Address, max_bytes: u64) -> io::Result<Self> {
        Ok(Self { stream: DeadlineStream::open(address, max_bytes)?, unread: Vec::new() })
    }

    /// Sends all `lines` at once, and reads a reply to each.
    ///
    /// # Errors
    /// The errors of the stream, `TimedOut` at `until`, and errors of the server.
    pub fn exchange(
        &mut self,
        lines: &[impl AsRef<[u8]>],
        until: Instant,
    ) -> io::Result<Vec<Reply>> {
        if Instant::now() >= until {
            return Err(io::Error::new(
                ErrorKind::TimedOut,
                "other publishers were faster until the deadline",
            ));
        }
        self.stream.wait_until(until);
        let lines: Vec<_> = lines.iter().map(AsRef::as_ref).collect();
        self.stream.write_all(&lines.concat())?;
        lines.iter().map(|_| self.receive()).collect()
    }

    fn receive(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let size = if kind == "VA" { words.next() } else { None };
        let cas = words.find_map(|word| word.strip_prefix('c')?.parse().ok());
        match (kind, cas) {
            ("VA", cas) => {
                let size = size.and_then(|size| size.parse().ok()).ok_or_else(|| refused(&line))?;
                Ok(Reply::Value(cas.unwrap_or_default(), self.content(size)?))
            }
            ("HD", Some(cas)) => Ok(Reply::Number(cas)),
            ("HD", None) => Ok(Reply::Done),
            ("EN" | "NF", _) => Ok(Reply::Missing),
            ("EX" | "NS", _) => Ok(Reply::Conflict),
            _ => Err(refused(&line)),
        }
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<_> = self.unread.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.unread.len() > LONGEST_LINE {
                return Err(invalid_reply("the reply has a line without end"));
            }
            read_more(&mut self.stream, &mut self.unread)?;
        }
    }

    fn content(&mut self, size: usize) -> io::Result<Vec<u8>> {
        let end = size.checked_add(2).ok_or_else(|| invalid_reply("the reply has no end"))?;
        while self.unread.len() < end {
            read_more(&mut self.stream, &mut self.unread)?;
        }
        match self.unread[size..end] == *b"\r\n" {
            true => Ok(self.unread.drain(..end).take(size).collect()),
            false => Err(invalid_reply("the reply has another length than announced")),
        }
    }
}

fn refused(line: &str) -> io::Error {
    let is_error =
        ["ERROR", "CLIENT_ERROR ", "SERVER_ERROR "].iter().any(|it| line.starts_with(it));
    if !is_error {
        return invalid_reply("the reply makes no sense");
    }
    let is_full = line.contains("out of memory") || line.contains("too large");
    let kind = if is_full { ErrorKind::StorageFull } else { ErrorKind::Other };
    io::Error::new(kind, quoted(line))
}

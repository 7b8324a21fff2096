//! An HTTP/1.1 client that can leave a request in flight.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

/// Longer than any test waits for an answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request that was sent and not yet answered.
pub struct Exchange(TcpStream);

impl Exchange {
    /// Sends the beginning of a body whose length a header states.
    pub fn send_part(port: u16, request: &str, headers: &[&str], beginning: &[u8]) -> Self {
        let Self(mut stream) = Self::send(port, request, headers, b"");
        // The server may have answered and closed the connection before.
        let _ = stream.write_all(beginning);
        Self(stream)
    }

    /// Sends `request`, such as `GET /comet.cgi?x=y`, with `headers`, each one
    /// line without its end, and `body`.
    pub fn send(port: u16, request: &str, headers: &[&str], body: &[u8]) -> Self {
        Self::try_send(port, request, headers, body).expect("a server that accepts a request")
    }

    /// The same; fails if the server is not there.
    pub fn try_send(port: u16, request: &str, headers: &[&str], body: &[u8]) -> io::Result<Self> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut message = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
        for header in headers {
            message += header;
            message += "\r\n";
        }
        if !body.is_empty() || request.starts_with("POST") {
            message += "Content-Length: ";
            message += &body.len().to_string();
            message += "\r\n";
        }
        message += "\r\n";
        stream.write_all(&[message.as_bytes(), body].concat())?;
        Ok(Self(stream))
    }

    /// The same with another limit of the time between two parts of the answer.
    pub fn within(self, time: Duration) -> Self {
        self.0.set_read_timeout(Some(time)).unwrap();
        self
    }

    /// The answer to a request without headers; `None` if the connection is refused or the
    /// answer is incomplete.
    pub fn attempt(port: u16, request: &str) -> Option<Reply> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let head = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        split(&bytes, b"\r\n\r\n")?;
        Some(Reply::parse(&bytes))
    }

    /// Whether the answer has begun, or the connection has ended.
    pub fn has_begun(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let peeked = self.0.peek(&mut [0]);
        self.0.set_nonblocking(false).unwrap();
        !peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Waits for the whole answer.
    pub fn reply(mut self) -> Reply {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).expect("a whole answer");
        Reply::parse(&bytes)
    }

    /// Waits for the head of the answer; the body is still to be read.
    pub fn head(self) -> (Reply, BufReader<TcpStream>) {
        let mut wire = BufReader::new(self.0);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            assert!(wire.read_until(b'\n', &mut head).expect("a head") > 0, "no complete head");
        }
        (Reply::of_head(&head), wire)
    }

    /// The body as it comes; `None` if the connection ends before the head.
    pub fn incoming(mut self) -> Option<Incoming> {
        let mut bytes = Vec::new();
        loop {
            if let Some((head, rest)) = split(&bytes, b"\r\n\r\n") {
                let empty = Reply::parse(&[head, b"\r\n\r\n0\r\n\r\n"].concat());
                let chunked = empty.header("Transfer-Encoding") == Some("chunked");
                let rest = rest.to_vec();
                return Some(Incoming { stream: self.0, status: empty.status, chunked, rest });
            }
            read_more(&mut self.0, &mut bytes)?;
        }
    }

    /// Whether the connection ends; data that arrives before is ignored.
    pub fn ends(mut self) -> bool {
        self.0.read_to_end(&mut Vec::new()).is_ok()
    }
}

/// The descriptor for poll(2), readable when the answer begins.
impl AsFd for Exchange {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// An answer whose end has not arrived, and which may never end.
pub struct Incoming {
    stream: TcpStream,
    pub status: u16,
    chunked: bool,
    /// Received data that was not yet returned.
    rest: Vec<u8>,
}

impl Incoming {
    /// The next part of the body, `None` after the last, whether it was complete or not.
    pub fn part(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(part) = self.take() {
                return Some(part).filter(|part| !part.is_empty());
            }
            read_more(&mut self.stream, &mut self.rest)?;
        }
    }

    /// The body up to these bytes, or to its end.
    pub fn until(mut self, end: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !bytes.windows(end.len()).any(|part| part == end) {
            match self.part() {
                Some(part) => bytes.extend(part),
                None => break,
            }
        }
        bytes
    }

    /// The content of a complete chunk; empty for the last one.
    fn take(&mut self) -> Option<Vec<u8>> {
        if !self.chunked {
            return Some(std::mem::take(&mut self.rest)).filter(|part| !part.is_empty());
        }
        let (size, rest) = split(&self.rest, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        let part = rest.get(..size + 2)?[..size].to_vec();
        self.rest = rest[size + 2..].to_vec();
        Some(part)
    }
}

/// `None` at the end of the connection, or the remaining data.
fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 16_384];
    let length = stream.read(&mut part).ok().filter(|&length| length > 0)?;
    bytes.extend_from_slice(&part[..length]);
    Some(())
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Reply {
    /// The value of the header with this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// An answer without its body.
    fn of_head(head: &[u8]) -> Self {
        let head = std::str::from_utf8(head).expect("a head in ASCII");
        let (status_line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = headers.lines().filter_map(|line| line.split_once(": "));
        Self {
            status: status.expect("a status"),
            headers: headers.map(|(name, value)| (name.into(), value.into())).collect(),
            body: String::new(),
        }
    }

    fn parse(bytes: &[u8]) -> Self {
        let (head, body) = split(bytes, b"\r\n\r\n").unwrap_or_else(|| {
            panic!("no complete head in {:?}", String::from_utf8_lossy(bytes));
        });
        let mut reply = Self::of_head(head);
        let chunked = reply.header("Transfer-Encoding") == Some("chunked");
        let body = if chunked { dechunked(body) } else { body.to_vec() };
        reply.body = String::from_utf8(body).expect("a body in UTF-8");
        reply
    }
}

/// RFC 9112 §7.1, without extensions and trailers.
fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let (size, rest) = split(bytes, b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(size).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(rest.get(..size).expect("a whole chunk"));
        bytes = &rest[size + 2..];
    }
}

fn split<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..start], &bytes[start + at.len()..]))
}

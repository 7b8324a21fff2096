//! A client that sends raw bytes and accepts only valid HTTP answers.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::time::Duration;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// The answer to `request`; `None` if the connection ends without an answer.
pub fn ask(port: u16, request: &[u8], is_cut: bool) -> io::Result<Option<Answer>> {
    let mut stream = connect(port);
    // A server may refuse a request before it has read all of it.
    let _ = stream.write_all(request);
    if is_cut {
        let _ = stream.shutdown(Shutdown::Write);
    }
    answer(stream)
}

pub fn answer(mut stream: TcpStream) -> io::Result<Option<Answer>> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        // The server closed the connection with a part of the request unread.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => return Err(error),
    }
    Ok((!bytes.is_empty()).then(|| Answer::parse(&bytes)))
}

/// A well-formed answer (RFC 9112 §4, RFC 9110 §5).
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?} {:.200?}", self.head, String::from_utf8_lossy(&self.body))
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let shown = || String::from_utf8_lossy(bytes).into_owned();
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {:?}", shown()));
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head in ASCII");
        let mut lines = head.split("\r\n");
        let status = status_of(lines.next().unwrap()).unwrap_or_else(|| panic!("{:?}", shown()));
        assert!(lines.all(is_header), "{head:?}");
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

fn status_of(line: &str) -> Option<u16> {
    let rest = line.strip_prefix("HTTP/1.1 ").or(line.strip_prefix("HTTP/1.0 "))?;
    let (status, phrase) = rest.split_once(' ')?;
    let is_phrase = phrase.chars().all(|c| c.is_ascii_alphabetic() || " -".contains(c));
    status.parse().ok().filter(|_| status.len() == 3 && is_phrase)
}

fn is_header(line: &str) -> bool {
    let is_token = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let is_text = |c: char| c.is_ascii_graphic() || c == ' ';
    line.split_once(": ").is_some_and(|(name, value)| {
        !name.is_empty() && name.chars().all(is_token) && value.chars().all(is_text)
    })
}

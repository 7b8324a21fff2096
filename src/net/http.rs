//! A small client of HTTP/1.1 (RFC 9112), with a deadline for everything.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::net::{getpeername, getsockname};
use url::Url;

use super::TlsFiles;
use super::address::Address;
use super::stream::{DeadlineStream, Transport, invalid_reply, read_more};
use super::tls::Tls;

/// The most bytes of an answer that are read. The program itself, sent as a file, is longer.
const MAX_ANSWER: usize = 65_536;

/// The authorities that Debian and others trust.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The time for a connection, with the look-up of the name.
const CONNECT: Duration = Duration::from_secs(3);

/// The time for an answer that waits for nothing.
pub const ANSWER: Duration = Duration::from_secs(5);

/// The server at a URL, and the path of the program there.
pub struct Site {
    /// The host and port, as a browser sends them in `Host`.
    pub host: String,
    /// `http` or `https`.
    pub scheme: String,
    /// The path of the program.
    pub path: String,
    name: String,
    address: Address,
    tls: Option<Tls>,
    /// No request takes longer.
    pub end: Instant,
}

impl Site {
    /// The server at `url`, for as long as until `end`.
    ///
    /// # Errors
    /// The reason why it cannot be asked, and the remedy.
    pub fn parse(url: &str, end: Instant) -> Result<Self, (String, String)> {
        let wrong = || (format!("{url:?} is no URL of a web server"), EXAMPLE.to_owned());
        let parsed = Url::parse(url).map_err(|_| wrong())?;
        let tls = match parsed.scheme() {
            "http" => None,
            "https" => Some(tls()?),
            _ => return Err(wrong()),
        };
        let name = parsed.host_str().ok_or_else(wrong)?;
        let port = parsed.port_or_known_default().ok_or_else(wrong)?;
        let host = parsed.port().map_or(name.to_owned(), |port| format!("{name}:{port}"));
        let address = Address::parse(&format!("{name}:{port}"), port).ok_or_else(wrong)?;
        let (scheme, path) = (parsed.scheme().to_owned(), parsed.path().to_owned());
        let name = name.trim_matches(['[', ']']).to_owned();
        let mut site = Self { host, scheme, path, name, address, tls, end };
        let looked_up = site.address.look_up_until(Instant::now() + CONNECT);
        looked_up.map_err(|cause| (cause.to_string(), "correct the host in the URL".into()))?;
        Ok(site)
    }

    /// The whole answer to a request for `query` at the program's own path.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn ask(&self, method: &str, query: &str, headers: &[&str]) -> io::Result<Answer> {
        self.ask_at(method, &format!("{}?{query}", self.path), headers)
    }

    /// The same for another path, with its query.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn ask_at(&self, method: &str, target: &str, headers: &[&str]) -> io::Result<Answer> {
        let mut exchange = self.send(method, target, headers)?;
        exchange.answer(ANSWER)
    }

    /// Sends a request.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&self, method: &str, target: &str, headers: &[&str]) -> io::Result<Exchange> {
        let until = self.end.min(Instant::now() + CONNECT);
        let most = 2 * MAX_ANSWER as u64;
        let socket = DeadlineStream::open_until(&self.address, most, until)?;
        let mut stream: Box<dyn Transport> = match &self.tls {
            Some(tls) => tls.over(socket, &self.name)?,
            None => Box::new(socket),
        };
        stream.wait_until(until);
        let more: String = headers.iter().flat_map(|&line| [line, "\r\n"]).collect();
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{more}\r\n",
            self.host
        );
        stream.write_all(head.as_bytes())?;
        stream.flush()?;
        let is_bodiless = method == "HEAD";
        Ok(Exchange { stream, bytes: Vec::new(), is_bodiless, end: self.end })
    }
}

const EXAMPLE: &str = "give one such as http://localhost/comet.cgi";

fn tls() -> Result<Tls, (String, String)> {
    if cfg!(not(feature = "tls")) {
        let why = "this executable was built without TLS, so it cannot ask https";
        return Err((why.into(), "make FEATURES=tls".into()));
    }
    let files = TlsFiles { ca: PathBuf::from(AUTHORITIES), own: None };
    Tls::read(&files).map_err(|cause| (cause.to_string(), "apt install ca-certificates".into()))
}

/// A request whose answer arrives.
pub struct Exchange {
    stream: Box<dyn Transport>,
    bytes: Vec<u8>,
    is_bodiless: bool,
    end: Instant,
}

impl Exchange {
    /// The whole answer, or its first part.
    ///
    /// # Errors
    /// `TimedOut` after this time, and the others of the connection.
    pub fn answer(&mut self, within: Duration) -> io::Result<Answer> {
        self.set_deadline(within);
        while self.bytes.len() < MAX_ANSWER && self.is_more()? {}
        Answer::parse(&self.bytes, !self.is_bodiless)
    }

    /// The head of the answer, as soon as it is complete.
    ///
    /// # Errors
    /// As for [`answer`](Self::answer).
    pub fn head(&mut self, within: Duration) -> io::Result<Answer> {
        self.set_deadline(within);
        while split(&self.bytes).is_none() && self.bytes.len() < MAX_ANSWER && self.is_more()? {}
        Answer::parse(&self.bytes, false)
    }

    /// Whether anything else arrives within this time.
    pub fn receives(&mut self, within: Duration) -> bool {
        self.set_deadline(within);
        self.is_more().unwrap_or_default()
    }

    /// Whether the server, or the proxy before it, is on this machine.
    pub fn is_local(&self) -> bool {
        let ends = (getsockname(&self.stream).ok(), getpeername(&self.stream).ok().flatten());
        match ends {
            (Some(own), Some(peer)) => {
                let ip = |end| SocketAddr::try_from(end).map(|end| end.ip().to_canonical());
                ip(own).is_ok_and(|own| ip(peer).is_ok_and(|peer| are_one_machine(own, peer)))
            }
            _ => false,
        }
    }

    /// Whether the answer has a body so far.
    pub fn has_body(&self) -> bool {
        split(&self.bytes).is_some_and(|(_, body)| !body.is_empty())
    }

    fn set_deadline(&mut self, within: Duration) {
        self.stream.wait_until(self.end.min(Instant::now() + within));
    }

    /// Whether more has arrived; if not, the answer is complete.
    fn is_more(&mut self) -> io::Result<bool> {
        match read_more(&mut self.stream, &mut self.bytes) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
            other => other.map(|()| true),
        }
    }
}

/// A machine that connects to itself has the same address at both ends, or loopback's.
fn are_one_machine(own: IpAddr, peer: IpAddr) -> bool {
    own == peer || peer.is_loopback()
}

/// An answer, or its beginning.
#[derive(Debug)]
pub struct Answer {
    /// The version of HTTP, as `HTTP/1.1`.
    pub version: String,
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8], has_body: bool) -> io::Result<Self> {
        let not_http = || invalid_reply("it does not speak HTTP/1.1");
        let (head, body) = split(bytes).ok_or_else(not_http)?;
        let head = String::from_utf8_lossy(head);
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let version = first.next().filter(|it| it.starts_with("HTTP/")).ok_or_else(not_http)?;
        let status = first.next().and_then(|code| code.parse().ok()).ok_or_else(not_http)?;
        let fields = lines.filter_map(|line| line.split_once(':'));
        let headers = fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        let mut answer =
            Self { version: version.into(), status, headers: headers.collect(), body: Vec::new() };
        if has_body {
            let is_chunked = answer.header("Transfer-Encoding") == "chunked";
            answer.body = if is_chunked { dechunked(body) } else { body.to_vec() };
        }
        Ok(answer)
    }

    /// The value of a header, or nothing.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }
}

/// The head and what has arrived of the body.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    cut(bytes, b"\r\n\r\n")
}

fn cut<'a>(bytes: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let start = bytes.windows(at.len()).position(|window| window == at)?;
    Some((&bytes[..start], &bytes[start + at.len()..]))
}

/// The content of all chunks that have arrived (RFC 9112 §7.1).
fn dechunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some((line, rest)) = cut(bytes, b"\r\n") {
        let size = String::from_utf8_lossy(line);
        let size = size.split(';').next().and_then(|it| usize::from_str_radix(it.trim(), 16).ok());
        let Some(size) = size.filter(|&size| size > 0) else { break };
        content.extend_from_slice(&rest[..size.min(rest.len())]);
        bytes = size.checked_add(2).and_then(|end| rest.get(end..)).unwrap_or_default();
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_knows_itself() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(are_one_machine(ip("127.0.0.1"), ip("127.0.0.2")));
        assert!(are_one_machine(ip("192.0.2.1"), ip("192.0.2.1")));
        assert!(!are_one_machine(ip("192.0.2.1"), ip("192.0.2.2")));
    }

    #[test]
    fn answer_is_parsed_as_far_as_it_came() {
        let whole = b"HTTP/1.1 200 OK\r\nserver:  x \r\nTransfer-Encoding: chunked\r\n\r\n\
                      3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        for length in 0..=whole.len() {
            let _ = Answer::parse(&whole[..length], true);
        }
        let answer = Answer::parse(whole, true).unwrap();
        assert_eq!((answer.status, answer.header("Server"), answer.header("X")), (200, "x", ""));
        assert_eq!(answer.body, b"abcde");
        assert_eq!(dechunked(b"ffffffffffffffff\r\nab"), b"ab");
        assert!(Answer::parse(b"SSH-2.0-x\r\n\r\n", true).is_err());
    }
}

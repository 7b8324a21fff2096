//! A connection to a server with a deadline for a whole request. A limit for the
//! pause between two bytes would let a slow server hold the process.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::address::Address;
use super::deadline::{remaining, wait_for_event};

/// The longest time for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// The longest time for a request and its reply, with the connection. Together with
/// the grace period of a watch this is less than a second.
pub const REQUEST_TIMEOUT: Duration = Duration::from_millis(600);

/// How many bytes a server may send before one deadline, in addition to one topic.
/// 64 topics with one message of 64 KiB each are 4 MiB.
pub const MAX_REPLY_BYTES: u64 = 8 << 20;

/// The transport of a connection: a socket, or TLS over a socket.
pub trait Transport: Read + Write + AsFd {
    /// Sets the deadline of every wait. A new deadline also resets the number of
    /// bytes that may be read.
    fn wait_until(&mut self, until: Instant);
}

/// A connected, non-blocking socket.
pub struct DeadlineStream {
    socket: OwnedFd,
    until: Instant,
    /// How many bytes may be read before one deadline, and how many are left.
    max_bytes: u64,
    left: u64,
}

impl DeadlineStream {
    /// Connects. At most `max_bytes` are read until one deadline.
    ///
    /// # Errors
    /// The error of connect(2), `TimedOut` after [`CONNECT_TIMEOUT`].
    pub fn open(address: &Address, max_bytes: u64) -> io::Result<Self> {
        Self::open_until(address, max_bytes, Instant::now() + CONNECT_TIMEOUT)
    }

    /// The same, with another deadline.
    ///
    /// # Errors
    /// The error of connect(2), `TimedOut` at the deadline.
    pub fn open_until(address: &Address, max_bytes: u64, until: Instant) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp { port, ips, .. } => tcp(ips, *port, until)?,
            Address::Unix(path) => unix(path)?,
        };
        Ok(Self { socket, until, max_bytes, left: max_bytes })
    }

    fn counted(&mut self, read: usize) -> io::Result<usize> {
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(invalid_reply("the reply is larger than any request allows")),
        }
        Ok(read)
    }
}

impl Transport for DeadlineStream {
    fn wait_until(&mut self, until: Instant) {
        if until != self.until {
            (self.until, self.left) = (until, self.max_bytes);
        }
    }
}

/// Connects to the first address that answers.
fn tcp(ips: &[IpAddr], port: u16, until: Instant) -> io::Result<OwnedFd> {
    let mut failure = ErrorKind::NotFound.into();
    for (number, &ip) in ips.iter().enumerate() {
        let others = u32::try_from(ips.len() - number).unwrap_or(u32::MAX);
        let share = remaining(until)? / others;
        match TcpStream::connect_timeout(&SocketAddr::new(ip, port), share) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_nonblocking(true)?;
                return Ok(stream.into());
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Connecting to a server with a full queue fails at once (EAGAIN).
fn unix(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// The error for a reply that breaks the protocol of the server.
pub fn invalid_reply(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// The first 200 characters of a reply, as a line of the log shows them.
pub fn quoted(text: &str) -> String {
    const LONGEST: usize = 200;
    text.chars().take(LONGEST).collect()
}

impl Read for DeadlineStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match rustix::io::read(&self.socket, &mut *buffer) {
                Err(Errno::AGAIN) => wait_for_event(&self.socket, PollFlags::IN, self.until)?,
                Err(Errno::INTR) => {}
                other => return self.counted(other?),
            }
            remaining(self.until)?;
        }
    }
}

impl Write for DeadlineStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(&self.socket, bytes) {
                Err(Errno::AGAIN) => wait_for_event(&self.socket, PollFlags::OUT, self.until)?,
                Err(Errno::INTR) => {}
                other => return Ok(other?),
            }
            remaining(self.until)?;
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for DeadlineStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Reads more bytes and appends them to `unread`.
///
/// # Errors
/// `UnexpectedEof` if the server closed the connection; those of the stream.
pub fn read_more(stream: &mut impl Read, unread: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 16_384];
    match stream.read(&mut part)? {
        0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
        read => {
            unread.extend_from_slice(&part[..read]);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A server that sends a byte now and then does not extend the deadline.
    #[test]
    fn slow_server_is_dropped_at_the_deadline() {
        let path = std::env::temp_dir().join(format!("novcomet-link-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let mut stream =
            DeadlineStream::open(&Address::Unix(path.clone()), MAX_REPLY_BYTES).unwrap();
        std::fs::remove_file(path).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let dribble = thread::spawn(move || {
            while peer.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        });
        stream.wait_until(Instant::now() + Duration::from_millis(200));
        let mut unread = Vec::new();
        let error = loop {
            match read_more(&mut stream, &mut unread) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(!unread.is_empty());
        drop(stream);
        dribble.join().unwrap();
    }
}

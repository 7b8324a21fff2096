//! A connection to a server on which every wait has an end: a moment, not a
//! pause between two bytes, so that no server holds us by the byte.

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

/// How long it may take to be connected.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(250);

/// How long an exchange may take, with the connecting: with what a watch waits
/// for, less than a second in all.
pub const REQUEST_TIMEOUT: Duration = Duration::from_millis(600);

/// How many bytes a server may say until the same moment, besides those of one
/// topic: 64 topics with one message of 64 KiB each are 4 MiB.
pub const MAX_REPLY_BYTES: u64 = 8 << 20;

/// What a conversation goes over: a socket, or what encrypts on one.
pub trait Transport: Read + Write + AsFd {
    /// From now on every wait ends at this moment. A new moment has a new
    /// number of bytes that may be heard.
    fn wait_until(&mut self, until: Instant);
}

/// A connected socket, never blocking.
pub struct DeadlineStream {
    socket: OwnedFd,
    until: Instant,
    /// How many bytes may be heard until one moment, and how many are left.
    max_bytes: u64,
    left: u64,
}

impl DeadlineStream {
    /// Connects. At most `max_bytes` are read until one deadline.
    ///
    /// # Errors
    /// What connect(2) says, `TimedOut` after [`CONNECT_TIMEOUT`].
    pub fn open(address: &Address, max_bytes: u64) -> io::Result<Self> {
        let until = Instant::now() + CONNECT_TIMEOUT;
        let socket = match address {
            Address::Tcp { port, ips, .. } => tcp(ips, *port, until)?,
            Address::Unix(path) => unix(path)?,
        };
        Ok(Self { socket, until, max_bytes, left: max_bytes })
    }

    fn counted(&mut self, read: usize) -> io::Result<usize> {
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(invalid_reply("it says more than anybody asked for")),
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

/// Any of its addresses, the first that answers.
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

/// A server that has stopped, and its queue full, is EAGAIN and no wait.
fn unix(path: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// What a server said is no answer, and why.
pub fn invalid_reply(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// What a server said, as far as it goes into a line of the log.
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

/// More of what the other side says, appended to `unread`.
///
/// # Errors
/// `UnexpectedEof` when it has hung up; those of the stream.
pub fn read_more(stream: &mut impl Read, unread: &mut Vec<u8>) -> io::Result<()> {
    let mut part = [0; 16_384];
    match stream.read(&mut part)? {
        0 => Err(io::Error::new(ErrorKind::UnexpectedEof, "it hung up")),
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

    /// One byte a while is no progress: the moment counts.
    #[test]
    fn a_server_that_dribbles_is_given_up_at_the_moment() {
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

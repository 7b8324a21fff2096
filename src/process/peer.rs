//! A connection between two processes of one user, over which they hand each other
//! descriptors (unix(7), `SCM_RIGHTS`). It keeps the bounds of messages.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, connect, listen, recvmsg, sendmsg, shutdown, socket_with,
};
use rustix::process::{Uid, geteuid};

use super::clock::monotonic;
use super::sys;

/// The longest message, in bytes. A socket holds 212,992 (`net.core.wmem_default`).
pub const MAX_MESSAGE: usize = 131_072;

/// The most descriptors of one message.
pub const MAX_DESCRIPTORS: usize = 8;

/// How many processes may wait to be accepted; the kernel caps it at
/// net.core.somaxconn, 4096.
const BACKLOG: i32 = 4096;

/// The most connections that are accepted at once.
const AT_ONCE: usize = 64;

/// A name that processes can connect to, in the abstract namespace (unix(7)). It is
/// free again when its last descriptor is closed, for any reason.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// One end of a connection.
#[derive(Debug)]
pub struct Peer(OwnedFd);

/// What came over a connection.
#[derive(Debug)]
pub enum Received {
    /// A message and its descriptors.
    Message(Vec<u8>, Vec<OwnedFd>),
    /// Nothing yet.
    Nothing,
    /// The other end is closed, or sent what no process of ours sends.
    End,
}

fn socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
}

/// The kernel vouches for the user at the other end (`SO_PEERCRED`).
fn is_ours(socket: &OwnedFd) -> bool {
    socket_peercred(socket).is_ok_and(|peer| peer.uid == geteuid())
}

fn connect_to_any(name: &str) -> Result<OwnedFd, Errno> {
    let socket = socket()?;
    connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    Ok(socket)
}

impl Listener {
    /// Takes the name.
    ///
    /// # Errors
    /// EADDRINUSE if another process has it.
    pub fn bind(name: &str) -> Result<Self, Errno> {
        let socket = socket()?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        listen(&socket, BACKLOG)?;
        Ok(Self(socket))
    }

    /// The processes that have connected, but only some if they are many: those of another
    /// user come as fast as they like.
    pub fn accept(&self) -> impl Iterator<Item = Peer> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accepted = std::iter::repeat_with(move || accept_with(&self.0, flags)).take(AT_ONCE);
        let is_last = |errno: &Errno| ![Errno::INTR, Errno::CONNABORTED].contains(errno);
        let accepted = accepted.take_while(move |it| !it.as_ref().is_err_and(is_last)).flatten();
        // Any user can connect to an abstract name.
        accepted.filter(is_ours).map(Peer)
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Peer {
    /// Connects to a name of our own user.
    ///
    /// # Errors
    /// ECONNREFUSED if no process has the name, EACCES if one of another user has it,
    /// EAGAIN if too many wait to be accepted.
    pub fn connect(name: &str) -> Result<Self, Errno> {
        let socket = connect_to_any(name)?;
        if is_ours(&socket) { Ok(Self(socket)) } else { Err(Errno::ACCESS) }
    }

    /// The same. Root also connects to a name of another user, as this user: a process hears
    /// its own user only.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_as_its_user(name: &str) -> Result<Self, Errno> {
        if !geteuid().is_root() {
            return Self::connect(name);
        }
        let user = socket_peercred(&connect_to_any(name)?)?.uid;
        sys::act_as(user).map_err(|_| Errno::ACCESS)?;
        let peer = Self::connect(name);
        sys::act_as(Uid::ROOT).map_err(|_| Errno::ACCESS)?;
        peer
    }

    /// Sends a message with descriptors, of which the sender keeps its own. When it
    /// returns, the other process has them, or the kernel closes them with it.
    ///
    /// # Errors
    /// EPIPE if the other end is closed, EAGAIN if it does not read, EMSGSIZE.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if message.len() > MAX_MESSAGE || descriptors.len() > MAX_DESCRIPTORS {
            return Err(Errno::MSGSIZE.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(descriptors));
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.0, &[IoSlice::new(message)], &mut control, flags)?;
        Ok(())
    }

    /// The same, but waits for a reader until `within` is over.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_within(
        &self,
        message: &[u8],
        descriptors: &[BorrowedFd<'_>],
        within: Duration,
    ) -> io::Result<()> {
        match self.send(message, descriptors) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.poll(PollFlags::OUT, within);
                self.send(message, descriptors)
            }
            other => other,
        }
    }

    /// The next message.
    #[must_use]
    pub fn receive(&self, buffer: &mut Vec<u8>) -> Received {
        buffer.resize(MAX_MESSAGE, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let mut receive = || recvmsg(&self.0, &mut into, &mut control, flags);
        // What the other end has left unread is told once, and before what it has sent.
        let received = match receive().or_else(|errno| match errno {
            Errno::CONNRESET => receive(),
            errno => Err(errno),
        }) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
            Err(_) => return Received::End,
        };
        let descriptors = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        });
        let descriptors: Vec<_> = descriptors.flatten().collect();
        let is_cut = received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        match received.bytes {
            // No message of ours is empty.
            0 => Received::End,
            _ if is_cut => Received::End,
            length => Received::Message(buffer[..length].to_vec(), descriptors),
        }
    }

    /// The next message, for which it waits until `within` is over.
    #[must_use]
    pub fn receive_within(&self, buffer: &mut Vec<u8>, within: Duration) -> Received {
        match self.receive(buffer) {
            Received::Nothing => {
                self.poll(PollFlags::IN, within);
                self.receive(buffer)
            }
            other => other,
        }
    }

    /// Waits until the other end says `word`, until `within` is over. Then it cannot say it
    /// any more, so both ends know whether it has. Before that it may say what is in `aside`.
    /// Returns whether the connection goes on: a word of the last moment counts.
    ///
    /// # Errors
    /// `TimedOut`, `BrokenPipe` if the connection has ended, `InvalidData` for another word.
    pub fn hear_word(
        &self,
        buffer: &mut Vec<u8>,
        word: u8,
        aside: &[u8],
        within: Duration,
    ) -> io::Result<bool> {
        let until = monotonic().saturating_add(within);
        let mut is_shut = false;
        loop {
            let left = until.saturating_sub(monotonic());
            match self.receive_within(buffer, left) {
                Received::Message(said, _) if said == [word] => return Ok(!is_shut),
                Received::Message(said, _) if said.len() == 1 && aside.contains(&said[0]) => {}
                Received::Message(..) => return Err(io::ErrorKind::InvalidData.into()),
                Received::End if is_shut => return Err(io::ErrorKind::TimedOut.into()),
                Received::End => return Err(io::ErrorKind::BrokenPipe.into()),
                Received::Nothing if left.is_zero() => {
                    self.shut();
                    is_shut = true;
                }
                Received::Nothing => {}
            }
        }
    }

    /// Ends the connection: what the other end sends from now on fails there, and what
    /// it has sent can still be received.
    fn shut(&self) {
        let _ = shutdown(&self.0, Shutdown::Both);
    }

    fn poll(&self, flags: PollFlags, within: Duration) {
        let mut fds = [PollFd::new(&self.0, flags)];
        let _ = poll(&mut fds, Timespec::try_from(within).ok().as_ref());
    }
}

impl From<OwnedFd> for Peer {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{BuildHasher, RandomState};
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    fn name() -> String {
        format!("novcomet/test/{:x}", RandomState::new().hash_one(0))
    }

    fn pair() -> (Peer, Peer) {
        let name = name();
        let listener = Listener::bind(&name).unwrap();
        let one = Peer::connect(&name).unwrap();
        (one, listener.accept().next().unwrap())
    }

    #[test]
    fn descriptor_is_handed_over() {
        let (one, other) = pair();
        let (mut reader, writer) = UnixStream::pair().unwrap();
        one.send(b"w", &[writer.as_fd()]).unwrap();
        drop((one, writer));
        let Received::Message(message, mut handed) = other.receive(&mut Vec::new()) else {
            panic!("nothing came")
        };
        UnixStream::from(handed.pop().unwrap()).write_all(b"hello").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!((message.as_slice(), text.as_str()), (&b"w"[..], "hello"));
        assert!(matches!(other.receive(&mut Vec::new()), Received::End));
    }

    /// A message counts if it was sent before the end.
    #[test]
    fn shut_peer_receives_what_was_sent() {
        let (one, other) = pair();
        one.send(b"k", &[]).unwrap();
        other.shut();
        assert!(one.send(b"k", &[]).is_err());
        assert!(matches!(other.receive(&mut Vec::new()), Received::Message(..)));
        assert!(matches!(other.receive(&mut Vec::new()), Received::End));
    }

    /// The kernel tells of the unread message before the sent one.
    #[test]
    fn word_of_an_end_that_left_something_unread_is_heard() {
        let (one, other) = pair();
        one.send(b"t", &[]).unwrap();
        other.send(b"x", &[]).unwrap();
        drop(other);
        assert!(matches!(one.receive(&mut Vec::new()), Received::Message(it, _) if it == b"x"));
        assert!(matches!(one.receive(&mut Vec::new()), Received::End));
    }

    #[test]
    fn word_counts_for_both_ends_or_for_none() {
        let kind = |heard: io::Result<bool>| heard.unwrap_err().kind();
        let mut buffer = Vec::new();
        let mut hear = |peer: &Peer| peer.hear_word(&mut buffer, b'k', b"t", Duration::ZERO);
        let (one, other) = pair();
        one.send(b"t", &[]).unwrap();
        one.send(b"k", &[]).unwrap();
        assert!(hear(&other).unwrap());
        one.send(b"?", &[]).unwrap();
        assert_eq!(kind(hear(&other)), io::ErrorKind::InvalidData);
        assert_eq!(kind(hear(&other)), io::ErrorKind::TimedOut);
        assert!(one.send(b"k", &[]).is_err());
        let (one, other) = pair();
        drop(one);
        assert_eq!(kind(hear(&other)), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn name_has_one_owner_and_is_free_after_it() {
        let name = name();
        assert_eq!(Peer::connect(&name).unwrap_err(), Errno::CONNREFUSED);
        let listener = Listener::bind(&name).unwrap();
        let all: Vec<_> = (0..=AT_ONCE).map(|_| Peer::connect(&name).unwrap()).collect();
        assert_eq!((listener.accept().count(), listener.accept().count()), (AT_ONCE, 1));
        drop(all);
        assert_eq!(Listener::bind(&name).unwrap_err(), Errno::ADDRINUSE);
        assert!(listener.accept().next().is_none());
        drop(listener);
        Listener::bind(&name).unwrap();
    }
}

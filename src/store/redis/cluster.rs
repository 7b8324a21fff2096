//! The servers of a cluster, or a single server.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use redis_protocol::resp2::types::OwnedFrame;

use super::connection::{Command, Connection};
use super::url::Server;
use crate::net::address::Address;
use crate::net::stream::REQUEST_TIMEOUT;
use crate::net::tls::Tls;

/// How many redirects a request follows.
const MAX_REDIRECTS: usize = 4;

/// Connections to servers, opened with the first request.
pub struct Cluster {
    server: Server,
    /// For all servers, or for none.
    tls: Option<Tls>,
    connections: HashMap<Address, Connection>,
    /// The servers of keys, from earlier redirects.
    moved: HashMap<Vec<u8>, Address>,
    is_sharded: bool,
    /// The last entry of each stream at the first read since the watch has told of it. A later read
    /// may have been for one subscriber only.
    positions: HashMap<Vec<u8>, String>,
    until: Instant,
    /// How many bytes a server may send before the deadline.
    max_bytes: u64,
}

impl Cluster {
    pub fn new(server: Server, tls: Option<Tls>, max_bytes: u64) -> Self {
        Self {
            server,
            tls,
            connections: HashMap::new(),
            moved: HashMap::new(),
            is_sharded: false,
            positions: HashMap::new(),
            until: Instant::now(),
            max_bytes,
        }
    }

    /// Starts a request, which may take [`REQUEST_TIMEOUT`].
    pub fn begin(&mut self) {
        self.until = Instant::now() + REQUEST_TIMEOUT;
    }

    /// Whether keys have different servers.
    pub fn is_sharded(&self) -> bool {
        self.is_sharded
    }

    /// Records the last entry of a stream; `None` if the stream does not exist. Of several, the
    /// first one counts.
    pub fn record_position(&mut self, key: &[u8], id: Option<&str>) {
        let id = id.unwrap_or("0-0");
        let known = self.positions.get(key);
        if known.is_none_or(|known| order(id) < order(known)) {
            self.positions.insert(key.to_vec(), id.to_owned());
        }
    }

    /// Forgets all keys: it is not known which have changed.
    pub fn forget_all(&mut self) {
        self.positions.clear();
    }

    /// Forgets a key whose change has been told, or that is no readable stream: XREAD would fail
    /// for all keys.
    pub fn forget(&mut self, key: &[u8]) {
        self.positions.remove(key);
    }

    /// Sends a command to the server of `key` and returns its reply. The server may have
    /// closed an idle connection. If the command may run twice (`again`), it is sent
    /// again on a new connection.
    ///
    /// # Errors
    /// Those of the stream, and errors of the server.
    pub fn ask(&mut self, key: &[u8], command: &Command, again: bool) -> io::Result<OwnedFrame> {
        for _ in 0..MAX_REDIRECTS {
            let address = self.address_of(key);
            let reply = self.try_ask(&address, command);
            let reply = match reply {
                Err(error) if again && error.kind() != ErrorKind::TimedOut => {
                    self.try_ask(&address, command)
                }
                other => other,
            }?;
            match reply {
                OwnedFrame::Error(why) if self.follow_redirect(key, &why) => {}
                OwnedFrame::Error(why) => return Err(refused(why)),
                other => return Ok(other),
            }
        }
        Err(io::Error::other("the redirects of the cluster form a circle"))
    }

    fn address_of(&self, key: &[u8]) -> Address {
        self.moved.get(key).unwrap_or(&self.server.address).clone()
    }

    fn try_ask(&mut self, address: &Address, command: &Command) -> io::Result<OwnedFrame> {
        let exchanged = self.connection(address).and_then(|connection| {
            connection.send(command)?;
            connection.receive()
        });
        if exchanged.is_err() {
            self.connections.remove(address);
        }
        exchanged
    }

    /// A connection that is free: a watch may have ended, or wait still, without its reply.
    fn connection(&mut self, address: &Address) -> io::Result<&mut Connection> {
        let (until, max_bytes) = (self.until, self.max_bytes);
        if self.connections.get(address).is_some_and(|open| open.is_blocked) {
            self.connections.remove(address);
        }
        Ok(match self.connections.entry(address.clone()) {
            Entry::Occupied(open) => {
                let open = open.into_mut();
                open.wait_until(until);
                open
            }
            Entry::Vacant(none) => {
                let tls = self.tls.as_ref();
                none.insert(Connection::open(address, &self.server, tls, until, max_bytes)?)
            }
        })
    }

    /// `MOVED 3999 127.0.0.1:6381` names the server of a key. `CROSSSLOT` means that keys
    /// have different servers.
    fn follow_redirect(&mut self, key: &[u8], why: &str) -> bool {
        self.is_sharded |= why.starts_with("CROSSSLOT") || why.starts_with("MOVED ");
        let target = why.strip_prefix("MOVED ").and_then(|rest| rest.split_once(' '));
        let Some(address) = target.and_then(|(_, to)| self.redirect_target(to)) else {
            return false;
        };
        self.moved.insert(key.to_vec(), address);
        true
    }

    /// An IPv6 address has no brackets in a redirect, and an empty host means the same
    /// host. A redirect from a Unix socket is refused, because the password would go over
    /// a network that the administrator has not named.
    fn redirect_target(&self, to: &str) -> Option<Address> {
        let (host, port) = to.rsplit_once(':')?;
        let port = port.parse().ok()?;
        match &self.server.address {
            Address::Unix(_) => None,
            Address::Tcp { host, ips, .. } if to.starts_with(':') => {
                Some(Address::Tcp { host: host.clone(), port, ips: ips.clone() })
            }
            Address::Tcp { .. } => Some(Address::tcp(host, port)),
        }
    }

    /// Asks the server to reply when one of these streams has an entry after the last read,
    /// or after `milliseconds`. Returns the descriptor for the reply.
    ///
    /// # Errors
    /// Those of the stream, and `NotFound` if no stream could be read.
    pub fn block(&mut self, keys: &[&Vec<u8>], milliseconds: u128) -> io::Result<OwnedFd> {
        let known = |key: &&Vec<u8>| Some(((*key).clone(), self.positions.get(*key)?.clone()));
        let (keys, positions): (Vec<_>, Vec<_>) = keys.iter().filter_map(known).unzip();
        let first = keys.first().ok_or(ErrorKind::NotFound)?;
        let address = self.address_of(first);
        let command = Command::new("XREAD").with("COUNT").with("1").with("BLOCK");
        let command = command.with(milliseconds.to_string()).with("STREAMS");
        let command = keys.iter().fold(command, Command::with);
        let command = positions.iter().fold(command, Command::with);
        self.begin();
        let connection = self.connection(&address)?;
        connection.is_blocked = true;
        connection.send(&command)?;
        connection.as_fd().try_clone_to_owned()
    }

    /// Reads the reply to [`block`](Self::block), and returns the streams with new
    /// entries. Without a reply at `until` it drops the connection. `None` if the reply
    /// does not say which, or another request has dropped the connection.
    pub fn unblock(&mut self, key: &[u8], until: Instant) -> Option<Vec<Vec<u8>>> {
        let address = self.address_of(key);
        let connection = self.connections.get_mut(&address).filter(|open| open.is_blocked)?;
        connection.wait_until(until);
        let reply = connection.receive();
        connection.is_blocked = false;
        if reply.is_err() {
            self.connections.remove(&address);
        }
        reply.ok().and_then(changed_streams)
    }
}

/// The milliseconds and the number of an entry's id.
fn order(id: &str) -> Option<(u64, u64)> {
    let (time, number) = id.split_once('-')?;
    Some((time.parse().ok()?, number.parse().ok()?))
}

/// XREAD replies with pairs of a key and its entries, or with nothing.
fn changed_streams(reply: OwnedFrame) -> Option<Vec<Vec<u8>>> {
    let key = |pair| match pair {
        OwnedFrame::Array(pair) => match pair.into_iter().next() {
            Some(OwnedFrame::BulkString(key)) => Some(key),
            _ => None,
        },
        _ => None,
    };
    match reply {
        OwnedFrame::Array(streams) => streams.into_iter().map(key).collect(),
        OwnedFrame::Null => Some(Vec::new()),
        _ => None,
    }
}

/// The first word of an error is its kind.
pub fn refused(why: String) -> io::Error {
    let kind = match why.split(' ').next() {
        Some("OOM") => ErrorKind::StorageFull,
        Some("NOAUTH" | "NOPERM" | "WRONGPASS") => ErrorKind::PermissionDenied,
        Some("WRONGTYPE") => ErrorKind::AlreadyExists,
        Some("READONLY") => ErrorKind::ReadOnlyFilesystem,
        Some("MOVED") => ErrorKind::AddrNotAvailable,
        _ if why.starts_with("ERR unknown command") => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, why)
}

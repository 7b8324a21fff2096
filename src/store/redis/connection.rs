//! Commands and replies on one connection (RESP2).

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::encode::encode;
use redis_protocol::resp2::types::{OwnedFrame, Resp2Frame};

use super::reply::Scan;
use super::url::Server;
use crate::net::address::Address;
use crate::net::stream::{DeadlineStream, Transport, invalid_reply, quoted, read_more};
use crate::net::tls::Tls;

/// A command and its arguments.
#[derive(Debug, Clone)]
pub struct Command(Vec<OwnedFrame>);

impl Command {
    pub fn new(name: &str) -> Self {
        Self(Vec::new()).with(name)
    }

    #[must_use]
    pub fn with(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.0.push(OwnedFrame::BulkString(argument.as_ref().to_vec()));
        self
    }

    fn bytes(&self) -> io::Result<Vec<u8>> {
        let frame = OwnedFrame::Array(self.0.clone());
        let mut bytes = vec![0; frame.encode_len(false)];
        encode(&mut bytes, &frame, false).map_err(io::Error::other)?;
        Ok(bytes)
    }
}

/// A connection, and the bytes of it that are not decoded.
pub struct Connection {
    transport: Box<dyn Transport>,
    unread: Vec<u8>,
    /// How far the first reply has been followed.
    scan: Scan,
    /// The replies to the login that are still to come.
    auth_commands: usize,
    password: String,
    /// Whether a command that waits for news has no reply yet: any other has its reply after it.
    pub is_blocked: bool,
}

impl Connection {
    /// Connects, with TLS if it is given, and sends the login. Its replies are read with
    /// the first other reply, which saves a round trip.
    ///
    /// # Errors
    /// The errors of the connection and of the first write.
    pub fn open(
        address: &Address,
        server: &Server,
        tls: Option<&Tls>,
        until: Instant,
        max_bytes: u64,
    ) -> io::Result<Self> {
        let mut stream = DeadlineStream::open(address, max_bytes)?;
        stream.wait_until(until);
        let transport: Box<dyn Transport> = match (tls, address) {
            (Some(tls), Address::Tcp { host, .. }) => tls.over(stream, host)?,
            _ => Box::new(stream),
        };
        let auth_commands = auth_commands(server);
        let mut connection = Self {
            transport,
            unread: Vec::new(),
            scan: Scan::default(),
            auth_commands: auth_commands.len(),
            password: server.password.clone(),
            is_blocked: false,
        };
        for command in auth_commands {
            connection.send(&command)?;
        }
        Ok(connection)
    }

    pub fn wait_until(&mut self, until: Instant) {
        self.transport.wait_until(until);
    }

    /// # Errors
    /// The errors of the stream.
    pub fn send(&mut self, command: &Command) -> io::Result<()> {
        self.transport.write_all(&command.bytes()?)
    }

    /// Reads the reply to the oldest command without one.
    ///
    /// # Errors
    /// Those of the stream, and `PermissionDenied` if the server refuses the login.
    pub fn receive(&mut self) -> io::Result<OwnedFrame> {
        while self.auth_commands > 0 {
            self.auth_commands -= 1;
            if let OwnedFrame::Error(why) = self.next()? {
                return Err(login_refused(&self.without_password(&why)));
            }
        }
        Ok(match self.next()? {
            OwnedFrame::Error(why) => OwnedFrame::Error(self.without_password(&why)),
            other => other,
        })
    }

    /// The error for the log. Redis quotes the arguments of an unknown command.
    fn without_password(&self, why: &str) -> String {
        let why = why.split_once(", with args").map_or(why, |(before, _)| before);
        match self.password.as_str() {
            "" => quoted(why),
            password => quoted(&why.replace(password, "***")),
        }
    }

    fn next(&mut self) -> io::Result<OwnedFrame> {
        let length = loop {
            match self.scan.length(&self.unread)? {
                Some(length) => break length,
                None => read_more(&mut self.transport, &mut self.unread)?,
            }
        };
        self.scan = Scan::default();
        let reply = decode(&self.unread[..length]).ok().flatten();
        self.unread.drain(..length);
        reply.map(|(frame, _)| frame).ok_or_else(|| invalid_reply("it is not a reply of Redis"))
    }
}

/// The server refuses the user, the password or the database.
fn login_refused(why: &str) -> io::Error {
    let is_database = ["DB index", "SELECT"].iter().any(|word| why.contains(word));
    let kind = match why.split(' ').next() {
        Some("LOADING" | "BUSY" | "MASTERDOWN") => ErrorKind::Other,
        _ if is_database => ErrorKind::NotFound,
        _ => ErrorKind::PermissionDenied,
    };
    io::Error::new(kind, why.to_owned())
}

fn auth_commands(server: &Server) -> Vec<Command> {
    let mut auth_commands = Vec::new();
    if !server.password.is_empty() || !server.user.is_empty() {
        let auth = Command::new("AUTH");
        let auth = if server.user.is_empty() { auth } else { auth.with(&server.user) };
        auth_commands.push(auth.with(&server.password));
    }
    if server.database > 0 {
        auth_commands.push(Command::new("SELECT").with(server.database.to_string()));
    }
    auth_commands
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

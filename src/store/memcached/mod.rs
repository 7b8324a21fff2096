//! Events in memcached: for each topic an index, replaced by compare-and-swap,
//! and an item for each message. Keys are hashes, so a topic cannot inject a command.
//! memcached cannot wake a process, so it is polled.

mod connection;
mod index;

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::{Budget, Polled, Reading, Readings, Retention, Store, Watch, is_prefix};
use crate::error::Error;
use crate::event::{Cursor, Draft, Extra, Message, Since, Topic};
use crate::net::address::Address;
use crate::net::stream::{MAX_REPLY_BYTES, REQUEST_TIMEOUT, invalid_reply};
use crate::store::fault::server_failed;
use connection::{Connection, Reply};
use index::{Index, Wanted};

const PORT: u16 = 11_211;
/// The default prefix of keys.
const PREFIX: &str = "novcomet:";
/// The longest prefix. A key has at most 250 bytes, 80 of them after the prefix.
const MAX_PREFIX: usize = 100;

/// Some memcached servers, and the prefix of keys.
#[derive(Debug, Clone)]
pub struct Servers {
    /// The servers. Each topic is on one of them.
    pub addresses: Vec<Address>,
    prefix: String,
}

impl Servers {
    /// Reads the text after `memcached://`: `host:port[,host:port…]` or the path of a
    /// socket, and `?prefix=…`.
    pub fn parse(text: &str) -> Option<Self> {
        let (hosts, query) = text.split_once('?').unwrap_or((text, ""));
        let prefix = match query.split_once('=') {
            Some(("prefix", prefix)) => prefix.to_owned(),
            None if query.is_empty() => PREFIX.to_owned(),
            _ => return None,
        };
        let graphic = prefix.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%');
        let addresses = match hosts.strip_prefix('/') {
            Some("") => return None,
            Some(_) => vec![Address::Unix(hosts.into())],
            None => hosts.split(',').map(|one| Address::parse(one, PORT)).collect::<Option<_>>()?,
        };
        (graphic && is_prefix(&prefix) && prefix.len() <= MAX_PREFIX)
            .then_some(Self { addresses, prefix })
    }
}

/// A store in memcached.
pub struct MemcachedStore {
    servers: Servers,
    retention: Retention,
    poll: Duration,
    pool: RefCell<Pool>,
}

impl MemcachedStore {
    /// Makes a store that connects with the first request.
    pub fn new(servers: Servers, retention: Retention, poll: Duration) -> Self {
        let max_bytes = MAX_REPLY_BYTES.saturating_add(retention.max_file_bytes);
        let empty = Pool { max_bytes, ..Pool::default() };
        Self { servers, retention, poll, pool: RefCell::new(empty) }
    }

    fn topic_key(&self, topic: &Topic) -> TopicKey<'_> {
        let addresses = &self.servers.addresses;
        let hash = Sha256::digest(topic.as_str());
        let mut key = self.servers.prefix.clone();
        for byte in hash {
            use std::fmt::Write;
            let _ = write!(key, "{byte:02x}");
        }
        let number = usize::from(hash[0]) << 8 | usize::from(hash[1]);
        TopicKey { server: &addresses[number % addresses.len()], key }
    }

    fn begin(&self) {
        self.pool.borrow_mut().until = Some(Instant::now() + REQUEST_TIMEOUT);
    }

    /// Makes one attempt; `None` if another publisher was faster.
    fn try_publish(&self, topic_key: &TopicKey, data: Option<&str>) -> io::Result<Option<Cursor>> {
        let mut pool = self.pool.borrow_mut();
        let found = pool.index(topic_key)?;
        let (cas, index) = found.map_or((None, None), |(cas, index)| (Some(cas), Some(index)));
        let next = Index::next(index.as_ref(), data.map(str::len), self.retention);
        let message = topic_key.message(next.last());
        if let Some(data) = data {
            if pool.store(topic_key.server, &message, None, data.as_bytes())? != Reply::Done {
                return Ok(None);
            }
        }
        let stored = pool.store(topic_key.server, &topic_key.key, cas, &next.to_bytes())?;
        let is_first = stored == Reply::Done;
        let unwanted = match (is_first, &index) {
            (true, Some(index)) => index.dropped_by(&next),
            (true, None) => Vec::new(),
            // Without a message, the id may be that of the publisher who was faster.
            (false, _) => data.map(|_| next.last()).into_iter().collect(),
        };
        let unwanted = unwanted.into_iter().map(|id| format!("md {}\r\n", topic_key.message(id)));
        let removed = pool.ask(topic_key.server, &unwanted.collect::<Vec<_>>(), false);
        if !is_first {
            removed?;
        }
        Ok(is_first.then_some(next.last()))
    }

    fn look_at(&self, wanted: &[(&Topic, Since)], budget: &mut Budget) -> io::Result<Readings> {
        let mut pool = self.pool.borrow_mut();
        let topic_keys: Vec<_> = wanted.iter().map(|(topic, _)| self.topic_key(topic)).collect();
        pool.refresh(&topic_keys)?;
        let mut readings = Vec::with_capacity(wanted.len());
        for (topic_key, &(topic, since)) in topic_keys.iter().zip(wanted) {
            if let Some(error) = pool.odd.remove(&topic_key.key) {
                readings.push(Some(Err(failed_at(topic_key, &error))));
                continue;
            }
            let Some((_, index)) = pool.known.get(&topic_key.key) else {
                readings.push(Some(Ok(absent(since))));
                continue;
            };
            if budget.is_spent() {
                readings.push(None);
                continue;
            }
            let wanted = index.wanted(since, budget.left(), self.retention, Cursor::now());
            let mut reading = pool.fetch(topic_key, wanted)?;
            // Even if the newest message was evicted.
            reading.gap &= since != Since::Latest;
            readings.push(reading.within(topic, budget).map(Ok));
        }
        Ok(readings)
    }

    /// The server of the last request, which is the one that failed.
    fn last_asked(&self) -> Address {
        self.pool.borrow().asked.clone().unwrap_or_else(|| self.servers.addresses[0].clone())
    }
}

fn failed(server: &Address, cause: &io::Error) -> Error {
    server_failed(&format!("memcached at {server}"), cause)
}

/// Names the key if another program wrote it.
fn failed_at(topic_key: &TopicKey, cause: &io::Error) -> Error {
    let TopicKey { server, key } = topic_key;
    match cause.kind() {
        ErrorKind::AlreadyExists => {
            server_failed(&format!("memcached at {server}, key {key}"), cause)
        }
        _ => failed(server, cause),
    }
}

fn unexpected_reply() -> io::Error {
    invalid_reply("the reply makes no sense")
}

/// A missing index was evicted if its reader has seen an event.
fn absent(since: Since) -> Reading {
    match since {
        Since::Cursor(cursor) if cursor > Cursor::SMALLEST => {
            Reading { gap: true, ..Reading::quiet(Cursor::SMALLEST) }
        }
        _ => Reading::quiet(since.without_events()),
    }
}

impl Store for MemcachedStore {
    fn put(&self, topic: &Topic, message: Option<Draft>) -> Result<Cursor, Error> {
        // An item is a text only. A private one would be shown to everybody.
        if message.as_ref().is_some_and(|message| message.extra != Extra::default()) {
            let why = "memcached keeps the text of a message only: no type, id or private flag";
            return Err(Error::NotImplemented(why));
        }
        let data = message.as_ref().map(|message| message.data.as_str());
        let topic_key = self.topic_key(topic);
        self.begin();
        loop {
            match self.try_publish(&topic_key, data) {
                Ok(Some(cursor)) => return Ok(cursor),
                Ok(None) => {}
                Err(error) => return Err(failed_at(&topic_key, &error)),
            }
        }
    }

    fn look(&self, wanted: &[(&Topic, Since)], budget: &mut Budget) -> Result<Readings, Error> {
        self.begin();
        self.look_at(wanted, budget).map_err(|error| failed(&self.last_asked(), &error))
    }

    /// Each server keeps an item for a second.
    fn try_out(&self) -> Result<(), Error> {
        self.begin();
        let item = format!("ms {}trial 1 T1\r\n1\r\n", self.servers.prefix);
        for server in &self.servers.addresses {
            let replies = self.pool.borrow_mut().ask(server, &[&item], true);
            match replies.map_err(|error| failed(server, &error))?.pop() {
                Some(Reply::Done) => {}
                _ => return Err(failed(server, &unexpected_reply())),
            }
        }
        Ok(())
    }

    fn watch(&self) -> Box<dyn Watch> {
        Box::new(Polled(self.poll))
    }
}

/// The server of a topic, and its key there.
struct TopicKey<'a> {
    server: &'a Address,
    key: String,
}

impl TopicKey<'_> {
    fn message(&self, id: Cursor) -> String {
        format!("{}:{}", self.key, id.micros())
    }
}

/// Connections, opened with the first request, and the indexes read over them.
#[derive(Default)]
struct Pool {
    connections: HashMap<Address, Connection>,
    /// Indexes with their CAS number. Another number means a change.
    known: HashMap<String, (u64, Index)>,
    /// Keys with other content than an index.
    odd: HashMap<String, io::Error>,
    asked: Option<Address>,
    until: Option<Instant>,
    /// How many bytes a server may send before the deadline.
    max_bytes: u64,
}

impl Pool {
    /// Sends lines and returns the replies. The server may have closed an idle connection.
    /// If the lines may be sent twice (`again`), they are sent on a new connection.
    fn ask(
        &mut self,
        server: &Address,
        lines: &[impl AsRef<[u8]>],
        again: bool,
    ) -> io::Result<Vec<Reply>> {
        match self.try_ask(server, lines) {
            Err(error) if again && error.kind() != ErrorKind::TimedOut => {
                self.try_ask(server, lines)
            }
            other => other,
        }
    }

    fn try_ask(&mut self, server: &Address, lines: &[impl AsRef<[u8]>]) -> io::Result<Vec<Reply>> {
        self.asked = Some(server.clone());
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        if !self.connections.contains_key(server) {
            // A restarted server may use the old numbers for other content.
            self.known.clear();
            self.connections.insert(server.clone(), Connection::open(server, self.max_bytes)?);
        }
        let until = self.until.unwrap_or_else(Instant::now);
        let exchanged = match self.connections.get_mut(server) {
            Some(connection) => connection.exchange(lines, until),
            None => Ok(Vec::new()),
        };
        if exchanged.is_err() {
            self.connections.remove(server);
        }
        exchanged
    }

    /// Stores an item that does not exist, or still has this CAS number.
    fn store(
        &mut self,
        server: &Address,
        key: &str,
        cas: Option<u64>,
        content: &[u8],
    ) -> io::Result<Reply> {
        let how = cas.map_or("ME".to_owned(), |cas| format!("C{cas}"));
        let head = format!("ms {key} {} {how}\r\n", content.len());
        let line = [head.as_bytes(), content, b"\r\n"].concat();
        let mut replies = self.ask(server, &[line], false)?;
        Ok(replies.pop().unwrap_or(Reply::Missing))
    }

    fn index(&mut self, topic_key: &TopicKey) -> io::Result<Option<(u64, Index)>> {
        let line = format!("mg {} c v\r\n", topic_key.key);
        match self.ask(topic_key.server, &[line], true)?.pop() {
            Some(Reply::Value(cas, content)) => Ok(Some((cas, Index::parse(&content)?))),
            Some(Reply::Missing) | None => Ok(None),
            Some(_) => Err(unexpected_reply()),
        }
    }

    /// Updates the known indexes: one request to each server, and one more for the
    /// changed indexes.
    fn refresh(&mut self, topic_keys: &[TopicKey]) -> io::Result<()> {
        let mut changed: Vec<&TopicKey> = Vec::new();
        self.odd.clear();
        for (server, topic_keys) in by_server(topic_keys) {
            let lines: Vec<_> =
                topic_keys.iter().map(|topic_key| format!("mg {} c\r\n", topic_key.key)).collect();
            let replies = self.ask(server, &lines, true)?;
            for (topic_key, reply) in topic_keys.iter().zip(replies) {
                match (reply, self.known.get(&topic_key.key)) {
                    (Reply::Number(cas), Some((known, _))) if cas == *known => {}
                    (Reply::Number(_), _) => changed.push(topic_key),
                    (Reply::Value(..) | Reply::Done | Reply::Conflict, _) => {
                        return Err(unexpected_reply());
                    }
                    _ => drop(self.known.remove(&topic_key.key)),
                }
            }
        }
        for (server, topic_keys) in by_server(changed) {
            let lines: Vec<_> = topic_keys
                .iter()
                .map(|topic_key| format!("mg {} c v\r\n", topic_key.key))
                .collect();
            let replies = self.ask(server, &lines, true)?;
            for (topic_key, reply) in topic_keys.iter().zip(replies) {
                let Reply::Value(cas, content) = reply else { continue };
                self.known.remove(&topic_key.key);
                match Index::parse(&content) {
                    Ok(index) => drop(self.known.insert(topic_key.key.clone(), (cas, index))),
                    Err(error) => drop(self.odd.insert(topic_key.key.clone(), error)),
                }
            }
        }
        Ok(())
    }

    /// A missing message was evicted.
    fn fetch(&mut self, topic_key: &TopicKey, wanted: Wanted) -> io::Result<Reading> {
        let line = |&id: &Cursor| format!("mg {} v\r\n", topic_key.message(id));
        let lines: Vec<_> = wanted.messages.iter().map(line).collect();
        let replies = self.ask(topic_key.server, &lines, true)?;
        let (mut messages, mut gap) = (Vec::new(), wanted.gap);
        for (id, reply) in wanted.messages.into_iter().zip(replies) {
            match reply {
                Reply::Value(_, content) => {
                    let data = String::from_utf8_lossy(&content).into_owned();
                    messages.push(Message::new(id, data));
                }
                _ => gap = true,
            }
        }
        Ok(Reading { messages, standing: wanted.standing, pending: None, gap })
    }
}

fn by_server<'a, 'b: 'a>(
    topic_keys: impl IntoIterator<Item = &'a TopicKey<'b>>,
) -> HashMap<&'a Address, Vec<&'a TopicKey<'b>>> {
    let mut found: HashMap<&Address, Vec<&TopicKey>> = HashMap::new();
    for topic_key in topic_keys {
        found.entry(topic_key.server).or_default().push(topic_key);
    }
    found
}

//! Events as entries of Redis streams, one stream a topic: a message is the
//! field `data`. `XADD key * data TEXT` from anywhere is a publish too.
//!
//! Two scripts on the server make each operation atomic.

mod cluster;
mod connection;
mod crowds;
mod reply;
mod sessions;
mod url;
mod watch;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use redis_protocol::resp2::types::OwnedFrame;

use super::{
    Budget, Clock, Horizon, NO_ORDER, Reading, Readings, Retention, Seen, Sessions, Stock, Store,
    Watch,
};
use crate::error::Error;
use crate::event::{Cursor, Draft, Extra, Message, Since, Topic};
use crate::net::stream::{MAX_REPLY_BYTES, invalid_reply};
use crate::net::tls::Tls;
use crate::store::fault::server_failed;
use cluster::{Cluster, refused};
use connection::Command;
pub use url::Server;
use watch::StreamWatch;

const READ: &str = concat!(include_str!("common.lua"), include_str!("read.lua"));
const ORDER: &str = include_str!("order.lua");
const TRIAL: &str = include_str!("trial.lua");
const STOCK: &str = include_str!("stock.lua");
const UNTOLD: &str = concat!(include_str!("common.lua"), include_str!("untold.lua"));
const PUBLISH: &str = concat!(include_str!("common.lua"), include_str!("publish.lua"));

/// The largest number that the scripts receive. Lua's numbers are exact up to 2^53.
const EXACT: u64 = Cursor::LARGEST.micros();

/// A Redis server, or a cluster of them.
pub struct RedisStore {
    prefix: String,
    name: String,
    retention: [String; 3],
    poll: Duration,
    cluster: Rc<RefCell<Cluster>>,
}

impl RedisStore {
    /// Reads the files for TLS. It connects with the first request.
    ///
    /// # Errors
    /// 503 for files that cannot be used.
    pub fn open(server: Server, retention: Retention, poll: Duration) -> Result<Self, Error> {
        let name = server.address.to_string();
        let tls = server.files.as_ref().map(Tls::read).transpose().map_err(failed(&name))?;
        let max_bytes = MAX_REPLY_BYTES.saturating_add(retention.max_file_bytes);
        let age = u64::try_from(retention.age.as_micros()).unwrap_or(EXACT).min(EXACT);
        Ok(Self {
            prefix: server.prefix.clone(),
            name,
            retention: [
                retention.messages.to_string(),
                retention.bytes.to_string(),
                age.to_string(),
            ],
            poll,
            cluster: Rc::new(RefCell::new(Cluster::new(server, tls, max_bytes))),
        })
    }

    fn key(&self, topic: &Topic) -> Vec<u8> {
        [self.prefix.as_str(), topic.as_str()].concat().into_bytes()
    }

    /// The set of topics by the times of their last events, and the stream that tells of
    /// each publish. No topic has a control character.
    fn order_keys(&self) -> [Vec<u8>; 2] {
        ["\u{1}order", "\u{1}published"].map(|name| self.own_key(name))
    }

    fn own_key(&self, name: &str) -> Vec<u8> {
        [&self.prefix, name].concat().into_bytes()
    }

    fn ask_for_order(&self, command: &Command) -> Result<OwnedFrame, Error> {
        let [key, _] = self.order_keys();
        let mut cluster = self.cluster.borrow_mut();
        cluster.begin();
        let found = cluster.ask(&key, command, true);
        match cluster.is_sharded() {
            true => Err(Error::NotImplemented(NO_ORDER)),
            false => found.map_err(self.failed()),
        }
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> Error + use<> {
        failed(&self.name)
    }

    /// Runs one script for all topics. A cluster refuses that, because keys have different
    /// slots, and gets one script for each topic.
    fn look_at(&self, wanted: &[(&Topic, Since)], budget: &mut Budget) -> io::Result<Readings> {
        let mut cluster = self.cluster.borrow_mut();
        cluster.begin();
        let is_sharded = cluster.is_sharded();
        let together = if is_sharded { 1 } else { wanted.len().max(1) };
        let mut readings = Vec::with_capacity(wanted.len());
        for part in wanted.chunks(together) {
            if budget.is_spent() {
                readings.extend(part.iter().map(|_| None));
                continue;
            }
            let keys: Vec<_> = part.iter().map(|(topic, _)| self.key(topic)).collect();
            let command = self.reading(&keys, part, budget.left());
            let found = match cluster.ask(&keys[0], &command, true) {
                Err(error) if !is_sharded && cluster.is_sharded() && keys.len() > 1 => {
                    let _ = error;
                    drop(cluster);
                    return self.look_at(wanted, budget);
                }
                // Each key may have another server.
                Err(error) if is_sharded => {
                    readings.push(Some(Err(self.failed_at(&keys[0], &error))));
                    continue;
                }
                other => array(other?)?,
            };
            if found.len() != keys.len() {
                return Err(unexpected_reply());
            }
            for ((key, &(topic, since)), found) in keys.iter().zip(part).zip(found) {
                if found == OwnedFrame::Null {
                    budget.spend();
                    readings.push(None);
                    continue;
                }
                let reading = taken(&mut cluster, key, since, found);
                let reading = reading.map(|reading| reading.within(topic, budget)).transpose();
                readings
                    .push(reading.map(|each| each.map_err(|error| self.failed_at(key, &error))));
            }
        }
        Ok(readings)
    }

    /// Names the key if another program wrote it.
    fn failed_at(&self, key: &[u8], cause: &io::Error) -> Error {
        let key = match cause.kind() {
            io::ErrorKind::AlreadyExists => format!(", key {}", String::from_utf8_lossy(key)),
            _ => String::new(),
        };
        server_failed(&format!("Redis at {}{key}", self.name), cause)
    }

    fn reading(&self, keys: &[Vec<u8>], wanted: &[(&Topic, Since)], limit: usize) -> Command {
        let mut command = Command::new("EVAL_RO").with(READ).with(keys.len().to_string());
        command = keys.iter().fold(command, |command, key| command.with(key.as_slice()));
        command = command.with(limit.to_string());
        command = self.retention.iter().fold(command, Command::with);
        wanted.iter().fold(command, |command, (_, since)| {
            let (mode, cursor) = position(*since);
            command.with(mode).with(cursor.min(EXACT).to_string())
        })
    }
}

/// A topic of the set; its score is a double in decimal digits.
fn seen(topic: &str, score: &str) -> Option<Seen> {
    let until = Cursor::from_micros(score.parse().ok()?);
    Some(Seen { until, topic: Topic::new(topic).ok()?, clock: Clock::Store })
}

/// The reading of one stream.
fn taken(
    cluster: &mut Cluster,
    key: &[u8],
    since: Since,
    found: OwnedFrame,
) -> io::Result<Reading> {
    let answer = match found {
        OwnedFrame::Error(why) => {
            cluster.forget(key);
            return Err(refused(why));
        }
        found => Answer::parse(found).ok_or_else(unexpected_reply)?,
    };
    cluster.record_position(key, answer.id.as_deref());
    Ok(answer.reading(since))
}

fn failed(name: &str) -> impl FnOnce(io::Error) -> Error + use<> {
    let store = format!("Redis at {name}");
    move |cause| server_failed(&store, &cause)
}

/// How a reader positions, in the script's words, and where.
fn position(since: Since) -> (&'static str, u64) {
    let cursor = since.cursor().unwrap_or(Cursor::SMALLEST).micros();
    match since {
        Since::Now => ("now", 0),
        Since::Latest => ("latest", 0),
        Since::Cursor(_) => ("cursor", cursor),
        Since::Order(_) => ("order", cursor),
        Since::Second(_) | Since::Earliest => ("since", cursor),
    }
}

impl Store for RedisStore {
    fn put(&self, topic: &Topic, message: Option<Draft>) -> Result<Cursor, Error> {
        let extra = message.as_ref().and_then(|message| message.extra.to_json());
        let data = message.map(|message| message.data);
        let key = self.key(topic);
        let mut cluster = self.cluster.borrow_mut();
        cluster.begin();
        let mut publish = |keys: &[Vec<u8>]| {
            let command = Command::new("EVAL").with(PUBLISH).with((1 + keys.len()).to_string());
            let command = keys.iter().fold(command.with(key.as_slice()), Command::with);
            let command = self.retention.iter().fold(command, Command::with).with(topic.as_str());
            let command = data.iter().chain(&extra).fold(command, Command::with);
            cluster.ask(&key, &command, false)
        };
        let published = match publish(&self.order_keys()) {
            // The servers of a cluster have no common order.
            Err(error) if error.to_string().starts_with("CROSSSLOT") => publish(&[]),
            published => published,
        };
        match published {
            Ok(reply) => cursor(&reply).ok_or_else(|| self.failed()(unexpected_reply())),
            Err(error) => Err(self.failed_at(&key, &error)),
        }
    }

    /// A script is not interrupted, so what has happened is certain.
    fn horizon(&self) -> Result<Horizon, Error> {
        let keys = self.order_keys();
        let command = Command::new("EVAL_RO").with(ORDER).with(keys.len().to_string());
        let command = keys.iter().fold(command, |command, key| command.with(key.as_slice()));
        let reply = self.ask_for_order(&command)?;
        let found = array(reply).ok().and_then(|fields| {
            let mut fields = fields.into_iter().filter_map(text);
            Some((fields.next()?.parse().ok()?, fields.next()?))
        });
        let (newest, told) = found.ok_or_else(|| self.failed()(unexpected_reply()))?;
        self.cluster.borrow_mut().record_position(&keys[1], Some(&told));
        let at = Cursor::from_micros(newest).max(Cursor::SMALLEST);
        Ok(Horizon { at, is_settled: true })
    }

    fn survey(&self, after: Cursor) -> Result<Vec<Seen>, Error> {
        let [key, _] = self.order_keys();
        let command = Command::new("ZRANGEBYSCORE").with(key.as_slice());
        let command = command.with(format!("({}", after.micros())).with("+inf").with("WITHSCORES");
        let fields = array(self.ask_for_order(&command)?).map_err(self.failed())?;
        let fields: Vec<_> = fields.into_iter().filter_map(text).collect();
        Ok(fields.chunks_exact(2).filter_map(|pair| seen(&pair[0], &pair[1])).collect())
    }

    /// The publishers of a cluster note nothing.
    fn untold(&self, topic: &Topic) -> Result<Option<Cursor>, Error> {
        let ([order, _], key) = (self.order_keys(), self.key(topic));
        let command = Command::new("EVAL_RO").with(UNTOLD).with("2").with(key.as_slice());
        let command = command.with(order.as_slice()).with(topic.as_str());
        let mut cluster = self.cluster.borrow_mut();
        cluster.begin();
        match cluster.ask(&key, &command, true) {
            Err(error) if error.to_string().starts_with("CROSSSLOT") => Ok(None),
            _ if cluster.is_sharded() => Ok(None),
            found => found.map(|reply| cursor(&reply)).map_err(self.failed()),
        }
    }

    fn try_out(&self) -> Result<(), Error> {
        let key = self.own_key("\u{1}trial");
        let command = Command::new("EVAL").with(TRIAL).with("1").with(key.as_slice());
        let mut cluster = self.cluster.borrow_mut();
        cluster.begin();
        cluster.ask(&key, &command, true).map(|_| ()).map_err(self.failed())
    }

    /// A cluster has no order, and does not count.
    fn stock(&self) -> Result<Stock, Error> {
        let keys = self.order_keys();
        let command = Command::new("EVAL_RO").with(STOCK).with(keys.len().to_string());
        let command = keys.iter().fold(command, |command, key| command.with(key.as_slice()));
        let reply = match self.ask_for_order(&command) {
            Err(Error::NotImplemented(_)) => return Ok(Stock::default()),
            other => array(other?).map_err(self.failed())?,
        };
        let mut numbers = reply.into_iter().map(number);
        let (topics, publishes) = (numbers.next().flatten(), numbers.next().flatten());
        Ok(Stock { topics, bytes: None, publishes })
    }

    fn look(&self, wanted: &[(&Topic, Since)], budget: &mut Budget) -> Result<Readings, Error> {
        self.look_at(wanted, budget).map_err(self.failed())
    }

    fn sessions(&self) -> Result<&dyn Sessions, Error> {
        Ok(self)
    }

    fn share(&self, crowd: &str, told: &str) -> Result<(), Error> {
        self.share_crowd(crowd, told)
    }

    fn shared(&self) -> Result<Vec<(String, String)>, Error> {
        self.shared_crowds()
    }

    fn watch(&self) -> Box<dyn Watch> {
        let (cluster, prefix) = (Rc::clone(&self.cluster), self.prefix.clone());
        let [_, published] = self.order_keys();
        Box::new(StreamWatch::new(cluster, prefix, published, self.poll))
    }
}

/// The answer of the script for one stream.
struct Answer {
    id: Option<String>,
    last: Cursor,
    gap: bool,
    more: bool,
    messages: Vec<Message>,
}

impl Answer {
    fn parse(frame: OwnedFrame) -> Option<Self> {
        let mut fields = array(frame).ok()?.into_iter();
        let Some(id) = fields.next() else {
            let last = Cursor::SMALLEST;
            return Some(Self { id: None, last, gap: false, more: false, messages: Vec::new() });
        };
        let (last, gap, more) = (fields.next()?, fields.next()?, fields.next()?);
        let mut messages = Vec::new();
        while let Some(id) = fields.next() {
            let (data, OwnedFrame::BulkString(extra)) = (fields.next()?, fields.next()?) else {
                return None;
            };
            let mut message = Message::new(cursor(&id)?, text(data)?);
            if !extra.is_empty() {
                message.extra = Extra::from_json(&extra);
            }
            messages.push(message);
        }
        let is_set = |frame| frame == OwnedFrame::Integer(1);
        let (gap, more) = (is_set(gap), is_set(more));
        Some(Self { id: Some(text(id)?), last: cursor(&last)?, gap, more, messages })
    }

    /// A missing stream was lost if its reader has seen an event.
    fn reading(self, since: Since) -> Reading {
        let is_lost = self.id.is_none()
            && matches!(since, Since::Cursor(cursor) if cursor > Cursor::SMALLEST);
        let gap = self.gap || is_lost;
        let standing = match (self.messages.last(), since) {
            (Some(last), _) if self.more => last.id,
            (_, Since::Cursor(cursor)) if !gap => self.last.max(cursor),
            (_, Since::Second(_)) if self.id.is_none() => since.cursor().unwrap_or(self.last),
            _ => self.last,
        };
        Reading { messages: self.messages, standing, pending: None, gap }
    }
}

fn array(frame: OwnedFrame) -> io::Result<Vec<OwnedFrame>> {
    match frame {
        OwnedFrame::Array(fields) => Ok(fields),
        _ => Err(unexpected_reply()),
    }
}

/// A cursor that can be sent to a subscriber.
fn cursor(frame: &OwnedFrame) -> Option<Cursor> {
    let OwnedFrame::Integer(at) = frame else { return None };
    let at = Cursor::from_micros(u64::try_from(*at).ok()?);
    (at >= Cursor::SMALLEST && at.is_exact()).then_some(at)
}

fn number(frame: OwnedFrame) -> Option<u64> {
    match frame {
        OwnedFrame::Integer(number) => u64::try_from(number).ok(),
        other => text(other)?.parse().ok(),
    }
}

/// Other programs may publish text that is not UTF-8.
fn text(frame: OwnedFrame) -> Option<String> {
    match frame {
        OwnedFrame::BulkString(bytes) | OwnedFrame::SimpleString(bytes) => Some(
            String::from_utf8(bytes)
                .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
        ),
        _ => None,
    }
}

fn unexpected_reply() -> io::Error {
    invalid_reply("the reply makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_the_largest_cursor() {
        let largest = Cursor::LARGEST.micros();
        let line = format!("LARGEST, END = {largest}, '{}'\n", largest / 1000);
        assert!(READ.contains(&line) && PUBLISH.contains(&line), "{line}");
    }
}

//! A watch by XREAD BLOCK.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use crate::event::Topic;
use crate::store::{Changes, Watch};

/// How late the server may report that no entry was added.
const GRACE: Duration = Duration::from_millis(150);

/// Watches some streams on the connection that reads them. XREAD names the last entries
/// of the first read since it told of a change, so none is missed between the read and the
/// sleep. It ends with the sleep, so a server that does not reply then is gone.
pub struct StreamWatch {
    cluster: Rc<RefCell<Cluster>>,
    prefix: String,
    /// The keys of the topics.
    keys: BTreeMap<Vec<u8>, Topic>,
    /// The stream that tells of each publish, and whether it is watched.
    published: Vec<u8>,
    is_of_all: bool,
    poll: Duration,
    blocked: Option<Blocked>,
    /// The time of the last XREAD.
    since: Instant,
    /// Whether its reply named a stream with news.
    has_news: bool,
    /// The server replied at once and without news, so it is polled from now on.
    is_noisy: bool,
}

/// An XREAD without its reply.
struct Blocked {
    /// The connection, on which nothing else can be asked meanwhile.
    connection: OwnedFd,
    key: Vec<u8>,
    /// When the server replies at the latest.
    until: Instant,
}

impl StreamWatch {
    pub fn new(
        cluster: Rc<RefCell<Cluster>>,
        prefix: String,
        published: Vec<u8>,
        poll: Duration,
    ) -> Self {
        let (keys, since, is_of_all) = (BTreeMap::new(), Instant::now(), false);
        let (blocked, has_news, is_noisy) = (None, false, false);
        Self {
            cluster,
            prefix,
            keys,
            published,
            is_of_all,
            poll,
            blocked,
            since,
            has_news,
            is_noisy,
        }
    }

    fn key(&self, topic: &Topic) -> Vec<u8> {
        [self.prefix.as_str(), topic.as_str()].concat().into_bytes()
    }

    /// One XREAD cannot name streams of several servers.
    fn is_polled(&self) -> bool {
        self.is_noisy || self.keys.len() > 1 && self.cluster.borrow().is_sharded()
    }

    fn block(&mut self, within: Duration) -> Option<Blocked> {
        let milliseconds = within.as_millis().clamp(1, u128::from(u32::MAX));
        (self.since, self.has_news) = (Instant::now(), false);
        let published = self.is_of_all.then_some(&self.published);
        let keys: Vec<_> = self.keys.keys().chain(published).collect();
        let key = (*keys.first()?).clone();
        let connection = self.cluster.borrow_mut().block(&keys, milliseconds).ok()?;
        let until = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(u64::MAX));
        Some(Blocked { connection, key, until: self.since + until })
    }
}

impl Watch for StreamWatch {
    /// A server that is asked meanwhile replies at its own time: the connection is given
    /// up if that is far away.
    fn arm(&mut self, topics: &[&Topic]) {
        let keys: Vec<_> = topics.iter().map(|&topic| (self.key(topic), topic.clone())).collect();
        self.keys.extend(keys);
        let Some(blocked) = self.blocked.take() else { return };
        let soon = Instant::now() + GRACE;
        let patience = if blocked.until <= soon { soon } else { Instant::now() };
        self.cluster.borrow_mut().unblock(&blocked.key, patience);
    }

    fn arm_all(&mut self) {
        self.is_of_all = true;
    }

    fn forget(&mut self, topic: &Topic) {
        let key = self.key(topic);
        self.keys.remove(&key);
        self.cluster.borrow_mut().forget(&key);
    }

    /// After a failure here the next read opens a new connection.
    fn fd(&mut self, within: Duration) -> Option<BorrowedFd<'_>> {
        let has_keys = self.is_of_all || !self.keys.is_empty();
        if !self.is_polled() && has_keys && self.blocked.is_none() {
            self.blocked = self.block(within);
        }
        self.blocked.as_ref().map(|blocked| blocked.connection.as_fd())
    }

    fn changes(&mut self) -> Changes {
        let Some(blocked) = self.blocked.take() else {
            self.cluster.borrow_mut().forget_all();
            return Changes::Any;
        };
        let until = Instant::now() + GRACE;
        let mut cluster = self.cluster.borrow_mut();
        let changed = cluster.unblock(&blocked.key, until);
        self.has_news = changed.as_ref().is_some_and(|keys| !keys.is_empty());
        let Some(keys) = changed else {
            cluster.forget_all();
            return Changes::Any;
        };
        for key in &keys {
            cluster.forget(key);
        }
        let topics = keys.iter().filter_map(|key| self.keys.get(key).cloned()).collect();
        match keys.contains(&self.published) {
            true => Changes::InOrder(topics),
            false => Changes::Of(topics),
        }
    }

    /// A server that refuses XREAD, or replies to it without an entry, would otherwise be
    /// asked again without a pause.
    fn report_false_wakeup(&mut self) {
        self.is_noisy |= !self.has_news && self.since.elapsed() < self.poll;
    }

    fn poll_interval(&self) -> Duration {
        if self.is_polled() { self.poll } else { Duration::MAX }
    }
}

//! A watch by XREAD BLOCK.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::cluster::Cluster;
use crate::store::Watch;

/// How late the server may report that no entry was added.
const GRACE: Duration = Duration::from_millis(150);

/// Watches some streams on the connection that reads them. XREAD names the last entries
/// of the last read, so none is missed between the read and the sleep. It ends with the
/// sleep, so a server that does not reply then is gone.
pub struct StreamWatch {
    cluster: Rc<RefCell<Cluster>>,
    keys: Vec<Vec<u8>>,
    poll: Duration,
    blocked: Option<OwnedFd>,
    /// The time of the last XREAD.
    since: Instant,
    /// The server replied at once and without news, so it is polled from now on.
    is_noisy: bool,
}

impl StreamWatch {
    pub fn new(cluster: Rc<RefCell<Cluster>>, keys: Vec<Vec<u8>>, poll: Duration) -> Self {
        Self { cluster, keys, poll, blocked: None, since: Instant::now(), is_noisy: false }
    }

    /// One XREAD cannot name streams of several servers.
    fn is_polled(&self) -> bool {
        self.is_noisy || self.keys.len() > 1 && self.cluster.borrow().is_sharded()
    }
}

impl Watch for StreamWatch {
    fn arm(&mut self) {
        if self.blocked.take().is_some() {
            self.cluster.borrow_mut().unblock(&self.keys[0], Instant::now() + GRACE);
        }
    }

    /// After a failure here the next read opens a new connection.
    fn fd(&mut self, within: Duration) -> Option<BorrowedFd<'_>> {
        if !self.is_polled() && !self.keys.is_empty() && self.blocked.is_none() {
            let within = within.as_millis().clamp(1, u128::from(u32::MAX));
            self.since = Instant::now();
            self.blocked = self.cluster.borrow_mut().block(&self.keys, within).ok();
        }
        self.blocked.as_ref().map(AsFd::as_fd)
    }

    /// A server that refuses XREAD, or replies to it without an entry, would otherwise be
    /// asked again without a pause.
    fn report_false_wakeup(&mut self) {
        self.is_noisy |= self.since.elapsed() < self.poll;
    }

    fn poll_interval(&self) -> Duration {
        if self.is_polled() { self.poll } else { Duration::MAX }
    }
}

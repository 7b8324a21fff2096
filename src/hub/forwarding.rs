//! Events that no publisher tells the proxies of, such as those of `touch`: the leader of a crowd
//! notices them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::event::{Event, Topic};
use crate::grip::{LIMIT, Proxies};
use crate::store::{Changes, Store};

/// How long a proxy that has failed is left alone: to wait for it holds up the whole crowd.
const REST: Duration = Duration::from_secs(10);

/// Of how many parts of the leader's time a proxy may take one.
const SHARE: u32 = 20;

/// How many topics are kept for a proxy that is left alone.
const MAX_CHANGED: usize = 10_000;

/// The proxies that are told of what others than publishers change.
pub struct Forwarding(Vec<Target>);

/// A proxy, and what it is to be told.
struct Target {
    proxy: Proxies,
    changed: BTreeSet<Topic>,
    /// What it was told last: a new file changes twice when it is touched.
    told: Vec<Event>,
    /// Until when it is left alone.
    rests: Duration,
}

impl Forwarding {
    /// `None` if there is no proxy that a waiting process can reach.
    pub fn to(proxies: &Proxies) -> Option<Self> {
        let target = |proxy| Target {
            proxy,
            changed: BTreeSet::new(),
            told: Vec::new(),
            rests: Duration::ZERO,
        };
        let targets: Vec<_> = proxies.reachable().map(target).collect();
        (!targets.is_empty()).then_some(Self(targets))
    }

    /// Keeps what has changed until the subscribers here have been served. The name of the topic
    /// of a session is a secret.
    pub fn note(&mut self, changes: &Changes) {
        let (Changes::Of(topics) | Changes::InOrder(topics)) = changes else { return };
        for target in &mut self.0 {
            let room = MAX_CHANGED.saturating_sub(target.changed.len());
            let public = topics.iter().filter(|topic| topic.session().is_none());
            target.changed.extend(public.take(room).cloned());
        }
    }

    /// When a proxy is to be told; the largest duration if none is.
    pub fn due(&self) -> Duration {
        let waiting = self.0.iter().filter(|target| !target.changed.is_empty());
        waiting.map(|target| target.rests).min().unwrap_or(Duration::MAX)
    }

    /// Tells those that are due, all within [`LIMIT`]. What a proxy is not told, its subscribers
    /// get at the end of their hold.
    pub fn forward(&mut self, store: &dyn Store, now: Duration, report: &mut dyn FnMut(&Error)) {
        let is_due = |target: &&mut Target| !target.changed.is_empty() && target.rests <= now;
        let limit = LIMIT / u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        for target in self.0.iter_mut().filter(is_due) {
            let begin = Instant::now();
            let told = target.tell(store, limit);
            target.rests = now + begin.elapsed() * SHARE;
            if let Err(fault) = told {
                report(&fault);
                target.rests = now + REST;
            }
        }
    }
}

impl Target {
    fn tell(&mut self, store: &dyn Store, limit: Duration) -> Result<(), Error> {
        let mut events = Vec::new();
        for topic in std::mem::take(&mut self.changed) {
            let event = store.untold(&topic)?.map(|cursor| Event { topic, cursor });
            events.extend(event.filter(|event| !self.told.contains(event)));
        }
        if events.is_empty() {
            return Ok(());
        }
        self.told = events;
        self.proxy.tell_within(&self.told, limit)
    }
}

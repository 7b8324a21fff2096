//! Events that no publisher tells the proxies of, such as those of `touch`: the leader of a crowd
//! notices them.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::error::Error;
use crate::event::{Event, Topic};
use crate::grip::Proxies;
use crate::store::{Changes, Store};

/// How long a proxy that has failed is left alone: to wait for it holds up the whole crowd.
const REST: Duration = Duration::from_secs(10);

/// The topics that have changed, and the proxies that are told of them.
pub struct Forwarding {
    /// Each with the time until which it is left alone.
    proxies: Vec<(Proxies, Duration)>,
    changed: BTreeSet<Topic>,
    /// What they were told last: a new file changes twice when it is touched.
    told: Vec<Event>,
}

impl Forwarding {
    /// `None` if there is no proxy that a waiting process can reach.
    pub fn to(proxies: &Proxies) -> Option<Self> {
        let proxies: Vec<_> = proxies.reachable().map(|one| (one, Duration::ZERO)).collect();
        (!proxies.is_empty()).then_some(Self {
            proxies,
            changed: BTreeSet::new(),
            told: Vec::new(),
        })
    }

    /// Keeps what has changed until the subscribers here have been served. The name of the topic
    /// of a session is a secret.
    pub fn note(&mut self, changes: &Changes) {
        let (Changes::Of(topics) | Changes::InOrder(topics)) = changes else { return };
        let is_public = |topic: &&Topic| topic.session().is_none();
        self.changed.extend(topics.iter().filter(is_public).cloned());
    }

    /// Whether something has changed.
    pub fn is_due(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Tells the proxies. What a proxy is not told, its subscribers get at the end of their hold.
    pub fn forward(&mut self, store: &dyn Store, now: Duration, report: &mut dyn FnMut(&Error)) {
        let changed = std::mem::take(&mut self.changed);
        let event = |topic: Topic| Some(Event { cursor: store.untold(&topic)?, topic });
        let is_new = |event: &Event| !self.told.contains(event);
        let events: Vec<_> = changed.into_iter().filter_map(event).filter(is_new).collect();
        for (proxy, rests) in self.proxies.iter_mut().filter(|(_, rests)| *rests <= now) {
            if let Err(fault) = proxy.tell(&events) {
                report(&fault);
                *rests = now + REST;
            }
        }
        self.told = events;
    }
}

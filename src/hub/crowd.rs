//! The subscribers of one process, and whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::following::Following;
use super::look::Wanted;
use super::numbers::Waiters;
use super::waiter::{Until, Waiter};
use crate::event::{Cursor, Topic};
use crate::store::Changes;

/// The number of a subscriber in its process.
pub(super) type Id = u64;

/// How far those may be apart whose events are found at once. One who has much to catch up
/// with has its turn after the others.
const ABREAST: Duration = Duration::from_secs(10);

/// The subscribers of one process.
#[derive(Default)]
pub(super) struct Crowd {
    waiters: BTreeMap<Id, Waiter>,
    of_topic: BTreeMap<Topic, BTreeSet<Id>>,
    /// Those who subscribe by pattern.
    following: BTreeSet<Id>,
    /// When each is to be looked after, though nothing happens, and its time in the agenda,
    /// which may be earlier.
    due: BTreeMap<Id, (Duration, Duration)>,
    agenda: BTreeSet<(Duration, Id)>,
    /// Those for which the store is to be read.
    dirty: BTreeSet<Id>,
    /// How many descriptors they hold.
    descriptors: usize,
}

impl Crowd {
    /// Takes a subscriber in, for whom the store is then read.
    pub fn insert(&mut self, id: Id, waiter: Waiter) {
        for (topic, _) in waiter.subscriptions.wanted() {
            self.of_topic.entry(topic.clone()).or_default().insert(id);
        }
        if waiter.following.is_some() {
            self.following.insert(id);
        }
        self.descriptors += waiter.descriptors().len();
        // One that has its answer may not have sent it yet.
        if !waiter.is_ending() {
            self.dirty.insert(id);
        }
        self.waiters.insert(id, waiter);
    }

    /// Lets a subscriber go. Returns the topics that nobody else subscribes to.
    pub fn remove(&mut self, id: Id) -> Option<(Waiter, Vec<Topic>)> {
        let waiter = self.waiters.remove(&id)?;
        self.cancel(id);
        self.dirty.remove(&id);
        self.following.remove(&id);
        self.descriptors -= waiter.descriptors().len();
        let mut abandoned = Vec::new();
        for (topic, _) in waiter.subscriptions.wanted() {
            let Some(ids) = self.of_topic.get_mut(topic) else { continue };
            ids.remove(&id);
            if ids.is_empty() {
                self.of_topic.remove(topic);
                abandoned.push(topic.clone());
            }
        }
        Some((waiter, abandoned))
    }

    /// Ends the output of a subscriber with these bytes.
    pub fn end(&mut self, id: Id, bytes: Vec<u8>, now: Duration) {
        let Some(waiter) = self.waiters.get_mut(&id) else { return };
        self.descriptors -= waiter.descriptors().len();
        waiter.end(bytes, now);
        self.descriptors += waiter.descriptors().len();
        self.dirty.remove(&id);
    }

    pub fn get(&self, id: Id) -> Option<&Waiter> {
        self.waiters.get(&id)
    }

    pub fn get_mut(&mut self, id: Id) -> Option<&mut Waiter> {
        self.waiters.get_mut(&id)
    }

    pub fn ids(&self) -> Vec<Id> {
        self.waiters.keys().copied().collect()
    }

    /// Those with a later number than this.
    pub fn after(&self, id: Id) -> impl Iterator<Item = (Id, &Waiter)> {
        self.waiters.range(id + 1..).map(|(&id, waiter)| (id, waiter))
    }

    /// Those who subscribe by pattern, the last one first.
    pub fn latest_followers(&self) -> impl Iterator<Item = (Id, &Waiter)> {
        self.following.iter().rev().filter_map(|&id| Some((id, self.waiters.get(&id)?)))
    }

    /// Those who subscribe by pattern.
    pub fn followers(&self) -> Vec<Id> {
        self.following.iter().copied().collect()
    }

    /// How many wait. Those whose answers end do not.
    pub fn numbers(&self) -> Waiters {
        let mut numbers = Waiters::default();
        for waiter in self.waiters.values().filter(|waiter| !waiter.is_ending()) {
            match waiter.until() {
                Until::FirstUpdate => numbers.poll += 1,
                Until::Deadline => numbers.stream += 1,
            }
        }
        numbers
    }

    pub fn len(&self) -> usize {
        self.waiters.len()
    }

    pub fn descriptors(&self) -> usize {
        self.descriptors
    }

    /// Whether the store is to be read at once.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The store is to be read for this one. A client that has not read all that there
    /// is for it comes later.
    pub fn touch(&mut self, id: Id) {
        let waits = |waiter: &Waiter| !waiter.is_unsent() && !waiter.is_ending();
        if self.get(id).is_some_and(waits) {
            self.dirty.insert(id);
        }
    }

    pub fn touch_all(&mut self) {
        for id in self.ids() {
            self.touch(id);
        }
    }

    /// The store is to be read for those that subscribe to what changed. Returns whether
    /// there are any.
    pub fn touch_changed(&mut self, changes: &Changes) -> bool {
        match changes {
            Changes::Any => self.touch_all(),
            Changes::Of(topics) => self.touch_topics(topics, |following| {
                topics.iter().any(|topic| following.wants(topic))
            }),
            Changes::InOrder(topics) => self.touch_topics(topics, |_| true),
        }
        self.is_dirty()
    }

    /// The store is to be read for the subscribers of these topics, and for those by pattern
    /// that are `concerned`.
    fn touch_topics(&mut self, topics: &[Topic], concerned: impl Fn(&Following) -> bool) {
        let ids = topics.iter().filter_map(|topic| self.of_topic.get(topic)).flatten();
        let is_concerned = |id: &&Id| {
            let waiter = self.waiters.get(id);
            waiter.and_then(|waiter| waiter.following.as_ref()).is_some_and(&concerned)
        };
        let following = self.following.iter().filter(is_concerned);
        let ids: Vec<_> = ids.chain(following).copied().collect();
        for id in ids {
            self.touch(id);
        }
    }

    /// Takes those for which one look at the store is enough, and what they want to know of
    /// it.
    pub fn batch(&mut self) -> (Vec<Id>, Wanted) {
        let mut wanted = Wanted::default();
        let newest = self.dirty_following().map(|(_, after)| after).max();
        let oldest = newest.map(|newest| newest.before(ABREAST));
        let late: BTreeSet<_> = self
            .dirty_following()
            .filter(|(_, after)| Some(*after) < oldest)
            .map(|it| it.0)
            .collect();
        let is_taken = |&&id: &&Id| {
            let waiter = self.waiters.get(&id);
            waiter.is_none_or(|waiter| wanted.add(waiter.subscriptions.wanted()))
        };
        let now = self.dirty.iter().filter(|id| !late.contains(id));
        let batch: Vec<_> = now.take_while(is_taken).copied().collect();
        if batch.len() == self.dirty.len() {
            self.dirty.clear();
        }
        for id in &batch {
            self.dirty.remove(id);
        }
        (batch, wanted)
    }

    fn dirty_following(&self) -> impl Iterator<Item = (Id, Cursor)> {
        let dirty = self.following.iter().filter(|id| self.dirty.contains(id));
        dirty.filter_map(|id| Some((*id, self.waiters.get(id)?.following.as_ref()?.after()?)))
    }

    /// The patterns of these, and where they stand.
    pub fn following(&self, batch: &[Id]) -> Vec<&Following> {
        let waiters = batch.iter().filter_map(|id| self.waiters.get(id));
        waiters.filter_map(|waiter| waiter.following.as_ref()).collect()
    }

    /// Whether somebody subscribes by pattern.
    pub fn has_following(&self) -> bool {
        !self.following.is_empty()
    }

    /// Looks after this one at the time it says itself. A later time than before is noticed
    /// when the earlier one comes, because it moves with each event.
    pub fn plan(&mut self, id: Id, now: Duration) {
        let Some(due) = self.get(id).map(|waiter| waiter.due(now)) else { return };
        match self.due.get_mut(&id) {
            Some((known, noted)) if *noted <= due => *known = due,
            _ => self.note(id, due),
        }
    }

    fn note(&mut self, id: Id, due: Duration) {
        self.cancel(id);
        self.due.insert(id, (due, due));
        self.agenda.insert((due, id));
    }

    fn cancel(&mut self, id: Id) {
        if let Some((_, noted)) = self.due.remove(&id) {
            self.agenda.remove(&(noted, id));
        }
    }

    /// When the first is to be looked after.
    pub fn next_due(&self) -> Option<Duration> {
        self.agenda.first().map(|(due, _)| *due)
    }

    /// Takes those whose time has come.
    pub fn take_due(&mut self, now: Duration) -> Vec<Id> {
        let mut ids = Vec::new();
        while let Some(&(_, id)) = self.agenda.first().filter(|(noted, _)| *noted <= now) {
            let due = self.due.get(&id).map(|(due, _)| *due);
            self.cancel(id);
            match due.filter(|due| *due > now) {
                Some(later) => self.note(id, later),
                None => ids.push(id),
            }
        }
        ids
    }
}

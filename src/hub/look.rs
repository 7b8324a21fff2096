//! One look at the store, for all subscribers that are served by it.

use std::collections::BTreeMap;

use super::following::Following;
use super::sweep::{Quiet, Sweep};
use super::update::{MAX_PIECE, OVERHEAD};
use crate::error::Error;
use crate::event::{Message, Since, Topic};
use crate::store::{Budget, Horizon, Reading, Store};

/// The most topics of one look, counted for each position in them. A request names at
/// most so many.
pub const MAX_TOPICS: usize = 64;

/// Positions to read from, each once.
#[derive(Default)]
pub struct Wanted {
    known: BTreeMap<Topic, Vec<Since>>,
    /// How many they are.
    count: usize,
}

impl Wanted {
    /// Adds these positions, unless there would be too many. At least the first are
    /// taken.
    pub fn add<'t>(&mut self, positions: impl Iterator<Item = (&'t Topic, Since)> + Clone) -> bool {
        let is_new = |&(topic, since): &(&Topic, Since)| {
            !self.known.get(topic).is_some_and(|known| known.contains(&since))
        };
        let new = positions.clone().filter(is_new).count();
        if self.count > 0 && self.count + new > MAX_TOPICS {
            return false;
        }
        if new > 0 {
            positions.for_each(|(topic, since)| self.add_one(topic, since));
        }
        true
    }

    fn add_one(&mut self, topic: &Topic, since: Since) {
        let known = self.known.entry(topic.clone()).or_default();
        if !known.contains(&since) {
            known.push(since);
            self.count += 1;
        }
    }

    /// The topics, each once.
    pub fn topics(&self) -> Vec<&Topic> {
        self.known.keys().collect()
    }

    /// "From now on" comes first: a later read would be another now. Then the oldest.
    fn in_order(&self) -> Vec<(&Topic, Since)> {
        let known = self.known.iter();
        let known = known.flat_map(|(topic, all)| all.iter().map(move |since| (topic, *since)));
        let mut all: Vec<_> = known.collect();
        all.sort_by_key(|(_, since)| since.cursor());
        all
    }
}

/// The readings, by topic and position.
pub struct Look {
    found: BTreeMap<Topic, Vec<Found>>,
    /// For those who subscribe by pattern.
    sweep: Option<Result<Sweep, Error>>,
}

type Found = (Since, Result<Reading, Error>);

impl Look {
    /// Reads the store, as much as one piece holds: the rest is found by a later look.
    ///
    /// # Errors
    /// The store's.
    pub fn at(
        store: &dyn Store,
        wanted: &Wanted,
        following: &[&Following],
        horizon: Option<Result<Horizon, Error>>,
        quiet: &mut Quiet,
    ) -> Result<Self, Error> {
        let after = following.iter().filter_map(|one| one.after()).min();
        let wants = |topic: &Topic| following.iter().any(|one| one.wants(topic));
        let sweep = horizon.map(|horizon| {
            match after {
                Some(after) => Sweep::at(store, after, horizon?, wants, quiet),
                // All are from now on. So a newcomer need not list the directory.
                None => horizon.map(Sweep::nothing),
            }
        });
        Ok(Self { found: Self::read(store, wanted)?, sweep })
    }

    fn read(store: &dyn Store, wanted: &Wanted) -> Result<BTreeMap<Topic, Vec<Found>>, Error> {
        let wanted = wanted.in_order();
        if wanted.is_empty() {
            return Ok(BTreeMap::new());
        }
        let size = |_: &Topic, message: &Message| message.data.len() + OVERHEAD;
        let readings = store.look(&wanted, &mut Budget::new(MAX_PIECE, &size))?;
        let mut found = BTreeMap::<_, Vec<_>>::new();
        for ((topic, since), reading) in wanted.into_iter().zip(readings) {
            if let Some(reading) = reading {
                found.entry(topic.clone()).or_default().push((since, reading));
            }
        }
        Ok(found)
    }

    /// The events of all topics in one order, if somebody subscribes by pattern.
    ///
    /// # Errors
    /// The store's.
    pub fn sweep(&self) -> Option<Result<&Sweep, Error>> {
        self.sweep.as_ref().map(|sweep| sweep.as_ref().map_err(Clone::clone))
    }

    /// The reading of a topic, as far as it fits into `budget`; `None` if it was not
    /// reached, and then no later topic is either: it must not pass this one.
    pub fn reading(
        &self,
        topic: &Topic,
        since: Since,
        budget: &mut Budget,
    ) -> Option<Result<Reading, Error>> {
        let found = self.found.get(topic);
        let found = found.and_then(|all| all.iter().find(|(known, _)| *known == since));
        match found {
            Some((_, Err(error))) => Some(Err(error.clone())),
            Some((_, Ok(reading))) if !budget.is_spent() => {
                reading.clone().within(topic, budget).map(Ok)
            }
            _ => {
                budget.spend();
                None
            }
        }
    }
}

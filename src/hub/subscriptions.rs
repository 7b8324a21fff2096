//! The positions of a subscriber, and the messages that the store holds for it.

use std::time::Duration;

use super::look::Look;
use super::subscription::Subscription;
use super::update::{UNSETTLED_LIMIT, UNSETTLED_PAUSE, Update};
use crate::error::Error;
use crate::event::{Cursor, Message, Since, Topic};
use crate::store::{Budget, Reading};

/// The topics of one subscriber.
pub struct Subscriptions {
    topics: Vec<TopicState>,
    /// Since when some topic has been unsettled.
    unsettled: Option<Duration>,
    /// Whether that has lasted too long to wait longer.
    overdue: bool,
    /// Whether the log has a line on a topic that cannot be read.
    is_reported: bool,
}

struct TopicState {
    topic: Topic,
    /// The last received position; `Now` until the first read.
    since: Since,
    /// The update that it would receive now.
    update: Option<Update>,
    /// An event that it learns of without its time: a publisher hangs.
    pending: Option<Cursor>,
    /// Whether the last read could open it.
    is_readable: bool,
}

/// Whether the subscriber may receive a message of a topic.
type MayReceive<'a> = &'a dyn Fn(&Topic, &Message) -> bool;

impl Subscriptions {
    pub fn new(subscriptions: Vec<Subscription>, now: Cursor) -> Self {
        let known = |Subscription { topic, since }| TopicState {
            topic,
            since: since.resolve(now),
            update: None,
            pending: None,
            is_readable: true,
        };
        let topics = subscriptions.into_iter().map(known).collect();
        Self { topics, unsettled: None, overdue: false, is_reported: false }
    }

    /// The topics, and where the subscriber stands in each.
    pub fn wanted(&self) -> impl Iterator<Item = (&Topic, Since)> + Clone {
        self.topics.iter().map(|state| (&state.topic, state.since))
    }

    /// Takes what was found in the store, as far as it fits into one piece. The
    /// topic whose cursor is oldest comes first. A cursor that is served moves on,
    /// so each topic has its turn. Returns whether every topic was reached.
    /// A topic that cannot be read stays as it was; the first such fault is
    /// reported, once a request.
    ///
    /// # Errors
    /// The client's own, and that of the first topic if no topic can be read.
    pub fn take(
        &mut self,
        look: &Look,
        now: Duration,
        mut budget: Budget,
        (may, report): (MayReceive, &mut dyn FnMut(&Error)),
    ) -> Result<bool, Error> {
        let lasting = |since| now.saturating_sub(since);
        self.overdue = self.unsettled.is_some_and(|since| lasting(since) >= UNSETTLED_LIMIT);
        let mut state: Vec<_> = self.topics.iter_mut().collect();
        state.sort_by_key(|state| state.since.cursor());
        let (mut settled, mut whole, mut failure) = (true, true, None);
        for state in state {
            let found = look.reading(&state.topic, state.since, &mut budget);
            whole &= found.is_some();
            match found.transpose() {
                Ok(found) => settled &= state.apply(found, self.overdue, may),
                Err(error) if error.status() < 500 => return Err(error),
                Err(error) => {
                    state.fail();
                    failure = failure.or(Some(error));
                }
            }
        }
        self.unsettled = if settled { None } else { self.unsettled.or(Some(now)) };
        self.keep_failure(failure, report)?;
        Ok(whole)
    }

    fn keep_failure(
        &mut self,
        failure: Option<Error>,
        report: &mut dyn FnMut(&Error),
    ) -> Result<(), Error> {
        match failure {
            Some(error) if !self.topics.iter().any(|state| state.is_readable) => Err(error),
            Some(error) if !self.is_reported => {
                self.is_reported = true;
                report(&error);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether every topic was read while no publisher worked on it. One such
    /// publisher holds back all topics: publishers are quick.
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_none() || self.overdue
    }

    pub fn has_updates(&self) -> bool {
        self.topics.iter().any(|state| state.update.is_some())
    }

    /// Takes the updates: from now on the subscriber has them.
    pub fn take_updates(&mut self) -> Vec<Update> {
        let take = |state: &mut TopicState| {
            let update = state.update.take()?;
            state.since = Since::Cursor(update.cursor);
            Some(update)
        };
        self.topics.iter_mut().filter_map(take).collect()
    }

    /// The subscriber's cursors, without its updates. A topic that has not settled
    /// since the beginning is left out. So is one that cannot be read and was
    /// subscribed to without a cursor.
    pub fn cursors(&self) -> Vec<(Topic, Cursor)> {
        let cursor = |state: &TopicState| Some((state.topic.clone(), state.since.cursor()?));
        self.topics.iter().filter_map(cursor).collect()
    }

    /// The same, and nothing if a topic would be left out. A stream has a cursor
    /// for each topic: that of a topic that cannot be read is the smallest.
    pub fn all_cursors(&self) -> Vec<(Topic, Cursor)> {
        let cursor = |state: &TopicState| {
            let unread = (!state.is_readable).then_some(Cursor::SMALLEST);
            Some((state.topic.clone(), state.since.cursor().or(unread)?))
        };
        self.topics.iter().map(cursor).collect::<Option<_>>().unwrap_or_default()
    }

    /// When to read again while a publisher works on a topic.
    pub fn next_read(&self, now: Duration) -> Option<Duration> {
        let since = self.unsettled?;
        let doubled = now + now.saturating_sub(since).max(UNSETTLED_PAUSE);
        Some(doubled.min((since + UNSETTLED_LIMIT).max(now + UNSETTLED_PAUSE)))
    }

    /// Whether nothing is left to be told, and the cursor of each topic is known.
    pub fn is_quiet(&self) -> bool {
        let is_quiet = |state: &TopicState| {
            state.update.is_none() && state.is_readable && state.since.cursor().is_some()
        };
        self.unsettled.is_none() && self.topics.iter().all(is_quiet)
    }

    /// The same topics for another process, from where the subscriber stands.
    pub fn positions(&self) -> Vec<Subscription> {
        let position = |state: &TopicState| Subscription {
            topic: state.topic.clone(),
            since: state.since.cursor().map_or(Since::Now, Since::Cursor),
        };
        self.topics.iter().map(position).collect()
    }
}

impl TopicState {
    /// The topic cannot be read, and has no update.
    fn fail(&mut self) {
        self.is_readable = false;
        self.update = None;
    }

    /// Returns `false` when a publisher is at work. A topic that was not reached
    /// stays as it is.
    fn apply(&mut self, found: Option<Reading>, overdue: bool, may: MayReceive) -> bool {
        self.update = None;
        let Some(mut found) = found else { return true };
        let is_hidden = self.hide(&mut found, may);
        self.is_readable = true;
        let is_new = |&time: &Cursor| self.since == Since::Now || self.since.includes(time);
        let pending = found.pending.filter(is_new).filter(|_| found.pending != self.pending);
        if pending.is_some() && !overdue {
            return false;
        }
        let is_known = pending.is_some() && !matches!(self.since, Since::Now | Since::Latest);
        self.pending = found.pending;
        if is_known || !is_hidden && self.is_update(&found) {
            self.update = Some(Update {
                topic: self.topic.clone(),
                cursor: found.standing,
                messages: found.messages,
                gap: found.gap,
            });
        } else {
            self.since = Since::Cursor(found.standing);
        }
        pending.is_none()
    }

    /// Leaves out the messages that the subscriber may not receive. Returns whether nothing
    /// else has happened.
    fn hide(&self, found: &mut Reading, may: MayReceive) -> bool {
        let last = found.messages.last().map(|message| message.id);
        found.messages.retain(|message| may(&self.topic, message));
        let left = found.messages.last().map(|message| message.id);
        if left == last || last != Some(found.standing) {
            return false;
        }
        found.standing = left.unwrap_or(found.standing);
        left.is_none() && !found.gap
    }

    fn is_update(&self, found: &Reading) -> bool {
        let wants_messages = matches!(self.since, Since::Earliest | Since::Latest);
        let has_event = !wants_messages && self.since.includes(found.standing);
        has_event || found.gap || !found.messages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To another process, and to a client that has seen the start of a stream only.
    #[test]
    fn unread_latest_is_handed_on() {
        let subscription = |since| Subscription { topic: Topic::new("a").unwrap(), since };
        let taken_over = |since| {
            let positions =
                Subscriptions::new(vec![subscription(since)], Cursor::now()).positions();
            let heir = Subscriptions::new(positions, Cursor::now());
            heir.wanted().map(|(_, since)| since).collect::<Vec<_>>()
        };
        assert_eq!(taken_over(Since::Latest), [Since::Latest]);
        assert_eq!(taken_over(Since::Now), [Since::Now]);
        let told =
            Subscriptions::new(vec![subscription(Since::Latest)], Cursor::now()).all_cursors();
        assert_eq!(Since::Cursor(told[0].1).resolve(Cursor::now()), Since::Latest);
    }
}

//! What a subscriber knows, and what the store holds for it.

use std::time::Duration;

use super::subscription::{Patience, Subscription};
use super::update::News;
use crate::error::Error;
use crate::event::{Cursor, Since, Topic};
use crate::store::{Budget, Reading, Store};

/// How soon a topic is read again that a publisher is at work on: a publish
/// takes less than 40 µs. The pause doubles, so that a crowd of readers
/// leaves the processor to that publisher.
pub const UNSETTLED_PAUSE: Duration = Duration::from_millis(1);

/// How long a publisher may be at work before its topic is taken as it is:
/// there is an event, but nobody is told of its time.
pub const UNSETTLED_LIMIT: Duration = Duration::from_secs(2);

/// The topics of one subscriber.
pub struct View {
    topics: Vec<Viewed>,
    /// Since when some topic has been unsettled.
    unsettled: Option<Duration>,
    /// Whether that has lasted too long to wait for it.
    overdue: bool,
    /// Whether the log has a line on a topic that cannot be read.
    is_reported: bool,
}

struct Viewed {
    topic: Topic,
    /// What the subscriber has; `Now` until the first look.
    since: Since,
    /// What it would be told now.
    news: Option<News>,
    /// An event of which it is told, but not of its time: a publisher hangs.
    pending: Option<Cursor>,
    /// Whether the last look could read it.
    is_readable: bool,
}

impl View {
    pub fn new(subscriptions: Vec<Subscription>, now: Cursor) -> Self {
        let viewed = |Subscription { topic, since }| Viewed {
            topic,
            since: since.resolve(now),
            news: None,
            pending: None,
            is_readable: true,
        };
        let topics = subscriptions.into_iter().map(viewed).collect();
        Self { topics, unsettled: None, overdue: false, is_reported: false }
    }

    pub fn topics(&self) -> Vec<Topic> {
        self.topics.iter().map(|viewed| viewed.topic.clone()).collect()
    }

    /// Reads every topic anew, until there is news enough for one answer. The
    /// topic whose subscriber is furthest behind comes first: what is served
    /// moves on, so each topic has its turn, and the cursors alone say which.
    /// A topic that cannot be read stays as it was; the first of them is
    /// reported, once a request.
    ///
    /// # Errors
    /// The store's, the client's own, and that of the first topic if none can
    /// be read.
    pub fn look(
        &mut self,
        store: &dyn Store,
        now: Duration,
        budget: &Budget,
        report: &mut dyn FnMut(&Error),
    ) -> Result<(), Error> {
        let lasting = |since| now.saturating_sub(since);
        self.overdue = self.unsettled.is_some_and(|since| lasting(since) >= UNSETTLED_LIMIT);
        while !self.look_once(store, now, *budget, report)? && self.is_settled() && !self.has_news()
        {
        }
        Ok(())
    }

    /// Whether every topic was reached.
    fn look_once(
        &mut self,
        store: &dyn Store,
        now: Duration,
        mut budget: Budget,
        report: &mut dyn FnMut(&Error),
    ) -> Result<bool, Error> {
        let mut viewed: Vec<_> = self.topics.iter_mut().collect();
        // "From now on" is before all: a look later would be another now.
        viewed.sort_by_key(|viewed| viewed.since.cursor());
        let wanted: Vec<_> = viewed.iter().map(|viewed| (&viewed.topic, viewed.since)).collect();
        let found = store.look(&wanted, &mut budget)?;
        let (mut settled, mut whole, mut refusal) = (true, true, None);
        for (viewed, found) in viewed.into_iter().zip(found) {
            whole &= found.is_some();
            match found.transpose() {
                Ok(found) => settled &= viewed.take(found, self.overdue),
                Err(error) if error.status() < 500 => return Err(error),
                Err(error) => {
                    viewed.fail();
                    refusal = refusal.or(Some(error));
                }
            }
        }
        self.unsettled = if settled { None } else { self.unsettled.or(Some(now)) };
        self.judge(refusal, report)?;
        Ok(whole)
    }

    fn judge(
        &mut self,
        refusal: Option<Error>,
        report: &mut dyn FnMut(&Error),
    ) -> Result<(), Error> {
        match refusal {
            Some(error) if !self.topics.iter().any(|viewed| viewed.is_readable) => Err(error),
            Some(error) if !self.is_reported => {
                self.is_reported = true;
                report(&error);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether every topic was seen as it is. A publisher at work holds back
    /// all: publishers are quick.
    pub fn is_settled(&self) -> bool {
        self.unsettled.is_none() || self.overdue
    }

    pub fn has_news(&self) -> bool {
        self.topics.iter().any(|viewed| viewed.news.is_some())
    }

    /// Hands over the news: from now on the subscriber has them.
    pub fn take_news(&mut self) -> Vec<News> {
        let take = |viewed: &mut Viewed| {
            let news = viewed.news.take()?;
            viewed.since = Since::Cursor(news.cursor);
            Some(news)
        };
        self.topics.iter_mut().filter_map(take).collect()
    }

    /// Where the subscriber stands, without its news. A topic that has not
    /// settled since the beginning is left out, or that cannot be read and was
    /// asked for without a cursor.
    pub fn stand(&self) -> Vec<(Topic, Cursor)> {
        let stand = |viewed: &Viewed| Some((viewed.topic.clone(), viewed.since.cursor()?));
        self.topics.iter().filter_map(stand).collect()
    }

    /// The same, and nothing if a topic would be left out. A stream has a
    /// cursor for each topic: what cannot be read stands at its beginning.
    pub fn stand_everywhere(&self) -> Vec<(Topic, Cursor)> {
        let stand = |viewed: &Viewed| {
            let unread = (!viewed.is_readable).then_some(Cursor::SMALLEST);
            Some((viewed.topic.clone(), viewed.since.cursor().or(unread)?))
        };
        self.topics.iter().map(stand).collect::<Option<_>>().unwrap_or_default()
    }

    pub fn next_look(&self, now: Duration, until: Duration, patience: Patience) -> Duration {
        match self.unsettled {
            Some(since) => {
                let doubled = now + now.saturating_sub(since).max(UNSETTLED_PAUSE);
                doubled.min((since + UNSETTLED_LIMIT).max(now + UNSETTLED_PAUSE))
            }
            None => until.min(now + patience.look),
        }
    }
}

impl Viewed {
    /// It cannot be read, and has nothing to tell.
    fn fail(&mut self) {
        self.is_readable = false;
        self.news = None;
    }

    /// `false` when a publisher is at work. A topic that was not reached stays
    /// as it is.
    fn take(&mut self, found: Option<Reading>, overdue: bool) -> bool {
        self.news = None;
        let Some(found) = found else { return true };
        self.is_readable = true;
        let is_new = |&time: &Cursor| self.since == Since::Now || self.since.includes(time);
        let pending = found.pending.filter(is_new).filter(|_| found.pending != self.pending);
        if pending.is_some() && !overdue {
            return false;
        }
        let is_told = pending.is_some() && self.since != Since::Now;
        self.pending = found.pending;
        if is_told || self.is_news(&found) {
            self.news = Some(News {
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

    fn is_news(&self, found: &Reading) -> bool {
        let has_event = self.since != Since::Earliest && self.since.includes(found.standing);
        has_event || found.gap || !found.messages.is_empty()
    }
}

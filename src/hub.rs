//! Publishing and waiting; knows no wire and no disk.

use std::time::Duration;

use crate::clock::{Clock, Wake};
use crate::error::Error;
use crate::event::{Cursor, Event, Since, Topic};
use crate::store::Store;

/// How soon a topic is read again that a publisher is at work on: a publish
/// takes less than 40 µs. The pause doubles, so that a crowd of readers
/// leaves the processor to that publisher.
const UNSETTLED_PAUSE: Duration = Duration::from_millis(1);

/// How long a publisher may be at work before its topic is taken as it is.
/// A publisher that was stopped for [`crate::store::PUBLISH_LIMIT`], half of
/// this, begins anew, so no event hides behind the one that was read.
const UNSETTLED_LIMIT: Duration = Duration::from_secs(2);

/// One topic that a client wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Which.
    pub topic: Topic,
    /// From where on.
    pub since: Since,
}

/// How long a request may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// In all.
    pub total: Duration,
    /// Between two looks, when no wake-up comes.
    pub look: Duration,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The events have happened.
    Published(Vec<Event>),
    /// These topics have an event that the client has not seen: the last of each.
    News(Vec<Event>),
    /// Nothing has happened; this is where the topics stand.
    Quiet(Vec<(Topic, Cursor)>),
    /// Nobody is there to read an answer.
    ClientGone,
}

/// Publishes to every topic, in order.
///
/// # Errors
/// The store's, at the first topic that fails; those before it are published.
pub fn publish(store: &dyn Store, topics: Vec<Topic>) -> Result<Outcome, Error> {
    let publish = |topic: Topic| {
        let cursor = store.publish(&topic)?;
        Ok(Event { topic, cursor })
    };
    topics.into_iter().map(publish).collect::<Result<_, _>>().map(Outcome::Published)
}

/// Waits until one of `subscriptions` has news: arm, look, sleep.
///
/// The watch is armed before the look, so an event between the look and the
/// sleep ends the sleep. A wake-up is only a hint: the store is read after
/// each, and every `patience.look` without any.
///
/// # Errors
/// The store's.
pub fn wait(
    store: &dyn Store,
    clock: &mut dyn Clock,
    subscriptions: Vec<Subscription>,
    patience: Patience,
) -> Result<Outcome, Error> {
    let mut view = View::new(subscriptions, clock.wall());
    let mut watch = match patience.total {
        Duration::ZERO => None,
        _ => Some(store.watch(&view.topics())?),
    };
    loop {
        if let Some(watch) = &mut watch {
            watch.arm();
        }
        view.look(store, clock.elapsed())?;
        if view.is_final(clock.elapsed() >= patience.total) {
            return Ok(view.outcome());
        }
        let fd = watch.as_ref().and_then(|watch| watch.fd());
        match clock.sleep(fd, view.next_look(clock.elapsed(), patience)) {
            Wake::ClientGone => return Ok(Outcome::ClientGone),
            Wake::Terminated => return Ok(view.outcome()),
            Wake::Due | Wake::Changed => {}
        }
    }
}

/// What the client knows and what the store holds.
struct View {
    topics: Vec<Viewed>,
    /// Since when some topic has been unsettled.
    unsettled: Option<Duration>,
    /// Whether that has lasted too long to wait for it.
    overdue: bool,
}

struct Viewed {
    subscription: Subscription,
    /// `None` before the first look, and while a publisher is at work.
    standing: Option<Cursor>,
    /// The time went back while we waited: somebody touched or replaced the
    /// file, under a clock that was behind.
    turned_back: bool,
}

impl View {
    fn new(subscriptions: Vec<Subscription>, now: Cursor) -> Self {
        let viewed = |Subscription { topic, since }| Viewed {
            subscription: Subscription { topic, since: since.judged_at(now) },
            standing: None,
            turned_back: false,
        };
        Self {
            topics: subscriptions.into_iter().map(viewed).collect(),
            unsettled: None,
            overdue: false,
        }
    }

    fn topics(&self) -> Vec<Topic> {
        self.topics.iter().map(|viewed| viewed.subscription.topic.clone()).collect()
    }

    /// Reads every topic anew.
    fn look(&mut self, store: &dyn Store, now: Duration) -> Result<(), Error> {
        let lasting = |since| now.saturating_sub(since);
        self.overdue = self.unsettled.is_some_and(|since| lasting(since) >= UNSETTLED_LIMIT);
        let mut settled = true;
        for viewed in &mut self.topics {
            settled &= viewed.look(store, self.overdue)?;
        }
        self.unsettled = if settled { None } else { self.unsettled.or(Some(now)) };
        Ok(())
    }

    /// Whether there is an answer: news, or the last look is over. A topic
    /// that a publisher is at work on holds back both: publishers are quick.
    fn is_final(&self, last_look: bool) -> bool {
        let settled = self.unsettled.is_none() || self.overdue;
        settled && (last_look || self.topics.iter().any(|viewed| viewed.news().is_some()))
    }

    /// The answer as things stand. What has not settled is left out of it: the
    /// client keeps the cursor it has.
    fn outcome(&self) -> Outcome {
        let news: Vec<Event> = self.topics.iter().filter_map(Viewed::news).collect();
        if news.is_empty() {
            return Outcome::Quiet(self.topics.iter().filter_map(Viewed::stands).collect());
        }
        Outcome::News(news)
    }

    fn next_look(&self, now: Duration, patience: Patience) -> Duration {
        match self.unsettled {
            Some(since) => {
                let doubled = now + now.saturating_sub(since).max(UNSETTLED_PAUSE);
                doubled.min((since + UNSETTLED_LIMIT).max(now + UNSETTLED_PAUSE))
            }
            None => patience.total.min(now + patience.look),
        }
    }
}

impl Viewed {
    /// `false` when a publisher is at work.
    fn look(&mut self, store: &dyn Store, overdue: bool) -> Result<bool, Error> {
        let reading = store.read(&self.subscription.topic)?;
        if !reading.settled && !overdue {
            return Ok(false);
        }
        let standing = reading.standing;
        if self.subscription.since == Since::Now {
            self.subscription.since = Since::Cursor(standing);
        }
        self.turned_back |=
            standing != Cursor::SMALLEST && self.standing.is_some_and(|before| standing < before);
        self.standing = Some(standing);
        Ok(true)
    }

    fn news(&self) -> Option<Event> {
        let standing = self.standing?;
        let cursor = match self.subscription.since {
            since if since.precedes(standing) => standing,
            // Never back to a cursor that would bring old events again.
            Since::Cursor(cursor) if self.turned_back => cursor,
            _ if self.turned_back => standing,
            _ => return None,
        };
        Some(Event { topic: self.subscription.topic.clone(), cursor })
    }

    fn stands(&self) -> Option<(Topic, Cursor)> {
        Some((self.subscription.topic.clone(), self.standing?))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::os::fd::BorrowedFd;
    use std::rc::Rc;

    use super::*;
    use crate::store::{Reading, Watch};

    const SECOND: Duration = Duration::from_secs(1);
    const PATIENCE: Patience =
        Patience { total: Duration::from_secs(40), look: Duration::from_secs(2) };

    /// A store whose readings are written down beforehand; the last one stays.
    struct Script {
        readings: RefCell<VecDeque<Reading>>,
        said: Rc<RefCell<Vec<&'static str>>>,
    }

    struct ScriptWatch(Rc<RefCell<Vec<&'static str>>>);

    impl Watch for ScriptWatch {
        fn arm(&mut self) {
            self.0.borrow_mut().push("arm");
        }

        fn fd(&self) -> Option<BorrowedFd<'_>> {
            None
        }
    }

    impl Store for Script {
        fn publish(&self, _: &Topic) -> Result<Cursor, Error> {
            unreachable!("a subscriber publishes nothing")
        }

        fn read(&self, _: &Topic) -> Result<Reading, Error> {
            self.said.borrow_mut().push("read");
            let mut readings = self.readings.borrow_mut();
            let first = readings[0];
            if readings.len() > 1 {
                readings.pop_front();
            }
            Ok(first)
        }

        fn watch(&self, _: &[Topic]) -> Result<Box<dyn Watch>, Error> {
            Ok(Box::new(ScriptWatch(self.said.clone())))
        }
    }

    /// A clock that never waits; `wakes` end its sleeps.
    #[derive(Default)]
    struct FakeClock {
        time: Duration,
        wakes: VecDeque<Wake>,
        sleeps: Vec<Duration>,
    }

    impl Clock for FakeClock {
        fn elapsed(&self) -> Duration {
            self.time
        }

        fn wall(&self) -> Cursor {
            Cursor::at(1000, 500_000_000)
        }

        fn sleep(&mut self, _: Option<BorrowedFd<'_>>, until: Duration) -> Wake {
            self.sleeps.push(until.saturating_sub(self.time));
            self.time = until;
            self.wakes.pop_front().unwrap_or(Wake::Due)
        }
    }

    fn woken_by(wake: Wake) -> FakeClock {
        FakeClock { wakes: [wake].into(), ..FakeClock::default() }
    }

    fn at(seconds: i64) -> Cursor {
        Cursor::at(seconds, 250_000_000)
    }

    fn settled(standing: Cursor) -> Reading {
        Reading { standing, settled: true }
    }

    const AT_WORK: Reading = Reading { standing: Cursor::SMALLEST, settled: false };

    fn script(readings: &[Reading]) -> Script {
        Script { readings: RefCell::new(readings.to_vec().into()), said: Rc::default() }
    }

    fn topic() -> Topic {
        Topic::new("a").unwrap()
    }

    fn run(store: &Script, clock: &mut FakeClock, since: Since) -> Outcome {
        wait(store, clock, vec![Subscription { topic: topic(), since }], PATIENCE).unwrap()
    }

    fn run_script(readings: &[Reading], since: Since) -> Outcome {
        run(&script(readings), &mut FakeClock::default(), since)
    }

    fn news(cursor: Cursor) -> Outcome {
        Outcome::News(vec![Event { topic: topic(), cursor }])
    }

    fn quiet(cursor: Cursor) -> Outcome {
        Outcome::Quiet(vec![(topic(), cursor)])
    }

    #[test]
    fn each_look_comes_after_the_watch_is_armed() {
        let store = script(&[settled(at(900)), settled(at(900)), settled(at(2000))]);
        run(&store, &mut FakeClock::default(), Since::Cursor(at(900)));
        assert_eq!(*store.said.borrow(), ["arm", "read"].repeat(3));
    }

    #[test]
    fn without_a_wake_up_it_looks_after_each_sleep() {
        let store = script(&[settled(at(900))]);
        let mut clock = FakeClock::default();
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), quiet(at(900)));
        assert_eq!(clock.sleeps, [2 * SECOND; 20]);
        assert_eq!(store.said.borrow().len(), 2 * 21);
    }

    #[test]
    fn an_event_at_the_last_moment_is_seen() {
        let mut readings = vec![settled(at(900)); 20];
        readings.push(settled(at(1040)));
        assert_eq!(run_script(&readings, Since::Now), news(at(1040)));
    }

    #[test]
    fn from_now_on_is_resolved_once_even_from_a_future_time() {
        let readings = [settled(at(5000)), settled(at(5000)), settled(at(5001))];
        for since in [Since::Now, Since::Second(1000), Since::Second(9999)] {
            assert_eq!(run_script(&readings, since), news(at(5001)));
        }
    }

    #[test]
    fn the_first_event_of_a_topic_counts_whatever_the_clock_says() {
        let readings = [settled(Cursor::SMALLEST), settled(at(3))];
        assert_eq!(run_script(&readings, Since::Now), news(at(3)));
    }

    #[test]
    fn a_time_that_goes_back_is_an_event_but_the_cursor_does_not_go_back() {
        let readings = [settled(at(900)), settled(at(800))];
        assert_eq!(run_script(&readings, Since::Cursor(at(900))), news(at(900)));
    }

    #[test]
    fn a_file_that_is_deleted_is_no_event() {
        let readings = [settled(at(900)), settled(Cursor::SMALLEST)];
        assert_eq!(run_script(&readings, Since::Cursor(at(900))), quiet(Cursor::SMALLEST));
    }

    #[test]
    fn a_publisher_at_work_is_waited_for_by_the_millisecond() {
        let mut clock = FakeClock::default();
        let store = script(&[AT_WORK, AT_WORK, settled(at(950))]);
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), news(at(950)));
        assert_eq!(clock.sleeps, [UNSETTLED_PAUSE; 2]);
        let store = script(&[AT_WORK, AT_WORK, AT_WORK, AT_WORK, settled(at(950))]);
        clock.sleeps.clear();
        run(&store, &mut clock, Since::Cursor(at(900)));
        assert_eq!(clock.sleeps, [1, 1, 2, 4].map(Duration::from_millis));
    }

    #[test]
    fn a_publisher_that_hangs_does_not_hold_its_readers_for_ever() {
        let stuck = Reading { standing: at(950), settled: false };
        let mut clock = FakeClock::default();
        assert_eq!(run(&script(&[stuck]), &mut clock, Since::Cursor(at(900))), news(at(950)));
        assert!(clock.time == UNSETTLED_LIMIT);
    }

    #[test]
    fn terminated_it_answers_with_what_has_settled() {
        let end = |reading| run(&script(&[reading]), &mut woken_by(Wake::Terminated), Since::Now);
        assert_eq!(end(settled(at(900))), quiet(at(900)));
        assert_eq!(end(AT_WORK), Outcome::Quiet(vec![]));
    }

    #[test]
    fn a_client_that_has_gone_gets_nothing() {
        let mut clock = woken_by(Wake::ClientGone);
        let outcome = run(&script(&[settled(at(900))]), &mut clock, Since::Now);
        assert_eq!(outcome, Outcome::ClientGone);
    }
}

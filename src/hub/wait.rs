//! Waiting for events: arm the watch, look, sleep.

use std::time::Duration;

use super::subscription::{Patience, Subscription, Terms};
use super::update::{Outcome, Part};
use super::view::View;
use crate::error::Error;
use crate::process::clock::{Clock, Wake};
use crate::store::{Budget, Store, Watch};

/// How often a stream gives a sign of life. Servers and proxies cut what is
/// silent for 30 s or more.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What a subscriber is woken by. It outlives the wait: to take down an inotify
/// instance costs the kernel some 7 ms, and nobody shall wait for that.
pub type Alarm = Option<Box<dyn Watch>>;

/// Waits until one of `subscriptions` has news, and gives as much of that as
/// `terms` allow. A topic that cannot be read is left out and told to `report`.
///
/// # Errors
/// The store's.
pub fn wait(
    store: &dyn Store,
    clock: &mut dyn Clock,
    alarm: &mut Alarm,
    subscriptions: Vec<Subscription>,
    terms: Terms,
    report: &mut dyn FnMut(&Error),
) -> Result<Outcome, Error> {
    let Terms { patience, budget } = terms;
    let view = View::new(subscriptions, clock.wall());
    let mut subscriber = Subscriber { store, clock, alarm, view, patience, budget, report };
    Ok(match subscriber.hear(patience.total)? {
        Heard::News => Outcome::News(subscriber.view.take_news()),
        Heard::Silence | Heard::Terminated => Outcome::Quiet(subscriber.view.stand()),
        Heard::ClientGone => Outcome::ClientGone,
    })
}

/// Hands everything that happens to `send`, in parts as large as `terms` allow,
/// until the time is over, SIGTERM comes, or `send` says with `false` that nobody
/// listens. A topic that cannot be read is told to `report`, and listened to again
/// when it can.
///
/// # Errors
/// The store's; only before the first part is sent is there somebody to tell.
pub fn stream(
    store: &dyn Store,
    clock: &mut dyn Clock,
    alarm: &mut Alarm,
    subscriptions: Vec<Subscription>,
    terms: Terms,
    send: &mut dyn FnMut(&Part) -> bool,
    report: &mut dyn FnMut(&Error),
) -> Result<(), Error> {
    let Terms { patience, budget } = terms;
    let view = View::new(subscriptions, clock.wall());
    let mut subscriber = Subscriber { store, clock, alarm, view, patience, budget, report };
    let mut heard = subscriber.hear(Duration::ZERO)?;
    let standing = subscriber.view.stand_everywhere();
    if standing.is_empty() {
        heard = Heard::Terminated;
    }
    let mut listening = send(&Part::Begin(standing));
    while listening {
        listening = match heard {
            Heard::News => send(&Part::News(subscriber.view.take_news())),
            Heard::Silence => subscriber.elapsed() < HEARTBEAT || send(&Part::Alive),
            Heard::Terminated | Heard::ClientGone => false,
        };
        if listening && !subscriber.is_over() {
            let next_beat = subscriber.elapsed() + HEARTBEAT;
            heard = subscriber.hear(next_beat.min(patience.total))?;
        } else {
            listening = false;
        }
    }
    Ok(())
}

/// A client that listens.
struct Subscriber<'a> {
    store: &'a dyn Store,
    clock: &'a mut dyn Clock,
    alarm: &'a mut Alarm,
    view: View,
    patience: Patience,
    /// What one answer may hold.
    budget: Budget<'a>,
    report: &'a mut dyn FnMut(&Error),
}

enum Heard {
    News,
    Silence,
    Terminated,
    ClientGone,
}

impl Subscriber<'_> {
    fn elapsed(&self) -> Duration {
        self.clock.elapsed()
    }

    /// Whether the time is over, or somebody ended it: who always has news
    /// never sleeps.
    fn is_over(&mut self) -> bool {
        let wake = self.clock.sleep(None, Duration::ZERO);
        self.elapsed() >= self.patience.total || matches!(wake, Wake::Terminated | Wake::ClientGone)
    }

    /// Waits for news: arm, look, sleep.
    ///
    /// The watch is armed before the look, so an event between the look and the
    /// sleep ends the sleep. A wake-up is only a hint: the store is read after
    /// each, and every `patience.look` without any. There is no watch before the
    /// first look: many an answer is known at once.
    fn hear(&mut self, until: Duration) -> Result<Heard, Error> {
        let mut is_woken = false;
        loop {
            if let Some(watch) = self.alarm {
                watch.arm();
            }
            self.view.look(self.store, self.clock.elapsed(), &self.budget, self.report)?;
            if self.view.is_settled() && self.view.has_news() {
                return Ok(Heard::News);
            }
            if self.view.is_settled() && self.clock.elapsed() >= until {
                return Ok(Heard::Silence);
            }
            if self.alarm.is_none() && self.patience.total > Duration::ZERO {
                *self.alarm = Some(self.store.watch(&self.view.topics())?);
                continue;
            }
            if is_woken && self.view.is_settled() {
                if let Some(watch) = self.alarm {
                    watch.report_false_wakeup();
                }
            }
            let wake = self.sleep(until);
            is_woken = wake == Wake::Changed;
            match wake {
                Wake::ClientGone => return Ok(Heard::ClientGone),
                Wake::Terminated if self.view.has_news() => return Ok(Heard::News),
                Wake::Terminated => return Ok(Heard::Terminated),
                Wake::Due | Wake::Changed => {}
            }
        }
    }

    /// Until the next look; deaf to the watch for as long as it is to rest. What
    /// that tells of meanwhile ends the sleep afterwards.
    fn sleep(&mut self, until: Duration) -> Wake {
        let rest = self.alarm.as_ref().map_or(Duration::ZERO, |watch| watch.cooldown());
        if !rest.is_zero() {
            let wake = self.clock.sleep(None, until.min(self.clock.elapsed() + rest));
            if wake != Wake::Due {
                return wake;
            }
        }
        loop {
            let wake = self.listen(until);
            let watch = self.alarm.as_mut().filter(|_| wake == Wake::Changed);
            if watch.is_none_or(|watch| watch.concerns_us()) {
                return wake;
            }
        }
    }

    fn listen(&mut self, until: Duration) -> Wake {
        let now = self.clock.elapsed();
        let pause = self.alarm.as_ref().map_or(Duration::MAX, |watch| watch.poll_interval());
        let next_look = self.view.next_look(now, until, self.patience);
        let next_look = next_look.min(now.saturating_add(pause));
        let within = next_look.saturating_sub(now);
        let fd = self.alarm.as_mut().and_then(|watch| watch.fd(within));
        self.clock.sleep(fd, next_look)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::os::fd::BorrowedFd;
    use std::rc::Rc;

    use super::*;
    use crate::event::{Cursor, Message, Since, Topic};
    use crate::hub::update::News;
    use crate::hub::view::{UNSETTLED_LIMIT, UNSETTLED_PAUSE};
    use crate::store::{Reading, Readings};

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

        fn fd(&mut self, _: Duration) -> Option<BorrowedFd<'_>> {
            None
        }
    }

    impl Store for Script {
        fn publish(&self, _: &Topic, _: Option<&str>) -> Result<Cursor, Error> {
            unreachable!("a subscriber publishes nothing")
        }

        fn look(&self, wanted: &[(&Topic, Since)], _: &mut Budget) -> Result<Readings, Error> {
            let read = |_| {
                self.said.borrow_mut().push("read");
                let mut readings = self.readings.borrow_mut();
                let first = readings[0].clone();
                if readings.len() > 1 {
                    readings.pop_front();
                }
                Some(Ok(first))
            };
            Ok(wanted.iter().map(read).collect())
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
            self.time = self.time.max(until);
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
        Reading::quiet(standing)
    }

    fn at_work(standing: Cursor) -> Reading {
        Reading { pending: Some(at(950)), ..Reading::quiet(standing) }
    }

    fn script(readings: &[Reading]) -> Script {
        Script { readings: RefCell::new(readings.to_vec().into()), said: Rc::default() }
    }

    fn no_report(error: &Error) {
        panic!("{error:?}");
    }

    fn topic() -> Topic {
        Topic::new("a").unwrap()
    }

    fn run(store: &Script, clock: &mut FakeClock, since: Since) -> Outcome {
        let subscriptions = vec![Subscription { topic: topic(), since }];
        wait(store, clock, &mut None, subscriptions, terms(), &mut no_report).unwrap()
    }

    /// A script has no messages to be counted.
    fn terms() -> Terms<'static> {
        Terms { patience: PATIENCE, budget: Budget::new(0, &|_, _| 0) }
    }

    fn run_script(readings: &[Reading], since: Since) -> Outcome {
        run(&script(readings), &mut FakeClock::default(), since)
    }

    fn news(cursor: Cursor) -> Outcome {
        Outcome::News(vec![News { topic: topic(), cursor, messages: vec![], gap: false }])
    }

    fn quiet(cursor: Cursor) -> Outcome {
        Outcome::Quiet(vec![(topic(), cursor)])
    }

    #[test]
    fn before_each_sleep_a_look_comes_after_the_watch_is_armed() {
        let old = settled(at(900));
        let store = script(&[old.clone(), old.clone(), old, settled(at(2000))]);
        run(&store, &mut FakeClock::default(), Since::Cursor(at(900)));
        assert_eq!(*store.said.borrow(), ["read", "arm", "read", "arm", "read", "arm", "read"]);
    }

    #[test]
    fn what_is_known_at_once_needs_no_watch() {
        let store = script(&[settled(at(900))]);
        run(&store, &mut FakeClock::default(), Since::Cursor(at(1)));
        assert_eq!(*store.said.borrow(), ["read"]);
    }

    #[test]
    fn without_a_wake_up_it_looks_after_each_sleep() {
        let store = script(&[settled(at(900))]);
        let mut clock = FakeClock::default();
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), quiet(at(900)));
        assert_eq!(clock.sleeps, [2 * SECOND; 20]);
        assert_eq!(store.said.borrow().len(), 1 + 2 * 21);
    }

    #[test]
    fn an_event_at_the_last_moment_is_seen() {
        let mut readings = vec![settled(at(900)); 21];
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
    fn a_gap_is_news_even_where_the_cursor_goes_back() {
        let gap = Reading { gap: true, ..settled(at(800)) };
        let expected = News { topic: topic(), cursor: at(800), messages: Vec::new(), gap: true };
        let outcome = run_script(&[settled(at(900)), gap], Since::Cursor(at(900)));
        assert_eq!(outcome, Outcome::News(vec![expected]));
    }

    #[test]
    fn messages_are_news_and_earliest_without_any_waits() {
        let message = Message::new(at(950), "x");
        let found = Reading { messages: vec![message.clone()], ..settled(at(950)) };
        for since in [Since::Earliest, Since::Cursor(at(900))] {
            match run_script(&[settled(at(900)), found.clone()], since) {
                Outcome::News(news) => assert_eq!(news[0].messages, std::slice::from_ref(&message)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(run_script(&[settled(at(900))], Since::Earliest), quiet(at(900)));
    }

    #[test]
    fn a_publisher_at_work_is_waited_for_by_the_millisecond() {
        let mut clock = FakeClock::default();
        let store = script(&[vec![at_work(at(900)); 3].as_slice(), &[settled(at(950))]].concat());
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), news(at(950)));
        assert_eq!(clock.sleeps, [UNSETTLED_PAUSE; 2]);
        let store = script(&[vec![at_work(at(900)); 5].as_slice(), &[settled(at(950))]].concat());
        clock.sleeps.clear();
        run(&store, &mut clock, Since::Cursor(at(900)));
        assert_eq!(clock.sleeps, [1, 1, 2, 4].map(Duration::from_millis));
    }

    #[test]
    fn a_publisher_that_hangs_does_not_hold_its_readers_for_ever() {
        let mut clock = FakeClock::default();
        let store = script(&[at_work(at(900))]);
        // The time may yet be replaced: the cursor stays.
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), news(at(900)));
        assert!(clock.time == UNSETTLED_LIMIT);
    }

    #[test]
    fn terminated_it_answers_with_what_has_settled() {
        let end = |reading| run(&script(&[reading]), &mut woken_by(Wake::Terminated), Since::Now);
        assert_eq!(end(settled(at(900))), quiet(at(900)));
        assert_eq!(end(at_work(at(900))), Outcome::Quiet(vec![]));
    }

    #[test]
    fn a_client_that_has_gone_gets_nothing() {
        let mut clock = woken_by(Wake::ClientGone);
        let outcome = run(&script(&[settled(at(900))]), &mut clock, Since::Now);
        assert_eq!(outcome, Outcome::ClientGone);
    }

    /// What a stream sends, until it ends or `enough` parts are sent.
    fn parts(store: &Script, clock: &mut FakeClock, since: Since, enough: usize) -> Vec<Part> {
        let mut sent = Vec::new();
        let subscriptions = vec![Subscription { topic: topic(), since }];
        let mut listen = |part: &Part| {
            sent.push(part.clone());
            sent.len() < enough
        };
        let alarm = &mut None;
        stream(store, clock, alarm, subscriptions, terms(), &mut listen, &mut no_report).unwrap();
        sent
    }

    #[test]
    fn a_stream_says_where_it_stands_and_goes_on_after_each_event() {
        let readings = [settled(at(900)), settled(at(950)), settled(at(950)), settled(at(960))];
        let sent = parts(&script(&readings), &mut FakeClock::default(), Since::Now, 3);
        let part = |outcome| match outcome {
            Outcome::News(news) => Part::News(news),
            other => panic!("{other:?}"),
        };
        let begin = Part::Begin(vec![(topic(), at(900))]);
        assert_eq!(sent, [begin, part(news(at(950))), part(news(at(960)))]);
    }

    #[test]
    fn a_stream_gives_signs_of_life_and_ends_when_its_time_is_over() {
        let mut clock = FakeClock::default();
        let sent = parts(&script(&[settled(at(900))]), &mut clock, Since::Now, 99);
        assert_eq!(sent[1..], [Part::Alive, Part::Alive, Part::Alive]);
        assert_eq!(clock.time, PATIENCE.total);
    }

    #[test]
    fn a_stream_that_always_has_news_ends_when_it_is_told_to() {
        let busy = Reading { gap: true, ..settled(at(900)) };
        let mut clock = woken_by(Wake::Terminated);
        assert_eq!(parts(&script(&[busy]), &mut clock, Since::Cursor(at(1)), 99).len(), 2);
    }

    /// To a client that comes back with fewer cursors than topics we say 400,
    /// after which an `EventSource` never comes back again.
    #[test]
    fn a_stream_that_ends_before_it_has_begun_says_nothing_of_where_it_stands() {
        let mut clock = woken_by(Wake::Terminated);
        let sent = parts(&script(&[at_work(at(900))]), &mut clock, Since::Now, 99);
        assert_eq!(sent, [Part::Begin(Vec::new())]);
        let subscription =
            |name: &str| Subscription { topic: Topic::new(name).unwrap(), since: Since::Now };
        let news = Reading { gap: true, ..settled(at(950)) };
        let store = script(&[at_work(at(900)), news]);
        let mut sent = Vec::new();
        let topics = vec![subscription("a"), subscription("b")];
        let mut clock = woken_by(Wake::Terminated);
        let mut listen = |part: &Part| {
            sent.push(part.clone());
            true
        };
        let alarm = &mut None;
        stream(&store, &mut clock, alarm, topics, terms(), &mut listen, &mut no_report).unwrap();
        assert_eq!(sent, [Part::Begin(Vec::new())]);
    }

    #[test]
    fn a_stream_tells_of_a_hanging_publisher_once() {
        let mut clock = FakeClock::default();
        let sent = parts(&script(&[at_work(at(900))]), &mut clock, Since::Cursor(at(900)), 99);
        let told = sent.iter().filter(|part| matches!(part, Part::News(_)));
        assert_eq!(told.count(), 1, "{sent:?}");
    }
}

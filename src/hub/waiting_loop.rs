//! The waiting loop of polls and streams: arm the watch, read, sleep.

use std::time::Duration;

use super::waiter::{Found, Next, Waiter};
use crate::error::Error;
use crate::process::clock::{Clock, Wake};
use crate::store::{Store, Watch};

/// The state that all waiters of a process share.
pub struct Shared<'a> {
    store: &'a dyn Store,
    clock: &'a mut dyn Clock,
    report: &'a mut dyn FnMut(&Error),
    watch: Option<Box<dyn Watch>>,
}

impl<'a> Shared<'a> {
    /// No watch is made yet: many an answer is known at once. A topic that cannot
    /// be read is told to `report`.
    pub fn new(
        store: &'a dyn Store,
        clock: &'a mut dyn Clock,
        report: &'a mut dyn FnMut(&Error),
    ) -> Self {
        Self { store, clock, report, watch: None }
    }

    /// The watch, to be dropped after the answer is written: the kernel takes some
    /// 7 ms to remove an inotify instance.
    #[must_use]
    pub fn into_watch(self) -> Option<Box<dyn Watch>> {
        self.watch
    }

    /// Serves a waiter until its end. Returns the answer of a poll, which is still
    /// to be written; it is empty after a stream and for a client that has gone.
    ///
    /// # Errors
    /// The store's, and 401 when the token expires before a piece is delivered.
    pub fn wait(&mut self, waiter: &mut Waiter) -> Result<Vec<u8>, Error> {
        let mut until = waiter.first_timeout();
        loop {
            let found = self.find(waiter, until)?;
            match waiter.deliver(found, self.clock)? {
                Next::End(answer) => return Ok(answer),
                Next::Continue if self.is_over(waiter) => return Ok(Vec::new()),
                Next::Continue => {}
            }
            until = waiter.next_timeout(self.clock.elapsed());
        }
    }

    /// Whether the time is over, or SIGTERM or the client ended it: a stream that
    /// always has updates never sleeps.
    fn is_over(&mut self, waiter: &Waiter) -> bool {
        let wake = self.clock.sleep(None, Duration::ZERO);
        let is_ended = matches!(wake, Wake::Terminated | Wake::ClientGone);
        is_ended || self.clock.elapsed() >= waiter.timeout
    }

    /// Waits for updates: arm, read, sleep.
    ///
    /// The watch is armed before the read, so an event between the read and the
    /// sleep ends the sleep. A wake-up is only a hint: the store is read after
    /// each, and at every interval without any. There is no watch before the
    /// first read.
    fn find(&mut self, waiter: &mut Waiter, until: Duration) -> Result<Found, Error> {
        let mut is_woken = false;
        loop {
            if let Some(watch) = &mut self.watch {
                watch.arm();
            }
            waiter.read(self.store, self.clock.elapsed(), self.report)?;
            let (topics, is_settled) = (&waiter.subscriptions, waiter.subscriptions.is_settled());
            if is_settled && topics.has_updates() {
                return Ok(Found::Updates);
            }
            if is_settled && self.clock.elapsed() >= until {
                return Ok(Found::Nothing);
            }
            if self.watch.is_none() && waiter.timeout > Duration::ZERO {
                self.watch = Some(self.store.watch(&topics.topics())?);
                continue;
            }
            if let Some(watch) = self.watch.as_mut().filter(|_| is_woken && is_settled) {
                watch.report_false_wakeup();
            }
            let wake = self.sleep(waiter, until);
            is_woken = wake == Wake::Changed;
            match wake {
                Wake::ClientGone => return Ok(Found::ClientGone),
                Wake::Terminated if waiter.subscriptions.has_updates() => {
                    return Ok(Found::Updates);
                }
                Wake::Terminated => return Ok(Found::Terminated),
                Wake::Due | Wake::Changed => {}
            }
        }
    }

    /// Sleeps until the next read, and ignores the watch while that is to rest. A
    /// change during the rest ends the sleep afterwards.
    fn sleep(&mut self, waiter: &Waiter, until: Duration) -> Wake {
        let rest = self.watch.as_ref().map_or(Duration::ZERO, |watch| watch.cooldown());
        if !rest.is_zero() {
            let wake = self.clock.sleep(None, until.min(self.clock.elapsed() + rest));
            if wake != Wake::Due {
                return wake;
            }
        }
        loop {
            let wake = self.sleep_watching(waiter, until);
            let watch = self.watch.as_mut().filter(|_| wake == Wake::Changed);
            if watch.is_none_or(|watch| watch.concerns_us()) {
                return wake;
            }
        }
    }

    fn sleep_watching(&mut self, waiter: &Waiter, until: Duration) -> Wake {
        let now = self.clock.elapsed();
        let pause = self.watch.as_ref().map_or(Duration::MAX, |watch| watch.poll_interval());
        let next_read = waiter.subscriptions.next_read(now, until, waiter.interval);
        let next_read = next_read.min(now.saturating_add(pause));
        let within = next_read.saturating_sub(now);
        let fd = self.watch.as_mut().and_then(|watch| watch.fd(within));
        self.clock.sleep(fd, next_read)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::fs::File;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::rc::Rc;

    use super::*;
    use crate::auth::grant::Grant;
    use crate::cgi::Head;
    use crate::event::{Cursor, Message, Since, Topic};
    use crate::hub::subscription::Subscription;
    use crate::hub::subscriptions::{UNSETTLED_LIMIT, UNSETTLED_PAUSE};
    use crate::hub::update::{Piece, Update};
    use crate::hub::waiter::{Renderer, Until, Wanted};
    use crate::process::output::Output;
    use crate::store::{Budget, Reading, Readings};

    const SECOND: Duration = Duration::from_secs(1);
    const TIMEOUT: Duration = Duration::from_secs(40);

    /// A store whose readings are fixed beforehand. The last one is repeated.
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

    fn run(store: &Script, clock: &mut FakeClock, since: Since) -> Piece {
        let subscriptions = vec![Subscription { topic: topic(), since }];
        pieces_of(store, clock, Until::FirstUpdate, subscriptions, 1).pop().unwrap()
    }

    /// Keeps the pieces, until it has `enough`.
    struct Recorder {
        pieces: Rc<RefCell<Vec<Piece>>>,
        enough: usize,
    }

    impl Renderer for Recorder {
        fn head(&self) -> Head {
            Head::new(200, "text/plain")
        }

        fn render(&mut self, piece: &Piece) -> Vec<u8> {
            self.pieces.borrow_mut().push(piece.clone());
            Vec::new()
        }

        fn size(&self, _: &Topic, _: &Message) -> usize {
            0
        }

        fn is_done(&self) -> bool {
            self.pieces.borrow().len() >= self.enough
        }
    }

    fn pieces_of(
        store: &Script,
        clock: &mut FakeClock,
        until: Until,
        subscriptions: Vec<Subscription>,
        enough: usize,
    ) -> Vec<Piece> {
        let pieces = Rc::default();
        let wanted = Wanted {
            subscriptions,
            until,
            timeout: TIMEOUT,
            interval: 2 * SECOND,
            retry_after: None,
            grant: Grant::to_subscribe(),
            renderer: Box::new(Recorder { pieces: Rc::clone(&pieces), enough }),
            slot: None,
        };
        let null: &'static File =
            Box::leak(Box::new(File::options().write(true).open("/dev/null").unwrap()));
        let mut output = Output::new(null.as_fd());
        let mut waiter = Waiter::new(wanted, &mut output, clock.wall());
        Shared::new(store, clock, &mut no_report).wait(&mut waiter).unwrap();
        pieces.take()
    }

    fn run_script(readings: &[Reading], since: Since) -> Piece {
        run(&script(readings), &mut FakeClock::default(), since)
    }

    fn updates(cursor: Cursor) -> Piece {
        Piece::Updates(vec![Update { topic: topic(), cursor, messages: vec![], gap: false }])
    }

    fn timeout(cursor: Cursor) -> Piece {
        Piece::Timeout(vec![(topic(), cursor)])
    }

    fn start(cursors: Vec<(Topic, Cursor)>) -> Piece {
        Piece::Start { cursors, retry_after: None }
    }

    #[test]
    fn store_is_read_after_watch_is_armed() {
        let old = settled(at(900));
        let store = script(&[old.clone(), old.clone(), old, settled(at(2000))]);
        run(&store, &mut FakeClock::default(), Since::Cursor(at(900)));
        assert_eq!(*store.said.borrow(), ["read", "arm", "read", "arm", "read", "arm", "read"]);
    }

    #[test]
    fn immediate_news_creates_no_watch() {
        let store = script(&[settled(at(900))]);
        run(&store, &mut FakeClock::default(), Since::Cursor(at(1)));
        assert_eq!(*store.said.borrow(), ["read"]);
    }

    #[test]
    fn store_is_read_after_each_sleep() {
        let store = script(&[settled(at(900))]);
        let mut clock = FakeClock::default();
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), timeout(at(900)));
        assert_eq!(clock.sleeps, [2 * SECOND; 20]);
        assert_eq!(store.said.borrow().len(), 1 + 2 * 21);
    }

    #[test]
    fn event_at_the_last_moment_is_delivered() {
        let mut readings = vec![settled(at(900)); 21];
        readings.push(settled(at(1040)));
        assert_eq!(run_script(&readings, Since::Now), updates(at(1040)));
    }

    #[test]
    fn future_now_is_resolved_once() {
        let readings = [settled(at(5000)), settled(at(5000)), settled(at(5001))];
        for since in [Since::Now, Since::Second(1000), Since::Second(9999)] {
            assert_eq!(run_script(&readings, since), updates(at(5001)));
        }
    }

    #[test]
    fn first_event_with_a_future_time_counts() {
        let readings = [settled(Cursor::SMALLEST), settled(at(3))];
        assert_eq!(run_script(&readings, Since::Now), updates(at(3)));
    }

    #[test]
    fn gap_with_an_earlier_cursor_is_news() {
        let gap = Reading { gap: true, ..settled(at(800)) };
        let expected = Update { topic: topic(), cursor: at(800), messages: Vec::new(), gap: true };
        let outcome = run_script(&[settled(at(900)), gap], Since::Cursor(at(900)));
        assert_eq!(outcome, Piece::Updates(vec![expected]));
    }

    #[test]
    fn earliest_without_messages_waits() {
        let message = Message::new(at(950), "x");
        let found = Reading { messages: vec![message.clone()], ..settled(at(950)) };
        for since in [Since::Earliest, Since::Cursor(at(900))] {
            match run_script(&[settled(at(900)), found.clone()], since) {
                Piece::Updates(all) => {
                    assert_eq!(all[0].messages, std::slice::from_ref(&message));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(run_script(&[settled(at(900))], Since::Earliest), timeout(at(900)));
    }

    #[test]
    fn running_publisher_is_polled_every_millisecond() {
        let mut clock = FakeClock::default();
        let store = script(&[vec![at_work(at(900)); 3].as_slice(), &[settled(at(950))]].concat());
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), updates(at(950)));
        assert_eq!(clock.sleeps, [UNSETTLED_PAUSE; 2]);
        let store = script(&[vec![at_work(at(900)); 5].as_slice(), &[settled(at(950))]].concat());
        clock.sleeps.clear();
        run(&store, &mut clock, Since::Cursor(at(900)));
        assert_eq!(clock.sleeps, [1, 1, 2, 4].map(Duration::from_millis));
    }

    #[test]
    fn hanging_publisher_holds_readers_only_briefly() {
        let mut clock = FakeClock::default();
        let store = script(&[at_work(at(900))]);
        // The time may yet be replaced: the cursor stays.
        assert_eq!(run(&store, &mut clock, Since::Cursor(at(900))), updates(at(900)));
        assert!(clock.time == UNSETTLED_LIMIT);
    }

    #[test]
    fn sigterm_answers_with_settled_cursors() {
        let end = |reading| run(&script(&[reading]), &mut woken_by(Wake::Terminated), Since::Now);
        assert_eq!(end(settled(at(900))), timeout(at(900)));
        assert_eq!(end(at_work(at(900))), Piece::Timeout(vec![]));
    }

    #[test]
    fn disconnected_client_gets_nothing() {
        let mut clock = woken_by(Wake::ClientGone);
        let subscriptions = vec![Subscription { topic: topic(), since: Since::Now }];
        let store = script(&[settled(at(900))]);
        assert_eq!(pieces_of(&store, &mut clock, Until::FirstUpdate, subscriptions, 1), []);
    }

    /// The pieces of a stream, until it ends or there are `enough`.
    fn stream(store: &Script, clock: &mut FakeClock, since: Since, enough: usize) -> Vec<Piece> {
        let subscriptions = vec![Subscription { topic: topic(), since }];
        pieces_of(store, clock, Until::Deadline, subscriptions, enough)
    }

    #[test]
    fn stream_starts_with_cursors_and_continues() {
        let readings = [settled(at(900)), settled(at(950)), settled(at(950)), settled(at(960))];
        let sent = stream(&script(&readings), &mut FakeClock::default(), Since::Now, 3);
        let begin = start(vec![(topic(), at(900))]);
        assert_eq!(sent, [begin, updates(at(950)), updates(at(960))]);
    }

    #[test]
    fn stream_sends_heartbeats_until_its_end() {
        let mut clock = FakeClock::default();
        let sent = stream(&script(&[settled(at(900))]), &mut clock, Since::Now, 99);
        assert_eq!(sent[1..], [Piece::Heartbeat, Piece::Heartbeat, Piece::Heartbeat]);
        assert_eq!(clock.time, TIMEOUT);
    }

    #[test]
    fn busy_stream_ends_on_sigterm() {
        let busy = Reading { gap: true, ..settled(at(900)) };
        let mut clock = woken_by(Wake::Terminated);
        assert_eq!(stream(&script(&[busy]), &mut clock, Since::Cursor(at(1)), 99).len(), 2);
    }

    /// A client that returns with fewer cursors than topics gets 400, after which an
    /// `EventSource` never reconnects.
    #[test]
    fn stream_ended_at_start_has_no_cursors() {
        let mut clock = woken_by(Wake::Terminated);
        let sent = stream(&script(&[at_work(at(900))]), &mut clock, Since::Now, 99);
        assert_eq!(sent, [start(Vec::new())]);
        let subscription =
            |name: &str| Subscription { topic: Topic::new(name).unwrap(), since: Since::Now };
        let news = Reading { gap: true, ..settled(at(950)) };
        let store = script(&[at_work(at(900)), news]);
        let topics = vec![subscription("a"), subscription("b")];
        let mut clock = woken_by(Wake::Terminated);
        let sent = pieces_of(&store, &mut clock, Until::Deadline, topics, 99);
        assert_eq!(sent, [start(Vec::new())]);
    }

    #[test]
    fn stream_reports_a_hanging_publisher_once() {
        let mut clock = FakeClock::default();
        let sent = stream(&script(&[at_work(at(900))]), &mut clock, Since::Cursor(at(900)), 99);
        let told = sent.iter().filter(|part| matches!(part, Piece::Updates(_)));
        assert_eq!(told.count(), 1, "{sent:?}");
    }
}

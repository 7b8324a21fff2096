//! The contract of every store, independent of its kind.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use std::{fs, slice};

use novcomet::event::{Cursor, Message, Since, Topic};
use novcomet::store::{self, Budget, Changes, Limits, Reading, Retention, Store, Watch};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::store::{Backend, KEEP_ALL, Kind, POLL, over_every_store};

pub(super) const WHOLE: usize = 1 << 30;
const HOUR: Duration = Duration::from_secs(3600);

over_every_store! {
    cursor_is_that_of_last_event
    messages_are_replayed_unchanged_in_order
    bounded_reading_is_continued_by_next
    dropped_messages_are_reported_as_gap
    latest_is_newest_message_and_never_gap
    event_without_message_drops_no_message
    cursor_of_a_deleted_topic_is_gap
    cursor_ahead_of_topic_is_gap
    lost_topic_delivers_no_message
    compaction_loses_and_doubles_nothing
    concurrent_events_have_different_cursors
    topics_are_independent
    many_topics_are_read_at_once
    shared_budget_starves_no_topic
    watch_misses_no_event
    each_of_many_topics_wakes
    event_is_reported_though_another_has_read_it
    store_answers_while_a_watch_waits_and_after_its_end
    reading_and_watching_write_nothing
}

pub(super) fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

pub(super) fn publish(store: &dyn Store, data: &str) -> Cursor {
    store.publish(&topic("a"), Some(data)).unwrap()
}

/// Another test may be starting a program. Between fork and exec, the child holds the locks of
/// all tests, so the read is repeated.
pub(super) fn read(store: &dyn Store, since: Since) -> Reading {
    loop {
        let reading = store.read(&topic("a"), since, WHOLE).unwrap();
        if reading.pending.is_none() {
            return reading;
        }
        thread::yield_now();
    }
}

fn look(store: &dyn Store, wanted: &[(&Topic, Since)], bytes: usize) -> Vec<Option<Reading>> {
    let mut budget = Budget::new(bytes, &|_, message| message.data.len());
    let found = store.look(wanted, &mut budget).unwrap();
    found.into_iter().map(|reading| reading.transpose().unwrap()).collect()
}

fn texts(reading: &Reading) -> Vec<&str> {
    reading.messages.iter().map(|message| message.data.as_str()).collect()
}

fn cursor_is_that_of_last_event(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    assert_eq!(read(store.as_ref(), Since::Now), Reading::quiet(Cursor::SMALLEST));
    let mut last = Cursor::SMALLEST;
    for number in 0..100 {
        let data = (number % 3 == 0).then_some("x");
        let cursor = store.publish(&topic("a"), data).unwrap();
        assert!(cursor > last);
        assert_eq!(read(store.as_ref(), Since::Now), Reading::quiet(cursor));
        last = cursor;
    }
}

fn messages_are_replayed_unchanged_in_order(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let long = "0123456789".repeat(6_553);
    let sent = [
        "one",
        "",
        "two\nlines\r\n",
        "\0\u{1f}\"\\",
        "é\u{2028}\u{10ffff}\r\nEND\r\n",
        &long,
        "end",
    ];
    let ids: Vec<_> = sent.iter().map(|data| publish(store.as_ref(), data)).collect();
    for from in 0..sent.len() {
        let reading = read(store.as_ref(), Since::Cursor(ids[from]));
        assert_eq!(texts(&reading), sent[from + 1..]);
        assert_eq!((reading.standing, reading.gap), (ids[6], false));
    }
    for since in [Since::Earliest, Since::Cursor(Cursor::SMALLEST), Since::Second(1)] {
        let reading = read(store.as_ref(), since);
        assert!(!reading.gap && reading.messages.iter().map(|message| message.id).eq(ids.clone()));
    }
}

fn bounded_reading_is_continued_by_next(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    for number in 0..100 {
        publish(store.as_ref(), &number.to_string().repeat(100));
    }
    let (mut since, mut found, mut parts) = (Since::Earliest, Vec::new(), 0);
    loop {
        let reading = store.read(&topic("a"), since, 1000).unwrap();
        assert!(!reading.gap);
        if reading.messages.is_empty() {
            break;
        }
        let size: usize = reading.messages.iter().map(|message| message.data.len()).sum();
        assert!(size <= 1000);
        assert_eq!(reading.messages.last().map(|last| last.id), Some(reading.standing));
        since = Since::Cursor(reading.standing);
        found.extend(reading.messages.into_iter().map(|message| message.data));
        parts += 1;
    }
    assert!(found.len() == 100 && parts > 10);
    assert!((0..100).all(|number| found[number] == number.to_string().repeat(100)));
    assert_eq!(store.read(&topic("a"), Since::Earliest, 0).unwrap().messages.len(), 1);
}

/// A message counts as its line in the file store: 42 bytes and its data.
fn dropped_messages_are_reported_as_gap(kind: Kind) {
    for (kept, retention) in [
        (10, Retention { messages: 10, ..KEEP_ALL }),
        (5, Retention { bytes: 5 * 142, ..KEEP_ALL }),
        (1, Retention { bytes: 1, ..KEEP_ALL }),
        (1, Retention { age: Duration::from_nanos(1), ..KEEP_ALL }),
    ] {
        let backend = Backend::start(kind);
        let store = backend.keeping(retention);
        let ids: Vec<_> = (0..200).map(|_| publish(store.as_ref(), &"x".repeat(100))).collect();
        let first = 200 - kept;
        let expect = |since, gap| {
            let reading = read(store.as_ref(), since);
            let found = (reading.messages.len(), reading.gap);
            assert_eq!(found, (kept, gap), "{retention:?} {since:?}");
            assert_eq!(reading.messages[0].id, ids[first]);
        };
        expect(Since::Cursor(ids[first - 1]), false);
        expect(Since::Cursor(ids[first - 2]), true);
        expect(Since::Cursor(ids[0]), true);
        expect(Since::Cursor(Cursor::SMALLEST), true);
        expect(Since::Earliest, false);
        if kind == Kind::File {
            let size = fs::metadata(backend.directory().join("a.comet")).unwrap().len();
            assert!(size <= 2 * retention.bytes.max(142) + 200, "{size}");
        }
    }
}

fn latest_is_newest_message_and_never_gap(kind: Kind) {
    for age in [KEEP_ALL.age, Duration::from_nanos(1)] {
        expect_latest(&Backend::start(kind), Retention { age, ..KEEP_ALL });
    }
}

fn expect_latest(backend: &Backend, retention: Retention) {
    let store = backend.keeping(retention);
    let expect = |expected: Reading| assert_eq!(read(store.as_ref(), Since::Latest), expected);
    expect(Reading::quiet(Cursor::SMALLEST));
    let event = store.publish(&topic("a"), None).unwrap();
    expect(Reading::quiet(event));
    for data in ["one", "two", &"x".repeat(65_536)] {
        let id = publish(store.as_ref(), data);
        let newest = Reading { messages: vec![Message::new(id, data)], ..Reading::quiet(id) };
        expect(newest.clone());
        let standing = store.publish(&topic("a"), None).unwrap();
        expect(Reading { standing, ..newest });
    }
    backend.lose_everything();
    expect(Reading::quiet(Cursor::SMALLEST));
}

/// `publish=ID` without a message, as in 2011, between messages.
fn event_without_message_drops_no_message(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.keeping(Retention { messages: 5, ..KEEP_ALL });
    let ids = ["one", "two", "three"].map(|data| publish(store.as_ref(), data));
    let last = (0..4).map(|_| store.publish(&topic("a"), None).unwrap()).last().unwrap();
    let reading = read(store.as_ref(), Since::Cursor(ids[0]));
    assert_eq!((texts(&reading), reading.gap), (vec!["two", "three"], false));
    assert_eq!(reading.standing, last);
    assert_eq!(read(store.as_ref(), Since::Cursor(last)), Reading::quiet(last));
}

fn cursor_of_a_deleted_topic_is_gap(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let ids = [publish(store.as_ref(), "one"), publish(store.as_ref(), "two")];
    backend.lose_everything();
    publish(store.as_ref(), "three");
    for id in ids {
        let reading = read(store.as_ref(), Since::Cursor(id));
        assert_eq!((texts(&reading), reading.gap), (vec!["three"], true));
    }
    let reading = read(store.as_ref(), Since::Cursor(Cursor::SMALLEST));
    assert_eq!((texts(&reading), reading.gap), (vec!["three"], false));
}

fn cursor_ahead_of_topic_is_gap(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let one = publish(store.as_ref(), "one");
    for ahead in [one.after(HOUR), Cursor::from_micros(u64::MAX)] {
        let reading = read(store.as_ref(), Since::Cursor(ahead));
        assert_eq!((texts(&reading), reading.gap), (vec!["one"], true));
        assert_eq!(reading.standing, one);
    }
}

/// A removed file is the decision of its owner, so it is no gap. In a server's memory, a topic
/// can only get lost.
fn lost_topic_delivers_no_message(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let id = publish(store.as_ref(), "one");
    backend.lose_everything();
    let expected = match kind {
        Kind::File => Reading::quiet(id),
        _ => Reading { gap: true, ..Reading::quiet(Cursor::SMALLEST) },
    };
    assert_eq!(read(store.as_ref(), Since::Cursor(id)), expected);
    for since in [Since::Now, Since::Earliest, Since::Cursor(Cursor::SMALLEST)] {
        assert_eq!(read(store.as_ref(), since), Reading::quiet(Cursor::SMALLEST));
    }
}

/// Tells the other threads of a test that this one has failed: they would wait for it.
struct TellOnPanic<'a>(&'a AtomicBool);

impl TellOnPanic<'_> {
    fn check_others(&self) {
        assert!(!self.0.load(Ordering::Relaxed), "another thread has failed");
    }
}

impl Drop for TellOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Publishers and constantly reading subscribers. Every subscriber reads all messages once and
/// in order, also over dozens of compactions. The publishers stay within the number of messages
/// that are kept.
fn compaction_loses_and_doubles_nothing(kind: Kind) {
    const AHEAD: usize = 50;
    let each = if kind == Kind::File { 2_000 } else { 500 };
    let backend = Backend::start(kind);
    let keep = Retention { messages: 100_000, bytes: 10_000, ..KEEP_ALL };
    let read = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let failed = AtomicBool::new(false);
    let publisher = |name: usize| {
        let failed = TellOnPanic(&failed);
        let store = backend.keeping(keep);
        for number in 0..each {
            let slowest = || read.iter().map(|read| read.load(Ordering::Relaxed)).min();
            while slowest().unwrap() + AHEAD < 4 * number {
                failed.check_others();
                thread::yield_now();
            }
            publish(store.as_ref(), &format!("{name} {number}"));
        }
    };
    let subscriber = |read: &AtomicUsize| {
        let failed = TellOnPanic(&failed);
        let store = backend.keeping(keep);
        let (mut at, mut next) = (Cursor::SMALLEST, [0; 4]);
        while next.iter().sum::<usize>() < 4 * each {
            failed.check_others();
            let reading = store.read(&topic("a"), Since::Cursor(at), 2_000).unwrap();
            assert!(!reading.gap, "after {at}: {reading:?}");
            for Message { id, data, .. } in reading.messages {
                let (name, number) = data.split_once(' ').unwrap();
                let name: usize = name.parse().unwrap();
                assert!(id > at, "{id} after {at}");
                assert_eq!(number.parse(), Ok(next[name]));
                at = id;
                next[name] += 1;
            }
            at = reading.standing;
            read.store(next.iter().sum(), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let subscribers = read.each_ref().map(|read| scope.spawn(move || subscriber(read)));
        let publishers = [0, 1, 2, 3].map(|name| scope.spawn(move || publisher(name)));
        for thread in publishers.into_iter().chain(subscribers) {
            thread.join().unwrap();
        }
    });
}

fn concurrent_events_have_different_cursors(kind: Kind) {
    let backend = Backend::start(kind);
    let thousand = || {
        let store = backend.open();
        (0..1000).map(|_| store.publish(&topic("a"), None).unwrap()).collect::<Vec<_>>()
    };
    let cursors: Vec<Cursor> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(thousand)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(cursors.len(), 4000);
    assert_eq!(cursors.iter().collect::<HashSet<_>>().len(), 4000);
    assert!(cursors.chunks(1000).all(<[Cursor]>::is_sorted));
    assert!(cursors.iter().all(|cursor| cursor.micros() % 1_000_000 != 0));
}

/// Names with a meaning for a file system, Redis or memcached.
fn topics_are_independent(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let long = "é".repeat(100);
    let names = ["a", "a/b", "a%2Fb", "..", "é", "__proto__", "a][b", " ", "A", "a b", "a noreply"];
    let names = [&names[..], &["{a}", "{a}b", "$6", "*", "-", "a:1", "'\"", &long]].concat();
    for name in &names {
        assert_eq!(store.read(&topic(name), Since::Now, WHOLE).unwrap().standing, Cursor::SMALLEST);
        store.publish(&topic(name), Some(name)).unwrap();
    }
    for name in &names {
        let reading = store.read(&topic(name), Since::Earliest, WHOLE).unwrap();
        assert_eq!(texts(&reading), [*name]);
    }
}

fn many_topics_are_read_at_once(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let topics: Vec<_> = (0..64).map(|number| topic(&format!("t{number}"))).collect();
    for topic in topics.iter().step_by(2) {
        store.publish(topic, Some(topic.as_str())).unwrap();
    }
    let wanted: Vec<_> = topics.iter().map(|topic| (topic, Since::Earliest)).collect();
    for _ in 0..2 {
        let found = look(store.as_ref(), &wanted, WHOLE);
        assert_eq!(found.len(), 64);
        for (number, reading) in found.iter().flatten().enumerate() {
            let expected = format!("t{number}");
            assert_eq!(texts(reading), vec![expected.as_str(); (number + 1) % 2]);
        }
    }
}

/// Like the hub, serves the topic whose cursor is oldest first.
fn shared_budget_starves_no_topic(kind: Kind) {
    const EACH: usize = 5;
    let backend = Backend::start(kind);
    let store = backend.open();
    let topics: Vec<_> = (0..64).map(|number| topic(&format!("t{number}"))).collect();
    for (_, topic) in (0..EACH).flat_map(|_| topics.iter().enumerate()) {
        store.publish(topic, Some(&"x".repeat(300))).unwrap();
    }
    let mut readers: Vec<_> = topics.iter().map(|topic| (topic, Since::Earliest)).collect();
    let mut found: HashMap<&Topic, Vec<Cursor>> = HashMap::new();
    let mut looks = 0;
    while found.values().map(Vec::len).sum::<usize>() < 64 * EACH {
        readers.sort_by_key(|(_, since)| since.cursor());
        let readings = look(store.as_ref(), &readers, 2_000);
        let messages = readings.iter().flatten().flat_map(|reading| &reading.messages);
        let size: usize = messages.map(|message| message.data.len()).sum();
        assert!((1..=2_000).contains(&size), "{size}");
        for ((topic, since), reading) in readers.iter_mut().zip(readings) {
            let Some(reading) = reading else { continue };
            assert!(!reading.gap);
            *since = Since::Cursor(reading.standing);
            found.entry(topic).or_default().extend(reading.messages.iter().map(|one| one.id));
        }
        looks += 1;
    }
    assert!(looks >= 64 * EACH * 300 / 2_000);
    assert!(found.len() == 64 && found.values().all(|ids| ids.is_sorted() && ids.len() == EACH));
}

/// Like the hub: arms the watch, reads, sleeps. A missed wake-up fails here after half a
/// minute.
struct Reader<'a> {
    store: &'a dyn Store,
    watch: Box<dyn Watch>,
    topics: Vec<(Topic, Cursor)>,
}

impl<'a> Reader<'a> {
    fn new(store: &'a dyn Store, names: &[String]) -> Self {
        let topics: Vec<_> = names.iter().map(|name| (topic(name), Cursor::SMALLEST)).collect();
        Self { store, watch: store.watch(), topics }
    }

    /// The new messages, each with the number of its topic.
    fn next(&mut self) -> Vec<(usize, Message)> {
        loop {
            self.watch.arm(&self.topics.iter().map(|(topic, _)| topic).collect::<Vec<_>>());
            let found = self.look();
            if !found.is_empty() {
                return found;
            }
            self.sleep();
        }
    }

    fn look(&mut self) -> Vec<(usize, Message)> {
        let since = |(topic, at)| (topic, Since::Cursor(at));
        let wanted: Vec<_> = self.topics.iter().map(|(topic, at)| since((topic, *at))).collect();
        let readings = look(self.store, &wanted, WHOLE);
        let mut found = Vec::new();
        for (number, reading) in readings.into_iter().enumerate() {
            let Some(reading) = reading else { continue };
            assert!(!reading.gap);
            self.topics[number].1 = reading.standing;
            found.extend(reading.messages.into_iter().map(|message| (number, message)));
        }
        found
    }

    fn sleep(&mut self) {
        let patience = Duration::from_secs(30);
        let pause = self.watch.poll_interval().min(patience);
        let Some(fd) = self.watch.fd(patience) else {
            assert!(pause <= POLL, "nothing would wake it for {pause:?}");
            return thread::sleep(pause);
        };
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let woken = poll(&mut fds, Some(&Timespec::try_from(patience).unwrap())).unwrap();
        assert!(woken == 1 || pause < patience, "nothing woke it");
    }
}

fn watch_misses_no_event(kind: Kind) {
    const EVENTS: usize = 300;
    let backend = Backend::start(kind);
    let store = backend.open();
    let publisher = || {
        let store = backend.open();
        for number in 0..EVENTS {
            publish(store.as_ref(), &number.to_string());
            thread::sleep(Duration::from_micros(number as u64 * 7919 % 1000));
        }
    };
    thread::scope(|scope| {
        scope.spawn(publisher);
        let mut reader = Reader::new(store.as_ref(), &["b".into(), "a".into()]);
        let mut seen = 0;
        while seen < EVENTS {
            for (topic, message) in reader.next() {
                assert_eq!((topic, message.data), (1, seen.to_string()));
                seen += 1;
            }
        }
    });
}

fn each_of_many_topics_wakes(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let names: Vec<_> = (0..64).map(|number| format!("t{number}")).collect();
    let mut reader = Reader::new(store.as_ref(), &names);
    for number in [0, 63, 31, 63] {
        thread::scope(|scope| {
            scope.spawn(|| {
                let other = backend.open();
                other.publish(&topic(&names[number]), Some("x")).unwrap();
            });
            let found = reader.next();
            assert!(found.len() == 1 && found[0].0 == number, "{found:?}");
        });
    }
}

/// Subscribers that wait in one process share a watch. It is armed, and the store is read, for one
/// of them just when an event happens. The others are to be told of it.
fn event_is_reported_though_another_has_read_it(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let first = publish(store.as_ref(), "first");
    let mut watch = store.watch();
    let wanted = topic("a");
    watch.arm(&[&wanted]);
    read(store.as_ref(), Since::Cursor(first));
    let Some(_) = watch.fd(HOUR) else { return assert_eq!(watch.poll_interval(), POLL) };
    for data in ["second", "third"] {
        let last = publish(backend.open().as_ref(), data);
        watch.arm(&[&wanted]);
        assert_eq!(read(store.as_ref(), Since::Cursor(first)).standing, last);
        let fd = watch.fd(HOUR).unwrap();
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        let patience = Timespec::try_from(Duration::from_secs(30)).unwrap();
        assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "nothing woke it");
        match watch.changes() {
            Changes::Of(topics) => assert_eq!(topics, slice::from_ref(&wanted)),
            other => assert_eq!(other, Changes::Any),
        }
        // It was no news to those who have read it, and it is no noise.
        watch.report_false_wakeup();
        assert_eq!(watch.poll_interval(), Duration::MAX);
        watch.arm(&[&wanted]);
        read(store.as_ref(), Since::Cursor(last));
        watch.fd(HOUR);
    }
}

/// A subscriber that waited alone joins others, and leads them later, with another watch.
fn store_answers_while_a_watch_waits_and_after_its_end(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let mut last = publish(store.as_ref(), "first");
    let mut watch = store.watch();
    for wait in [HOUR, Duration::from_millis(1)] {
        watch.arm(&[&topic("a")]);
        read(store.as_ref(), Since::Cursor(last));
        watch.fd(wait);
        let cursor = publish(store.as_ref(), "while it waits");
        assert_eq!(texts(&read(store.as_ref(), Since::Cursor(last))), ["while it waits"]);
        watch.changes();
        watch.arm(&[&topic("a")]);
        read(store.as_ref(), Since::Cursor(cursor));
        watch.fd(wait);
        watch = store.watch();
        last = publish(store.as_ref(), "after its end");
        assert_eq!(texts(&read(store.as_ref(), Since::Cursor(cursor))), ["after its end"]);
    }
}

fn reading_and_watching_write_nothing(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    store.read(&topic("a"), Since::Earliest, WHOLE).unwrap();
    let mut watch = store.watch();
    watch.arm(&[&topic("a")]);
    store.read(&topic("a"), Since::Earliest, WHOLE).unwrap();
    watch.fd(HOUR);
    assert!(backend.is_untouched());
}

#[test]
fn unknown_store_url_is_refused() {
    for url in [
        "",
        "/dev/shm",
        "bogus://x",
        "file://host/dir",
        "http://localhost/",
        "file:///nowhere",
        "redis:",
        "redis://",
        "redis://h:99999/0",
        "redis://h/x",
        "redis://h/0/1",
        "redis://h/-1",
        "redis://h/0?prefx=a",
        "unix:",
        "unix://host/path",
        "unix:///path?db=x",
        "memcached:",
        "memcached://",
        "memcached://h:0",
        "memcached://h:99999",
        "memcached://h:1,,h:2",
        "memcached://h/path",
        "memcached://user:secret@h:1",
        "memcached://h?prefix=a%20b",
    ] {
        let error = store::open::locate(url)
            .and_then(|store| store.open(KEEP_ALL, Limits::NONE, POLL))
            .err()
            .map(|error| error.status());
        assert_eq!(error, Some(503), "{url}");
    }
}

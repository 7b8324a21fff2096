//! The real binary waits: events that wake it, causes that end it, and no lost event.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use filetime::FileTime;
use rustix::fs::{FlockOperation, fcntl_lock, inotify};

use crate::support::binary::{SECOND, Store};
use crate::support::dir::{touch, touch_by_shell};
use crate::support::turn::INOTIFY;

#[test]
fn every_way_to_publish_wakes_waiters() {
    let ways: [fn(&Store); 6] = [
        |store| assert_eq!(store.query("publish=a").answer().body, "true"),
        |store| touch(&store.file("a")),
        |store| {
            let now = FileTime::now();
            filetime::set_file_mtime(store.file("a"), now).unwrap();
        },
        |store| fs::write(store.file("a"), "x").unwrap(),
        |store| {
            touch(&store.file("new"));
            fs::rename(store.file("new"), store.file("a")).unwrap();
        },
        |store| {
            fs::remove_file(store.file("a")).unwrap();
            touch(&store.file("a"));
        },
    ];
    for (number, way) in ways.iter().enumerate() {
        let store = Store::new().with("a", SECOND - 1_000_000_000, 0).with("b", SECOND, 0);
        let waiter = store.query("subscribed[b]=0&subscribed[a]=0").waiting();
        way(&store);
        assert_eq!(waiter.answer().cursor("a").0, '1', "way {number}");
    }
}

#[test]
fn new_topic_wakes_its_waiters() {
    for publish in [true, false] {
        let store = Store::new();
        let waiter = store.query("subscribed[a]=0").waiting();
        match publish {
            true => assert_eq!(store.query("publish=a").answer().body, "true"),
            false => touch(&store.file("a")),
        }
        assert_eq!(waiter.answer().cursor("a").0, '1');
    }
}

#[test]
fn replacement_by_an_older_file_wakes() {
    let store = Store::new().with("a", SECOND, 5_000).with("backup", SECOND - 9, 5_000);
    let waiter = store.query("subscribed[a]=1795415403.000005").waiting();
    fs::rename(store.file("backup"), store.file("a")).unwrap();
    let answer = waiter.answer();
    assert_eq!(answer.body, r#"{"s":1,"k":{"a":1795415394.000005},"gap":["a"]}"#);
}

/// Takes inotify instances until the user has none left.
fn hold_all_instances(held: &mut Vec<OwnedFd>) {
    while let Ok(instance) = inotify::init(inotify::CreateFlags::CLOEXEC) {
        held.push(instance);
        assert!(held.len() < 100_000, "no limit on inotify instances");
    }
}

/// Other tests release instances meanwhile, so a waiter may get one. Such rounds do not count.
#[test]
fn dnotify_wakes_when_inotify_is_exhausted() {
    let _turn = INOTIFY.alone();
    let mut held = Vec::new();
    let mut by_dnotify = 0;
    while by_dnotify < 10 {
        hold_all_instances(&mut held);
        let store = Store::new().with("a", SECOND - 1_000_000_000, 0);
        for id in ["a", "b"] {
            let waiter = store.query(&format!("subscribed[{id}]=0")).waiting();
            by_dnotify += u32::from(!waiter.has_inotify());
            touch(&store.file(id));
            assert_eq!(waiter.answer().cursor(id).0, '1');
        }
    }
}

/// Without inotify, every change in the directory wakes the process: 16 times in a row, then
/// four times a second. A signal may split one sleep into two.
#[test]
fn busy_directory_wakes_at_limited_rate() {
    let _turn = INOTIFY.alone();
    let (store, mut held) = (Store::new(), Vec::new());
    let (waiter, begin) = loop {
        hold_all_instances(&mut held);
        let begin = Instant::now();
        let waiter = store.query("subscribed[a]=0").waiting();
        if !waiter.has_inotify() {
            break (waiter, begin);
        }
    };
    for _ in 0..400 {
        touch(&store.file("neighbour"));
        thread::sleep(Duration::from_millis(2));
    }
    let most = 2 * (16 + 2 + begin.elapsed().as_millis() / 250);
    let sleeps = waiter.times_asleep();
    assert!(u128::from(sleeps) <= most, "{sleeps} sleeps, not {most}");
    touch(&store.file("a"));
    assert_eq!(waiter.answer().cursor("a").0, '1');
}

#[test]
fn recreated_directory_is_watched_again() {
    let store = Store::new();
    let call = store.query("subscribed[a]=0").variable("NOVCOMET_SLEEP", "0.1");
    let waiter = call.variable("NOVCOMET_TRIES", "600").waiting();
    fs::remove_dir(&store.0).unwrap();
    thread::sleep(Duration::from_millis(250));
    fs::create_dir(&store.0).unwrap();
    touch(&store.file("a"));
    assert_eq!(waiter.answer().cursor("a").0, '1');
}

#[test]
fn sigterm_answers_with_cursors() {
    let store = Store::new().with("a", SECOND, 5_000);
    let waiter = store.query("subscribed[a]=0&subscribed[b]=0").waiting();
    waiter.signal("TERM");
    let answer = waiter.answer();
    assert!(answer.success && answer.log.is_empty());
    assert_eq!(answer.body, r#"{"s":0,"k":{"a":1795415403.000005,"b":0.100000}}"#);
}

#[test]
fn disconnected_client_ends_wait_silently() {
    let store = Store::new();
    let mut child = store.query("subscribed[a]=0").waiting().take();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert_eq!(log, "");
}

#[test]
fn latest_waits_together_with_others() {
    let store = Store::new();
    store.query("publish=a").answer();
    let ask = |rest: &str| {
        store.query(&format!("subscribed[a]=latest&subscribed[b]=0{rest}")).method("GET").waiting()
    };
    let (leader, standby, member) = (ask("&wait=1"), ask(""), ask(""));
    assert_eq!(leader.answer().cursor("a").0, '0');
    let message = store.query("").form("publish=a&data=x").answer().cursor("a");
    for waiter in [standby, member] {
        let answer = waiter.answer();
        assert!(answer.cursor("a") == message && answer.body.contains(r#""data":"x""#));
    }
    let late = store.query("subscribed[a]=latest&wait=0").answer();
    assert!(late.body.contains(r#""data":"x""#) && !late.body.contains("gap"), "{late:?}");
}

#[test]
fn idle_waiter_makes_no_system_call() {
    let store = Store::new().with("busy", SECOND, 0);
    let waiter = store.query("subscribed[a]=0").waiting();
    let before = waiter.times_asleep();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(waiter.times_asleep(), before);
}

#[test]
fn wait_is_as_requested_up_to_maximum() {
    let store = Store::new();
    let lasting = |query: &str, sleep: &str| {
        let begin = Instant::now();
        let answer = store.query(query).variable("NOVCOMET_SLEEP", sleep).answer();
        assert_eq!(answer.body, r#"{"s":0,"k":{"a":0.100000}}"#);
        begin.elapsed()
    };
    assert!(lasting("subscribed[a]=0&wait=0.2", "3600") >= Duration::from_millis(200));
    assert!(lasting("subscribed[a]=0&wait=9999", "0.2") >= Duration::from_millis(200));
    lasting("subscribed[a]=0&wait=0", "3600");
}

// A running publisher.

/// Holds the lock of a topic's file, as a stopped publisher does.
fn hold_lock(store: &Store, name: &str) -> File {
    let file = File::options().write(true).open(store.file(name)).unwrap();
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    file
}

/// Another process reads the file. If this process closed it, the lock would be released.
fn touch_elsewhere(store: &Store, name: &str) {
    touch_by_shell(&store.file(name));
}

#[test]
fn unsettled_cursor_is_not_delivered() {
    let store = Store::new().with("a", SECOND - 1_000_000_000, 0);
    let lock = hold_lock(&store, "a");
    let mut waiter = store.query("subscribed[a]=0").waiting();
    touch_elsewhere(&store, "a");
    // Below the 2 s for which the program waits for a publisher.
    thread::sleep(Duration::from_millis(300));
    assert!(waiter.0.try_wait().unwrap().is_none(), "it did not wait for the publisher");
    drop(lock);
    assert_eq!(waiter.answer().cursor("a").0, '1');
}

#[test]
fn hanging_publisher_delays_only_publishers() {
    let store = Store::new().with("a", SECOND - 1_000_000_000, 0);
    let _lock = hold_lock(&store, "a");
    let waiter = store.query("subscribed[a]=0").waiting();
    touch_elsewhere(&store, "a");
    assert_eq!(waiter.answer().cursor("a").0, '1');
    store.query("publish=a").answer().assert_problem(503);
    assert_eq!(store.query("publish=b").answer().body, "true");
}

// No event is lost.

/// Two publishers, one by the binary and one by touch, publish thousands of times at random
/// intervals. A subscriber polls in a loop. A lost wake-up would last an hour, and a lost event
/// shows at the end.
#[test]
fn last_of_thousands_of_events_is_delivered() {
    const ROUNDS: u32 = 2_000;
    let store = Store::new();
    thread::scope(|scope| {
        let by_call = scope.spawn(|| {
            fire(ROUNDS, || assert_eq!(store.query("publish=a").answer().body, "true"));
        });
        let by_touch = scope.spawn(|| fire(ROUNDS, || touch(&store.file("a"))));
        let subscriber = scope.spawn(|| poll_until_the_end(&store));
        by_call.join().unwrap();
        by_touch.join().unwrap();
        assert_eq!(store.query("publish=end").answer().body, "true");
        let (seen, polls) = subscriber.join().unwrap();
        assert_eq!(seen, store.query("subscribed[a]=0&wait=0").answer().cursor("a").1);
        assert!(polls > 100, "only {polls} polls: nothing was proven");
    });
}

/// The last cursor of the subscriber, and the number of its polls.
fn poll_until_the_end(store: &Store) -> (String, u32) {
    let mut cursor = "0.1".to_owned();
    let mut polls = 0;
    loop {
        let answer = store.query(&format!("subscribed[end]=0.1&subscribed[a]={cursor}")).answer();
        assert!(answer.body.starts_with(r#"{"s":1,"#), "{answer:?}");
        polls += 1;
        if answer.body.contains("\"a\":") {
            cursor = answer.cursor("a").1;
        }
        if answer.body.contains("\"end\":") {
            return (cursor, polls);
        }
    }
}

/// Calls the function `rounds` times, at intervals of up to 2 ms that look random.
fn fire(rounds: u32, publish: impl Fn()) {
    let mut state = 12_345_u64;
    for _ in 0..rounds {
        publish();
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_micros((state >> 33) % 2_000));
    }
}

//! The contract of a store's sessions, over files and a real Redis; and Bayeux with the stores
//! that keep none.

use std::thread;
use std::time::Duration;

use filetime::FileTime;
use novcomet::event::session::{SECRET, SessionId};
use novcomet::event::{Since, Topic};
use novcomet::store::{Allowance, Store};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::support::binary::{Call, session_file};
use crate::support::store::{Backend, Kind};
use crate::support::wait::eventually;

const HOUR: Duration = Duration::from_secs(3600);
const MOST: Allowance = Allowance { sessions: 20, of_address: 10, kept: HOUR };

macro_rules! over_logs {
    ($($test:ident)*) => {
        mod file { $(#[test] fn $test() { super::$test(super::Kind::File); })* }
        mod redis { $(#[test] fn $test() { super::$test(super::Kind::Redis); })* }
    };
}

over_logs! {
    log_has_what_was_appended
    unknown_log_stays_unknown
    sessions_are_bounded
    bounds_hold_among_many
    old_session_gives_way
    entry_renews_a_session
    change_wakes
    concurrent_entries_are_all_kept
    full_log_is_refused_until_it_is_shortened
}

fn id(group: u32, number: u8) -> SessionId {
    SessionId::new(group, [number; SECRET])
}

fn begin(store: &dyn Store, id: &SessionId, most: &Allowance) -> bool {
    store.sessions().unwrap().begin(id, "begin", most).unwrap()
}

fn append(store: &dyn Store, id: &SessionId, entry: &str) -> bool {
    store.sessions().unwrap().append(id, entry, HOUR).unwrap().is_some()
}

fn note(store: &dyn Store, id: &SessionId, entry: &str) {
    let sessions = store.sessions().unwrap();
    let opened = sessions.open(id).unwrap();
    sessions.note(id, opened.as_ref(), entry, HOUR).unwrap();
}

fn read(store: &dyn Store, id: &SessionId) -> Option<String> {
    store.sessions().unwrap().read(id).unwrap()
}

fn entries(log: &str) -> Vec<String> {
    log.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn found(store: &dyn Store, id: &SessionId) -> Vec<String> {
    entries(&read(store, id).unwrap())
}

fn log_has_what_was_appended(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let (store, sessions) = (store.as_ref(), store.sessions().unwrap());
    let (one, other) = (id(1, 1), id(1, 2));
    assert!(begin(store, &one, &MOST) && begin(store, &other, &MOST));
    assert!(append(store, &one, r#"{"é":"\"}"#));
    note(store, &one, "note");
    assert_eq!(found(store, &one), ["begin", r#"{"é":"\"}"#, "note"]);
    let before = read(store, &one).unwrap();
    assert!(append(store, &one, "more"));
    sessions.shorten(&one, &before, "lost", HOUR).unwrap();
    assert_eq!(found(store, &one).len(), 4, "it has grown");
    let log = read(store, &one).unwrap();
    let other_log = log.replace("more", "else");
    sessions.shorten(&one, &other_log, "lost", HOUR).unwrap();
    assert_eq!(found(store, &one).len(), 4, "it is another");
    sessions.shorten(&one, &log, "a\nb", HOUR).unwrap();
    assert_eq!(found(store, &one), ["a", "b"]);
    assert!(append(store, &one, "c"));
    assert_eq!(found(store, &one), ["a", "b", "c"]);
    assert_eq!(found(store, &other), ["begin"]);
    sessions.end(&one).unwrap();
    assert_eq!(read(store, &one), None);
    assert_eq!(found(store, &other), ["begin"]);
}

fn unknown_log_stays_unknown(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let (store, sessions) = (store.as_ref(), store.sessions().unwrap());
    let (unknown, ended) = (id(1, 1), id(1, 2));
    assert!(begin(store, &ended, &MOST));
    let opened = sessions.open(&ended).unwrap();
    sessions.end(&ended).unwrap();
    for id in [&unknown, &ended] {
        assert!(!append(store, id, "entry"));
        note(store, id, "note");
        sessions.note(id, opened.as_ref(), "note", HOUR).unwrap();
        for read in ["", "begin"] {
            sessions.shorten(id, read, "entries", HOUR).unwrap();
        }
        sessions.end(id).unwrap();
        assert_eq!(read(store, id), None);
    }
}

fn sessions_are_bounded(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let most = Allowance { sessions: 5, of_address: 2, kept: HOUR };
    let begun = |group, number| begin(store.as_ref(), &id(group, number), &most);
    assert_eq!([1, 2, 3].map(|number| begun(1, number)), [true, true, false], "of one address");
    assert_eq!([1, 2, 3].map(|number| begun(2, number)), [true, true, false]);
    assert_eq!([begun(3, 1), begun(3, 2), begun(4, 1)], [true, false, false], "in all");
    assert_eq!(read(store.as_ref(), &id(4, 1)), None);
    store.sessions().unwrap().end(&id(1, 1)).unwrap();
    assert_eq!([begun(1, 3), begun(1, 4)], [true, false], "one that ends gives way");
}

/// Redis never has more than it may. Of files, each process that begins one at the same time may
/// add one, because they only count.
fn bounds_hold_among_many(kind: Kind) {
    const THREADS: u8 = 8;
    let slack = if kind == Kind::File { usize::from(THREADS) - 1 } else { 0 };
    let backend = Backend::start(kind);
    let begin_some = |thread: u8| {
        let store = backend.open();
        let ids = (0..10).map(|number| id(u32::from(thread % 4), 1 + thread * 10 + number));
        ids.filter(|id| begin(store.as_ref(), id, &MOST)).collect::<Vec<_>>()
    };
    let begun: Vec<SessionId> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || begin_some(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let in_all = MOST.sessions..=MOST.sessions + slack;
    assert!(in_all.contains(&begun.len()), "{} of {in_all:?}", begun.len());
    for group in 0..4 {
        let here = begun.iter().filter(|it| it.group() == id(group, 0).group()).count();
        assert!(here <= MOST.of_address + slack, "{here}");
    }
    let store = backend.open();
    assert!(!begin(store.as_ref(), &id(9, 0), &MOST), "nobody begins one more");
    assert!(begun.iter().all(|id| read(store.as_ref(), id).is_some()));
}

fn old_session_gives_way(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let most = Allowance { sessions: 1, of_address: 1, kept: Duration::from_millis(50) };
    assert!(begin(store.as_ref(), &id(1, 1), &most));
    eventually("it has expired", || begin(store.as_ref(), &id(1, 2), &most));
    eventually("its log is gone", || read(store.as_ref(), &id(1, 1)).is_none());
    assert!(!append(store.as_ref(), &id(1, 1), "late"));
    assert!(append(store.as_ref(), &id(1, 2), "kept for an hour from now on"));
    eventually("of another address too", || {
        begin(store.as_ref(), &id(2, 1), &Allowance { sessions: 2, ..most })
    });
}

fn entry_renews_a_session(kind: Kind) {
    let backend = Backend::start(kind);
    let store = backend.open();
    let (store, minute) = (store.as_ref(), Duration::from_secs(60));
    let most = Allowance { sessions: 9, of_address: 1, kept: minute };
    for (number, renew) in
        [append as fn(&dyn Store, &SessionId, &str) -> bool, |store, id, entry| {
            note(store, id, entry);
            true
        }]
        .into_iter()
        .enumerate()
    {
        let group = u32::try_from(number).unwrap();
        let one = id(group, 1);
        assert!(begin(store, &one, &most));
        let key = format!("novcomet:\u{1}log/{}", one.as_str());
        let path = backend.directory().join(session_file(one.as_str()));
        let left = || backend.redis(&["PTTL", &key]).trim().parse::<u128>().unwrap();
        let is_young = || match kind {
            Kind::File => !begin(store, &id(group, 2), &most),
            _ => left() > minute.as_millis(),
        };
        if kind == Kind::File {
            filetime::set_file_mtime(&path, FileTime::from_unix_time(1_000_000_000, 0)).unwrap();
        } else {
            assert!(!is_young(), "it is kept for a minute");
        }
        assert!(renew(store, &one, "entry"));
        assert!(is_young());
    }
}

/// A change wakes a watch that is armed on the session's topic, and is news there. In Redis a
/// note is none. In a file it can be seen, so a process that notes does not watch any more.
fn change_wakes(kind: Kind) {
    let backend = Backend::start(kind);
    let (store, one) = (backend.open(), id(1, 1));
    assert!(begin(store.as_ref(), &one, &MOST));
    let topic = Topic::of_session(&one);
    let place = store.sessions().unwrap().append(&one, "change", HOUR).unwrap().unwrap();
    let news = || {
        let reading = store.read(&topic, Since::Cursor(place), 1).unwrap();
        assert!(reading.messages.is_empty());
        reading.standing > place || reading.gap
    };
    assert!(!news());
    if kind != Kind::File {
        note(store.as_ref(), &one, "note");
        assert!(!news());
    }
    for change in [
        |store: &dyn Store, id: &SessionId| assert!(append(store, id, "change")),
        |store: &dyn Store, id: &SessionId| store.sessions().unwrap().end(id).unwrap(),
    ] {
        let mut watch = store.watch();
        watch.arm(&[&topic]);
        news();
        thread::scope(|scope| {
            scope.spawn(|| change(backend.open().as_ref(), &one));
            let patience = Duration::from_secs(30);
            let fd = watch.fd(patience).expect("both stores wake");
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            let woken = poll(&mut fds, Some(&Timespec::try_from(patience).unwrap())).unwrap();
            assert_eq!(woken, 1, "nothing woke it");
            watch.changes();
        });
        assert!(news());
    }
}

/// Threads append, and write the log anew in between.
fn concurrent_entries_are_all_kept(kind: Kind) {
    const EACH: usize = 300;
    let backend = Backend::start(kind);
    let one = id(1, 1);
    assert!(begin(backend.open().as_ref(), &one, &MOST));
    let write = |thread: usize| {
        let store = backend.open();
        for number in 0..EACH {
            assert!(append(store.as_ref(), &one, &format!("{thread} {number}")));
            if number % 5 == 0 {
                let log = read(store.as_ref(), &one).unwrap();
                let same = entries(&log).join("\n");
                store.sessions().unwrap().shorten(&one, &log, &same, HOUR).unwrap();
            }
        }
    };
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || write(thread));
        }
    });
    let all = found(backend.open().as_ref(), &one);
    assert_eq!(all.len(), 1 + 4 * EACH);
    for thread in 0..4 {
        let own = all.iter().filter_map(|entry| entry.strip_prefix(&format!("{thread} ")));
        assert!(own.eq((0..EACH).map(|number| number.to_string()).collect::<Vec<_>>()));
    }
}

fn full_log_is_refused_until_it_is_shortened(kind: Kind) {
    let backend = Backend::start(kind);
    let (store, one) = (backend.open(), id(1, 1));
    assert!(begin(store.as_ref(), &one, &MOST));
    let sessions = store.sessions().unwrap();
    let entry = "x".repeat(100);
    let refused = (0..5_000).find_map(|_| sessions.append(&one, &entry, HOUR).err()).unwrap();
    assert_eq!(refused.status(), 413);
    let log = read(store.as_ref(), &one).unwrap();
    sessions.shorten(&one, &log, "short", HOUR).unwrap();
    assert!(append(store.as_ref(), &one, "again"));
    assert_eq!(found(store.as_ref(), &one), ["short", "again"]);
}

// By the executable.

fn call(url: &str, messages: &Value) -> Call {
    let call = Call::new().variable("NOVCOMET_STORE", url).variable("SCRIPT_NAME", "/bayeux");
    let call = call.variable("NOVCOMET_POLL", "0.02").form(&messages.to_string());
    call.variable("CONTENT_TYPE", "application/json")
}

/// The replies.
fn say(url: &str, messages: &Value) -> Value {
    let answer = call(url, messages).answer();
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

fn handshake() -> Value {
    json!([{"channel": "/meta/handshake", "supportedConnectionTypes": ["long-polling"]}])
}

/// A client that stays for days connects many thousand times.
#[test]
fn long_log_in_redis_is_written_anew() {
    let backend = Backend::start(Kind::Redis);
    let say = |messages: Value| say(&backend.url(), &messages);
    let id = say(handshake())[0]["clientId"].clone();
    say(json!([{"channel": "/meta/subscribe", "clientId": id, "subscription": "/a"}]));
    let key = format!("novcomet:\u{1}log/{}", id.as_str().unwrap());
    let connect = json!([{"channel": "/a", "data": 1},
        {"channel": "/meta/connect", "clientId": id, "connectionType": "long-polling"}]);
    let mut most = 0;
    for _ in 0..200 {
        let replies = say(connect.clone());
        assert_eq!(replies[1]["successful"], true, "{replies}");
        let length: usize = backend.redis(&["LLEN", &key]).trim().parse().unwrap();
        most = most.max(length);
    }
    assert!(most < 300, "{most} entries");
}

/// Its list has no bound of bytes of its own.
#[test]
fn log_in_redis_is_bounded_in_bytes() {
    let backend = Backend::start(Kind::Redis);
    let say = |messages: Value| say(&backend.url(), &messages);
    let id = say(handshake())[0]["clientId"].clone();
    let channel = format!("/{}", "x".repeat(1_000));
    let change = |what: &str| json!({"channel": what, "clientId": id, "subscription": channel});
    let both = || [change("/meta/subscribe"), change("/meta/unsubscribe")];
    let both: Vec<_> = (0..20).flat_map(|_| both()).collect();
    let replies = [say(json!(both)), say(json!(both))];
    assert_eq!(replies[0][0]["successful"], true, "{}", replies[0]);
    // The last one unsubscribes from what was refused.
    let refused = &replies[1][38]["error"];
    assert!(refused.as_str().unwrap().contains("too many changes"), "{refused}");
}

/// Also the error log says why, once.
#[test]
fn memcached_keeps_no_sessions() {
    let backend = Backend::start(Kind::Memcached);
    let answer = call(&backend.url(), &handshake()).answer();
    assert_eq!(answer.status(), 501, "{answer:?}");
    assert!(answer.body.contains("Bayeux need a store of files, or one Redis server"));
    assert!(backend.is_untouched());
}

/// Faye on Node.js would take a problem in JSON for replies, and wait for the one to its connect.
#[test]
fn connect_is_told_that_the_store_has_failed() {
    let backend = Backend::start(Kind::Redis);
    let id = say(&backend.url(), &handshake())[0]["clientId"].clone();
    let connect = json!([{"channel": "/meta/connect", "clientId": id, "id": "5",
        "connectionType": "long-polling"}]);
    let subscribe = json!([{"channel": "/meta/subscribe", "clientId": id, "subscription": "/a"}]);
    say(&backend.url(), &subscribe);
    say(&backend.url(), &connect);
    let held = call(&backend.url(), &connect).waiting();
    backend.signal("STOP");
    let late = call(&backend.url(), &connect).start();
    for waiter in [held, late] {
        let answer = waiter.answer();
        assert_eq!((answer.status(), answer.log.lines().count()), (200, 1), "{answer:?}");
        let page = include_str!("../../docs/bayeux.md");
        assert!(page.contains(&format!("    {}\n", answer.body)), "{}", answer.body);
    }
    backend.signal("CONT");
    assert_eq!(say(&backend.url(), &json!([{"channel": "/a", "data": 1}]))[0]["successful"], true);
    assert_eq!(say(&backend.url(), &connect)[1]["data"], 1);
}

//! The order of all topics, and what is said of a message besides its text, over each store.

use novcomet::event::{Cursor, Draft, Extra, Since, Topic};

use crate::support::binary::Call;
use crate::support::store::{Backend, Kind};

/// The set of topics of docs/protocol.md.
const ORDER: &str = "novcomet:\u{1}order";
/// In microseconds.
const SECOND: u64 = 1_000_000;
const HOUR: u64 = 3600 * SECOND;

fn topic(name: &str) -> Topic {
    Topic::new(name).unwrap()
}

fn draft() -> Draft {
    let extra = Extra {
        kind: Some("alarm".into()),
        private: true,
        client_id: Some("urn:uuid:1".into()),
        topics: vec![topic("a"), topic("b")],
        retry: Some(2500),
    };
    Draft { data: "one".into(), extra }
}

#[test]
fn files_and_redis_keep_all_that_is_said() {
    for kind in [Kind::File, Kind::Redis] {
        let backend = Backend::start(kind);
        let store = backend.open();
        let id = store.put(&topic("a"), Some(draft())).unwrap();
        store.publish(&topic("a"), Some("two")).unwrap();
        let found = store.read(&topic("a"), Since::Earliest, 10_000).unwrap().messages;
        assert_eq!(found[0], draft().message(id), "{kind:?}");
        assert_eq!((found[1].data.as_str(), &found[1].extra), ("two", &Extra::default()));
    }
}

/// It would show a private message to everybody.
#[test]
fn memcached_refuses_what_it_cannot_keep() {
    let backend = Backend::start(Kind::Memcached);
    let refused = backend.open().put(&topic("a"), Some(draft())).unwrap_err();
    assert_eq!(refused.status(), 501);
}

#[test]
fn store_without_an_order_refuses_patterns() {
    let backend = Backend::start(Kind::Memcached);
    for way in ["", "&stream=1"] {
        let query = format!("matching=a/*&wait=30{way}");
        let call = Call::new().variable("NOVCOMET_STORE", &backend.url());
        let answer = call.variable("QUERY_STRING", &query).answer();
        assert_eq!((answer.status(), answer.log.as_str()), (501, ""));
        assert!(answer.body.contains("a store of files, or one Redis server"), "{}", answer.body);
    }
}

/// The commands of a shell, over each store.
#[test]
fn commands_reach_every_store() {
    for kind in [Kind::File, Kind::Redis, Kind::Memcached] {
        let backend = Backend::start(kind);
        let run = |arguments: &[&str]| {
            let call = Call::new().variable("NOVCOMET_STORE", &backend.url());
            let output = arguments.iter().fold(call, |call, word| call.argument(word)).output();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        let done = |text: &str| (Some(0), text.to_owned(), String::new());
        for topic in ["news/b", "news/a", "other"] {
            assert_eq!(run(&["publish", topic, "a & b"]), done(""), "{kind:?}");
        }
        let since = ["subscribe", "other", "--since=earliest", "--wait=0"];
        assert_eq!(run(&since), done("a & b\n"), "{kind:?}");
        let (code, list, error) = run(&["topics", "news/"]);
        match kind {
            Kind::Memcached => {
                assert!(code == Some(1) && error.contains("a store of files"), "{error}");
            }
            _ => assert_eq!((code, list.as_str()), (Some(0), "news/a\nnews/b\n"), "{error}"),
        }
    }
}

/// The clock of Redis may go back. A time far ahead of it counts for its own topic only.
#[test]
fn times_grow_over_all_topics_of_a_redis() {
    let backend = Backend::start(Kind::Redis);
    let store = backend.open();
    let first = store.publish(&topic("a"), None).unwrap();
    let ahead = first.micros() + 60 * SECOND;
    backend.redis(&["ZADD", ORDER, &ahead.to_string(), "x"]);
    let second = store.publish(&topic("b"), Some("two")).unwrap();
    assert!(second.micros() > ahead && second.micros() < ahead + SECOND, "{first} {second}");
    backend.redis(&["ZADD", ORDER, &(ahead + 2 * HOUR).to_string(), "x"]);
    let horizon = store.horizon().unwrap().at;
    let third = store.publish(&topic("c"), None).unwrap();
    assert!(third.micros() < ahead + HOUR, "{third}");
    // A subscriber by pattern that stood beyond it would not be told of it.
    assert_eq!(horizon, second);
    let seen = store.survey(horizon).unwrap();
    assert!(seen.iter().any(|it| it.topic == topic("c")), "{seen:?}");
    assert_eq!(store.horizon().unwrap().at, third);
}

/// A place in the order of all topics is that of another topic's event, or of none.
#[test]
fn place_between_two_events_is_no_gap() {
    for kind in [Kind::File, Kind::Redis] {
        let backend = Backend::start(kind);
        let store = backend.open();
        for data in ["one", "two", "three"] {
            store.publish(&topic("a"), Some(data)).unwrap();
            let place = store.publish(&topic("b"), None).unwrap();
            store.publish(&topic("a"), Some("news")).unwrap();
            let found = store.read(&topic("a"), Since::Order(place), 10_000).unwrap();
            let texts: Vec<_> = found.messages.iter().map(|one| one.data.as_str()).collect();
            assert_eq!((texts, found.gap), (vec!["news"], false), "{kind:?}");
        }
    }
}

/// A topic that was removed is found no more, and one that lost messages says so.
#[test]
fn redis_tells_of_messages_that_are_gone() {
    let backend = Backend::start(Kind::Redis);
    let store = backend.open();
    let before = store.publish(&topic("z"), None).unwrap();
    for data in ["one", "two", "three"] {
        store.publish(&topic("a"), Some(data)).unwrap();
    }
    let read = |since| store.read(&topic("a"), since, 10_000).unwrap();
    let young = read(Since::Order(before));
    assert_eq!((young.messages.len(), young.gap), (3, false), "it is younger than the position");
    backend.redis(&["XTRIM", "novcomet:a", "MAXLEN", "=", "1"]);
    let trimmed = read(Since::Order(before));
    assert_eq!((trimmed.messages.len(), trimmed.gap), (1, true));
    backend.redis(&["DEL", "novcomet:a"]);
    let removed = read(Since::Order(before));
    assert_eq!((removed.messages.len(), removed.gap), (0, false));
    let seen = store.survey(before).unwrap();
    assert_eq!(seen.iter().map(|it| it.topic.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(store.horizon().unwrap().at > Cursor::SMALLEST);
}

//! Every store tells its health, its topics and its figures.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::binary::{Answer, Call};
use crate::support::exposition::{check, value};
use crate::support::store::{Backend, Kind, over_every_store};

over_every_store! {
    health_passes_and_leaves_no_topic
    health_fails_without_its_server
    info_tells_what_is_kept
    topics_are_listed_where_they_have_an_order
    figures_are_those_that_the_store_has
}

fn call(backend: &Backend, query: &str) -> Call {
    let call = Call::new().variable("NOVCOMET_STORE", &backend.url()).method("GET");
    let call = call.variable("REMOTE_ADDR", "127.0.0.1").variable("HTTP_HOST", "localhost");
    call.variable("SERVER_PROTOCOL", "HTTP/1.1").variable("QUERY_STRING", query)
}

fn get(backend: &Backend, query: &str) -> Answer {
    call(backend, query).answer()
}

fn publish(backend: &Backend, topic: &str) {
    assert_eq!(get(backend, &format!("publish={topic}&data=four")).body, "true");
}

fn is_redis(kind: Kind) -> bool {
    matches!(kind, Kind::Redis | Kind::RedisTls)
}

fn health_passes_and_leaves_no_topic(kind: Kind) {
    let backend = Backend::start(kind);
    for _ in 0..3 {
        let answer = get(&backend, "health=1");
        assert_eq!((answer.status(), answer.body.as_str()), (200, r#"{"status":"pass"}"#));
    }
    // memcached keeps an item for a second.
    assert!(kind == Kind::Memcached || backend.is_untouched());
    publish(&backend, "a");
    assert_eq!(get(&backend, "health=1").status(), 200);
}

/// A server that is gone, or takes no writes.
fn health_fails_without_its_server(kind: Kind) {
    let mut backend = Backend::start(kind);
    if is_redis(kind) {
        backend.redis(&["REPLICAOF", "127.0.0.1", "1"]);
        let answer = get(&backend, "health=1");
        answer.assert_problem(503);
        assert!(answer.log.contains("name the server that takes writes"), "{answer:?}");
    }
    if kind != Kind::File {
        backend.stop();
        get(&backend, "health=1").assert_problem(503);
    }
}

fn info_tells_what_is_kept(kind: Kind) {
    let backend = Backend::start(kind);
    let post = || call(&backend, "").form("publish=a&data=four").answer().cursor("a").1;
    let (first, last) = (post(), post());
    let a = format!(r#"{{"last":{last},"oldest":{first},"messages":2,"bytes":8}}"#);
    let b = r#"{"last":null,"oldest":null,"messages":0,"bytes":0}"#;
    let expected = format!(r#"{{"topics":{{"a":{a},"b":{b}}}}}"#);
    assert_eq!(get(&backend, "info[a]=1&info[b]=1").body, expected);
}

fn topics_are_listed_where_they_have_an_order(kind: Kind) {
    let backend = Backend::start(kind);
    for topic in ["b", "a/2", "a/1"] {
        publish(&backend, topic);
    }
    let answer = get(&backend, "topics=a/");
    match kind {
        Kind::Memcached => assert_eq!((answer.status(), answer.log.as_str()), (501, "")),
        _ => assert_eq!(answer.body, r#"{"topics":["a/1","a/2"]}"#),
    }
}

fn figures_are_those_that_the_store_has(kind: Kind) {
    let backend = Backend::start(kind);
    get(&backend, "metrics=1");
    for topic in ["a", "a", "b"] {
        publish(&backend, topic);
    }
    let answer = get(&backend, "metrics=1");
    assert_eq!((answer.status(), answer.log.as_str()), (200, ""));
    let text = answer.body;
    check(&text);
    assert_eq!(text.contains("novcomet_deliveries_total"), kind == Kind::File, "{text}");
    assert_eq!(value(&text, "novcomet_slots_max"), 100);
    assert_eq!(value(&text, "novcomet_waiters{transport=\"poll\"}"), 0);
    if kind == Kind::Memcached {
        assert!(!text.contains("publishes") && !text.contains("novcomet_topics"), "{text}");
    } else {
        assert_eq!(value(&text, "novcomet_publishes_total"), 3);
        assert_eq!(value(&text, "novcomet_topics"), 2);
    }
}

/// Redis counts in the script that publishes, so a killed publisher changes nothing.
#[test]
fn redis_counts_each_stored_event_once_amid_kills() {
    let backend = Backend::start(Kind::Redis);
    for number in 0..120 {
        let publisher = call(&backend, "publish=a&data=x").start();
        let until = Instant::now() + Duration::from_micros(number * 29);
        while Instant::now() < until {
            thread::yield_now();
        }
        drop(publisher);
    }
    let counted = value(&get(&backend, "metrics=1").body, "novcomet_publishes_total");
    let stored = backend.redis(&["XLEN", "novcomet:a"]);
    assert_eq!(format!("{counted}\n"), stored);
    assert!((1..120).contains(&counted), "some were killed before they published: {counted}");
}

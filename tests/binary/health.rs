//! The health of the server, as a load balancer asks for it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use crate::support::binary::{Call, Store};
use crate::support::host::{is_root, not_run};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// A call as of a load balancer on another machine.
fn ask(store: &Store) -> Call {
    let call = store.query("health=1").method("GET").variable("SERVER_PROTOCOL", "HTTP/1.1");
    call.variable("REMOTE_ADDR", "192.0.2.1").variable("HTTP_HOST", "comet.example")
}

fn local(store: &Store) -> Call {
    ask(store).variable("REMOTE_ADDR", "127.0.0.1").variable("HTTP_HOST", "localhost")
}

#[test]
fn working_server_passes_and_keeps_nothing() {
    let store = Store::new();
    let example = r#"{"status":"pass"}"#;
    assert!(PROTOCOL.contains(&format!("    {example}\n")));
    let answer = ask(&store).answer();
    assert_eq!((answer.status(), answer.body.as_str()), (200, example));
    assert!(answer.head.contains("Content-Type: application/json"), "{answer:?}");
    assert!(answer.head.contains("Cache-Control: no-store"), "{answer:?}");
    let head = ask(&store).method("HEAD").answer();
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    assert_eq!(store.names(), [""; 0]);
}

#[test]
fn no_rule_hides_it() {
    let store = Store::new();
    let closed = ask(&store).variable("NOVCOMET_PUBLISH", "none");
    let closed = closed.variable("NOVCOMET_SUBSCRIBE", "none").variable("NOVCOMET_METRICS", "off");
    assert_eq!(closed.answer().status(), 200);
}

/// The client learns no path, unless it may know the directory.
#[test]
fn missing_directory_fails() {
    let store = Store::new();
    let missing = format!("file://{}/missing", store.0.display());
    for method in ["GET", "HEAD"] {
        let answer = ask(&store).method(method).variable("NOVCOMET_STORE", &missing).answer();
        assert_eq!((answer.status(), answer.log.lines().count()), (503, 1), "{answer:?}");
        assert!(answer.log.contains("/missing") && !answer.body.contains("/missing"));
        assert_eq!(answer.body.is_empty(), method == "HEAD");
    }
    ask(&store).variable("NOVCOMET_STORE", &missing).answer().assert_problem(503);
    let answer = local(&store).variable("NOVCOMET_STORE", &missing).answer();
    assert!(answer.body.contains("/missing"), "{answer:?}");
    let hidden = local(&store).variable("NOVCOMET_STORE", &missing);
    let hidden = hidden.variable("NOVCOMET_TELL_STORE", "off").answer();
    assert!(!hidden.body.contains("/missing"), "{hidden:?}");
}

#[test]
fn directory_without_write_permission_fails() {
    if !is_root() {
        return not_run("a health check as another user", "root");
    }
    let store = Store::new();
    fs::set_permissions(&store.0, Permissions::from_mode(0o755)).unwrap();
    let answer = ask(&store).user(4321).answer();
    answer.assert_problem(503);
    assert!(answer.log.contains("Permission denied"), "{answer:?}");
    fs::set_permissions(&store.0, Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(ask(&store).user(4321).answer().status(), 200);
    assert_eq!(store.names(), [""; 0]);
}

/// The store is full for a publisher if less than the reserved share is free.
#[test]
fn full_store_fails() {
    let answer = ask(&Store::new()).variable("NOVCOMET_KEEP_FREE", "100").answer();
    answer.assert_problem(503);
    assert!(answer.body.contains("the store is full"), "{answer:?}");
}

#[test]
fn taken_slots_fail() {
    let store = Store::new();
    let one = |call: Call| call.variable("NOVCOMET_MAX_WAITERS", "1");
    let waiter = one(store.query("subscribed[a]=0").method("GET")).waiting();
    let answer = one(ask(&store)).answer();
    answer.assert_problem(503);
    assert!(answer.body.contains("all slots"), "{answer:?}");
    assert_eq!(ask(&store).answer().status(), 200, "there are a hundred");
    drop(waiter);
    assert_eq!(one(ask(&store)).answer().status(), 200);
}

/// A publisher that waits for an event of each kind is not woken, and a topic's time stays.
#[test]
fn subscribers_notice_nothing() {
    let store = Store::new();
    let waiter = store.query("subscribed[a]=0").waiting();
    let before = waiter.times_asleep();
    for _ in 0..10 {
        assert_eq!(ask(&store).answer().status(), 200);
    }
    assert_eq!(waiter.times_asleep(), before);
}

/// Without the key, each request with a token would be refused.
#[test]
fn missing_key_fails() {
    let store = Store::new();
    let answer = ask(&store).variable("NOVCOMET_TOKEN_KEY", "/nowhere/at/all").answer();
    answer.assert_problem(503);
    assert!(answer.log.contains("NOVCOMET_TOKEN_KEY"), "{answer:?}");
}

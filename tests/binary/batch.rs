//! The real binary publishes several messages of one POST.

use std::fs::{self, File};
use std::time::{Duration, Instant};

use novcomet::protocol::novcomet::MAX_BATCH;
use rustix::fs::{FlockOperation, fcntl_lock};
use serde_json::{Value, json};

use crate::support::binary::{Answer, Call, Store, batch};
use crate::support::tokens::{HS256, Keys, claims};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

fn send(store: &Store, entries: &str) -> Call {
    store.query("").form(&batch(entries))
}

/// The answers to the messages of a batch.
fn parts(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status(), 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// The messages that a topic keeps.
fn kept(store: &Store, topic: &str) -> Vec<String> {
    let answer = store.query(&format!("subscribed[{topic}]=earliest&wait=0")).answer();
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    let messages = body["m"][topic].as_array().cloned().unwrap_or_default();
    messages.iter().map(|message| message["data"].as_str().unwrap().to_owned()).collect()
}

/// An example of docs/protocol.md, with the cursors of the last events of these topics.
fn quote(store: &Store, example: &str) -> String {
    assert!(PROTOCOL.contains(&format!("    {example}\n")), "not in docs/protocol.md: {example}");
    let cursor = |topic: &str| {
        store.query(&format!("subscribed[{topic}]=0&wait=0")).answer().cursor(topic).1
    };
    let example = example.replace("1795415403.163847", &cursor("a"));
    example.replace("1795415403.163848", &cursor("b"))
}

#[test]
fn batch_matches_the_documentation() {
    let store = Store::new();
    let form = r#"batch=[{"publish":"a","data":"1"},{"publish":"b"}]"#;
    assert!(PROTOCOL.contains(&format!("    {form}\n")));
    for call in [store.query("").form(form), send(&store, form.strip_prefix("batch=").unwrap())] {
        let answer = call.answer();
        let both = r#"[{"s":1,"k":{"a":1795415403.163847}},{"s":1,"k":{"b":1795415403.163848}}]"#;
        assert_eq!(answer.body, quote(&store, both));
        assert!(answer.head.contains("\r\nContent-Type: application/json; charset=utf-8\r\n"));
    }
    assert_eq!((kept(&store, "a"), kept(&store, "b")), (vec!["1".into(); 2], vec![]));
    let answer = send(&store, r#"[{"publish":"a"},{"publish":""}]"#).answer();
    let refused = r#"[{"s":1,"k":{"a":1795415403.163847}},{"detail":"a topic is at least one character","status":400,"title":"Bad Request"}]"#;
    assert_eq!(answer.body, quote(&store, refused));
}

#[test]
fn messages_of_a_batch_arrive_in_order() {
    let store = Store::new();
    let entry = |number| json!({"publish": "a", "data": format!("{number}"), "x": [{}]});
    let entries: Vec<_> = (0..MAX_BATCH).map(entry).collect();
    let waiter = store.query("subscribed[b]=0&subscribed[a]=0").waiting();
    let answer = send(&store, &Value::from(entries).to_string()).answer();
    assert!(waiter.answer().body.contains(r#""data":"0""#));
    let cursors: Vec<_> = parts(&answer).iter().map(|part| part["k"]["a"].as_f64()).collect();
    assert!(cursors.len() == MAX_BATCH && cursors.is_sorted_by(|one, next| one < next));
    assert!(kept(&store, "a").into_iter().eq((0..MAX_BATCH).map(|number| number.to_string())));
}

#[test]
fn refused_message_stops_no_other() {
    let store = Store::new();
    let long = json!({"publish": "a", "data": "x".repeat(65_537)}).to_string();
    for (refused, status) in [
        (r#"{"publish":""}"#, 400),
        (r#"{"publish":"a\n"}"#, 400),
        (&long, 413),
        (r#"{"data":"x"}"#, 400),
        (r#"{"publish":["a"]}"#, 400),
        (r#"{"publish":"a","data":1}"#, 400),
        (r#"{"publish":"a","publish":"b"}"#, 400),
        (r#"["a","x"]"#, 400),
        (r#"{"publish":"a","data":"\ud800"}"#, 400),
        ("null", 400),
    ] {
        let one = r#"{"publish":"c","data":"one"}"#;
        let answer = send(&store, &format!("[{one},{refused},{one}]")).answer();
        let parts = parts(&answer);
        assert_eq!((&parts[0]["s"], &parts[2]["s"]), (&json!(1), &json!(1)), "{refused}");
        assert_eq!(parts[1]["status"], status, "{refused}");
        assert_eq!(answer.log, "");
    }
    assert_eq!(kept(&store, "c").len(), 20);
    assert_eq!(store.names(), ["c.comet"]);
}

#[test]
fn invalid_batch_is_refused_whole() {
    let store = Store::new();
    let one = r#"{"publish":"a"}"#;
    let many = format!("[{}]", vec![one; MAX_BATCH + 1].join(","));
    for entries in
        ["", "x", "[]", "{}", one, "[,]", &format!("[{one}"), &format!("[{one}]x"), &many]
    {
        send(&store, entries).answer().assert_problem(400);
    }
    let batch = batch(&format!("[{one}]"));
    store.query(&format!("{batch}&publish=b")).method("POST").answer().assert_problem(400);
    store.query("").form(&format!("{batch}&publish=b")).answer().assert_problem(400);
    store.query("").form(r#"batch=[{"publish":"%FF"}]"#).answer().assert_problem(400);
    for method in ["GET", "HEAD"] {
        assert_eq!(store.query(&batch).method(method).answer().status(), 400);
    }
    send(&store, &format!("[{one}{}]", " ".repeat(204_800))).answer().assert_problem(413);
    assert_eq!(store.names(), [""; 0]);
}

/// A directory in the place of a topic. The log has one line for a batch.
#[test]
fn failed_message_stops_no_other() {
    let store = Store::new();
    fs::create_dir(store.file("b")).unwrap();
    let entries = r#"[{"publish":"a"},{"publish":"b"},{"publish":"b"},{"publish":"c"}]"#;
    let answer = send(&store, entries).answer();
    let parts = parts(&answer);
    let states = parts.iter().map(|part| part["s"].as_u64().or(part["status"].as_u64()));
    assert!(states.eq([1, 503, 503, 1].map(Some)), "{answer:?}");
    assert_eq!(answer.log.lines().count(), 1, "{answer:?}");
}

/// A publisher that hangs costs 2 s of each message of its topic.
#[test]
fn batch_ends_within_seconds_of_its_limit() {
    let store = Store::new();
    File::create(store.file("a")).unwrap();
    let lock = File::options().write(true).open(store.file("a")).unwrap();
    fcntl_lock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let [a, b] = [r#"{"publish":"a"}"#, r#"{"publish":"b"}"#];
    let begin = Instant::now();
    let answer = send(&store, &format!("[{a},{b},{a},{b},{a},{a}]")).answer();
    assert!(begin.elapsed() < Duration::from_secs(6), "{:?}", begin.elapsed());
    let parts = parts(&answer);
    let states = parts.iter().map(|part| part["s"].as_u64().or(part["status"].as_u64()));
    assert!(states.eq([503, 1, 503, 503, 503, 503].map(Some)), "{answer:?}");
    assert_eq!(parts[3]["detail"], "the messages before this one took too long");
    assert_eq!(answer.log.lines().count(), 1, "{answer:?}");
}

#[test]
fn batch_needs_the_right_to_each_topic() {
    let (store, keys) = (Store::new(), Keys::new());
    let grant = claims(60, r#"{"publish":["a"]}"#);
    let token = keys.sign(&[("HS256", "hs", HS256, grant)]).remove(0);
    let ask = |entries: &str, token: &str| {
        let call = send(&store, entries).variable("NOVCOMET_PUBLISH", "token");
        let call = call.variable("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
        call.variable("HTTP_AUTHORIZATION", token).answer().status()
    };
    let [a, both] = [r#"[{"publish":"a"}]"#, r#"[{"publish":"a"},{"publish":"b"}]"#];
    let token = format!("Bearer {token}");
    assert_eq!([ask(both, ""), ask(r#"[{"publish":""}]"#, "")], [401, 401]);
    assert_eq!(ask(both, &token), 403);
    assert_eq!(store.names(), [""; 0]);
    assert_eq!(ask(a, &token), 200);
    for (rule, status) in [("none", 403), ("post", 200)] {
        assert_eq!(send(&store, both).variable("NOVCOMET_PUBLISH", rule).answer().status(), status);
    }
    let foreign = send(&store, both).variable("HTTP_SEC_FETCH_SITE", "cross-site");
    assert_eq!(foreign.answer().status(), 403);
}

//! Subscriptions by pattern, by the real binary and the examples of docs/protocol.md.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use crate::support::binary::{Answer, SECOND, Store};
use crate::support::dir::set_time;
use crate::support::host::{is_root, not_run};
use serde_json::Value;

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// Two topics with the messages of the examples, and one that no pattern selects.
fn examples() -> Store {
    let store = Store::new();
    for (topic, micros, data) in
        [("news/a", 163_847, "one"), ("news/b", 163_848, "two"), ("x", 163_849, "x")]
    {
        let path = store.file(&topic.replace('/', "%2F"));
        let line = format!("{{\"id\":{SECOND}.{micros},\"data\":\"{data}\"}}\n");
        fs::write(&path, line).unwrap();
        set_time(&path, SECOND, micros * 1000);
    }
    store
}

fn ask(store: &Store, query: &str) -> Answer {
    store.query(query).variable("NOVCOMET_KEEP_AGE", "1000000000").answer()
}

/// The answer without its position, and that.
fn split(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status(), 200, "{}", answer.body);
    let (state, position) = answer.body.split_once(",\"p\":\"").unwrap();
    (state.to_owned(), position.strip_suffix("\"}").unwrap().to_owned())
}

fn in_docs(example: &str) -> bool {
    PROTOCOL.contains(&format!("    {example}"))
}

#[test]
fn events_of_all_topics_come_with_one_position() {
    let store = examples();
    let (state, position) = split(&ask(&store, "matching=news/*&since=earliest"));
    assert!(in_docs(&state), "{state}");
    let answer = ask(&store, &format!("matching=news/*&since={position}&wait=0"));
    let (state, _) = split(&answer);
    assert!(in_docs(&state) && state == r#"{"s":0,"k":{}"#, "{state}");
    let (state, _) = split(&ask(&store, "matching=news/*&since=hof6g6si4n"));
    assert!(state.contains("two") && !state.contains("one"), "{state}");
}

#[test]
fn stream_has_positions_as_its_ids() {
    let store = examples();
    let expected = PROTOCOL.split("`Last-Event-ID` goes before `since`:\n\n").nth(1).unwrap();
    let expected = expected.split("\n\n- ").next().unwrap();
    let expected: Vec<_> = expected.lines().map(str::trim_start).collect();
    let query = "matching=news/*&stream=1&wait=0.1&since=hof6g6si4m";
    let answer = ask(&store, query);
    assert_eq!(answer.body.trim_end(), expected.join("\n"));
    let call = store.query("matching=news/*&stream=json&wait=0.1&since=earliest");
    let call = call.variable("NOVCOMET_KEEP_AGE", "1000000000");
    let answer = call.method("GET").variable("HTTP_LAST_EVENT_ID", "hof6g6si4n").answer();
    assert!(answer.body.contains("id: hof6g6si4n\ndata: {\"s\":0"), "{}", answer.body);
    assert!(!answer.body.contains("news/a") && answer.body.contains("two"), "{}", answer.body);
}

#[test]
fn new_topics_touches_and_messages_wake_a_subscriber() {
    let store = examples();
    for (event, expected) in [("message", r#""data":"new""#), ("touch", r#""k":{"news/z":"#)] {
        let waiter = store.query("matching=news/*&matching=none").waiting();
        store.query("publish=other").answer();
        match event {
            "message" => drop(store.query("publish=news/c&data=new").answer()),
            _ => drop(fs::File::create(store.file("news%2Fz")).unwrap()),
        }
        let answer = waiter.answer();
        assert!(answer.body.contains(expected), "{event}: {}", answer.body);
    }
}

/// Also one with the same name: what is known of the topics is that of the old one.
#[test]
fn replaced_directory_is_watched_again() {
    let store = examples();
    let call = store.query("matching=news/*").variable("NOVCOMET_SLEEP", "0.1");
    let waiter = call.variable("NOVCOMET_TRIES", "600").waiting();
    let old = store.0.with_extension("old");
    fs::rename(&store.0, &old).unwrap();
    fs::create_dir(&store.0).unwrap();
    store.query("publish=news/a&data=in the new one").answer();
    let answer = waiter.answer();
    fs::remove_dir_all(old).unwrap();
    assert!(answer.body.contains(r#""data":"in the new one""#), "{}", answer.body);
    assert!(!answer.body.contains("news/b"), "{}", answer.body);
}

#[test]
fn events_without_a_message_are_told_from_a_position() {
    let store = examples();
    let (_, before) = split(&ask(&store, "matching=**&wait=0"));
    store.query("publish=news/a").answer();
    let (state, after) = split(&ask(&store, &format!("matching=**&since={before}&wait=0")));
    assert!(state.starts_with(r#"{"s":1,"k":{"news/a":"#) && !state.contains("\"m\""), "{state}");
    let (state, _) = split(&ask(&store, &format!("matching=**&since={after}&wait=0")));
    assert_eq!(state, r#"{"s":0,"k":{}"#);
}

/// Such a file has only the kernel's times, which may be behind the clock.
#[test]
fn messages_in_a_file_of_another_user_come_once() {
    if !is_root() {
        not_run("a file of another user, by pattern", "root");
        return;
    }
    let store = Store::new().with("a", 1_795_415_403, 0);
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o666)).unwrap();
    chown(store.file("a"), Some(1), Some(1)).unwrap();
    let (_, mut position) = split(&store.query("matching=*&wait=0").answer());
    let mut found = String::new();
    for number in 0..30 {
        let publish = store.query(&format!("publish=a&data=<{number}>")).user(33);
        assert_eq!(publish.answer().body, "true");
        let query = format!("matching=*&since={position}&wait=0");
        let (state, next) = split(&store.query(&query).answer());
        (found, position) = (found + &state, next);
    }
    let (state, _) = split(&store.query(&format!("matching=*&since={position}&wait=0")).answer());
    found += &state;
    let places: Vec<_> = (0..30)
        .map(|it| found.find(&format!("<{it}>")).unwrap_or_else(|| panic!("{it}")))
        .collect();
    assert!(places.is_sorted() && found.matches('<').count() == 30, "{found}");
}

#[test]
fn unknown_position_gets_everything_with_gaps() {
    let store = examples();
    let (state, _) = split(&ask(&store, "matching=news/*&since=zzzzzzzzzz"));
    assert!(state.ends_with(r#","gap":["news/a","news/b"]"#), "{state}");
}

/// Of 64 KiB each: an answer holds some of them, and the next one goes on.
#[test]
fn large_messages_come_in_parts() {
    let store = Store::new();
    let text = "x".repeat(60_000);
    for number in 0..20 {
        let call = store.query("").form(&format!("publish=t/{}&data={number}-{text}", number % 7));
        assert_eq!(call.answer().status(), 200);
    }
    let (mut since, mut seen) = ("earliest".to_owned(), Vec::new());
    while seen.len() < 20 {
        let answer = store.query(&format!("matching=t/*&since={since}&wait=0")).answer();
        assert!(answer.body.len() < 300_000, "{}", answer.body.len());
        let state: Value = serde_json::from_str(&answer.body).unwrap();
        since = state["p"].as_str().unwrap().to_owned();
        let all = state["m"].as_object().unwrap().values();
        let messages = all.flat_map(|messages| messages.as_array().unwrap());
        let mut some: Vec<_> = messages
            .map(|message| message["data"].as_str().unwrap().split('-').next().unwrap().to_owned())
            .map(|number| number.parse::<usize>().unwrap())
            .collect();
        assert!(!some.is_empty());
        some.sort_unstable();
        seen.extend(some);
    }
    assert!(seen.iter().copied().eq(0..20), "{seen:?}");
}

#[test]
fn wrong_requests_are_refused() {
    let store = Store::new();
    let many = "matching=a&".repeat(65);
    for (query, why) in [
        ("matching=a&subscribed[b]=", "two requests"),
        ("matching=a&since=-", "a position"),
        ("matching=a&since=1795415403.163846x", "a position"),
        ("matching=a*b*", "*"),
        (many.as_str(), "at most 64"),
        ("matching=%FF", "UTF-8"),
    ] {
        let answer = store.query(query).answer();
        assert_eq!(answer.status(), 400, "{query}");
        assert!(answer.body.contains(why), "{query}: {}", answer.body);
    }
}

/// Every message of such a topic is later than any position.
#[test]
fn messages_in_the_future_are_told_once() {
    let store = Store::new().with("f", 2_208_988_800, 0);
    let waiter = store.query("matching=*&stream=json&wait=1.5").waiting();
    for topic in ["f", "other", "f", "other", "f", "other"] {
        std::thread::sleep(std::time::Duration::from_millis(100));
        store.query("").form(&format!("publish={topic}&data=of-{topic}")).answer();
    }
    let body = waiter.answer().body;
    let count = |text: &str| body.matches(text).count();
    assert_eq!((count("of-f"), count("of-other")), (3, 3), "{body}");
}

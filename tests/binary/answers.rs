//! The size of one answer and the memory that it needs, by the real binary. Both are bounded
//! however many messages the topics have, and the next answer has the rest.

use std::collections::BTreeMap;

use crate::support::binary::{Answer, Store};
use serde_json::Value;

/// The largest size of an answer, about, in bytes.
const ANSWER: usize = 262_144;
/// A message that becomes six times as large in JSON.
const LARGE: usize = 65_536;
/// The names and cursors of 64 topics, and the head of the answer.
const FRAME: usize = 16_384;
/// The bytes that the cursors of one stream may take. One more part may follow.
const STREAM: usize = 4_194_304 + 2 * ANSWER;
const TOPICS: usize = 64;

fn publish(store: &Store, data: &str) {
    let topics: Vec<_> = (0..TOPICS).map(|number| format!("publish=t{number}")).collect();
    let answer = store.query("").form(&format!("{}&data={data}", topics.join("&"))).answer();
    assert_eq!(answer.status(), 200);
}

fn subscribe(cursors: &BTreeMap<String, String>) -> String {
    let one = |(topic, cursor): (&String, &String)| format!("subscribed[{topic}]={cursor}&");
    cursors.iter().map(one).collect::<Vec<_>>().concat()
}

fn from_earliest() -> BTreeMap<String, String> {
    (0..TOPICS).map(|number| (format!("t{number}"), "earliest".to_owned())).collect()
}

/// Advances the cursors as a client does, and returns the number of messages in the answer.
fn move_on(cursors: &mut BTreeMap<String, String>, answer: &Answer) -> usize {
    let state: Value = serde_json::from_str(&answer.body).unwrap();
    for (topic, cursor) in state["k"].as_object().unwrap() {
        cursors.insert(topic.clone(), format!("{:.6}", cursor.as_f64().unwrap()));
    }
    let messages = state["m"].as_object().into_iter().flat_map(|m| m.values());
    messages.map(|messages| messages.as_array().unwrap().len()).sum()
}

/// The process has a quarter of the memory that all messages take together.
#[test]
fn poll_of_64_full_topics_is_bounded() {
    let store = Store::new();
    publish(&store, &"%01".repeat(LARGE));
    let mut cursors = from_earliest();
    let (mut messages, mut answers) = (0, 0);
    while messages < TOPICS {
        let call = store.query(&(subscribe(&cursors) + "wait=0"));
        let answer = call.by("prlimit", &["--as=6291456"]).answer();
        assert!(answer.body.len() < ANSWER.max(6 * LARGE) + FRAME, "{}", answer.body.len());
        let more = move_on(&mut cursors, &answer);
        assert!(more > 0, "a topic starves");
        messages += more;
        answers += 1;
    }
    assert_eq!((messages, answers), (TOPICS, TOPICS));
    let answer = store.query(&(subscribe(&cursors) + "wait=0")).answer();
    assert!(answer.body.starts_with(r#"{"s":0,"#));
}

/// Escaped characters count with their escapes.
#[test]
fn escapes_count_towards_the_bound() {
    let store = Store::new();
    publish(&store, &"%01".repeat(6_000));
    let answer = store.query(&(subscribe(&from_earliest()) + "wait=0")).answer();
    assert!((ANSWER / 2..ANSWER + FRAME).contains(&answer.body.len()), "{}", answer.body.len());
    let lines = store.query(&(subscribe(&from_earliest()) + "wait=0&stream=1")).answer();
    assert!((ANSWER / 2..ANSWER + 2 * FRAME).contains(&lines.body.len()), "{}", lines.body.len());
}

/// Each event has the cursors of all topics, so many small events are a large answer.
#[test]
fn stream_of_small_messages_is_resumed() {
    const EACH: usize = 150;
    let store = Store::new();
    (0..EACH).for_each(|_| publish(&store, "x"));
    let (mut id, mut streams) = (String::new(), 0);
    let mut seen: Vec<String> = Vec::new();
    while seen.len() < TOPICS * EACH {
        let query = subscribe(&from_earliest()) + "stream=1&wait=20";
        let answer = store.query(&query).variable("HTTP_LAST_EVENT_ID", &id).answer();
        assert!(answer.body.len() < STREAM, "{}", answer.body.len());
        let events = answer.body.split("\n\n").filter(|event| event.starts_with("event: "));
        seen.extend(events.map(|event| event.split("\ndata").next().unwrap().to_owned()));
        id = answer.body.rsplit("id: ").next().unwrap().lines().next().unwrap().to_owned();
        streams += 1;
    }
    assert!(streams > 1);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), TOPICS * EACH, "an event came twice");
}

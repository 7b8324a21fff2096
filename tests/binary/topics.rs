//! The real binary, with topics whose encoded name is too long for a file.

use std::fs::{self, File};
use std::path::PathBuf;

use serde_json::Value;
use url::form_urlencoded;

use crate::support::binary::{Answer, Store};

/// 1,024 bytes that differ from every other in the last ones only.
fn iri(end: &str) -> String {
    let start = "https://example.com/books?title=";
    format!("{start}{}{end}", "x".repeat(1024 - start.len() - end.len()))
}

fn encoded(topic: &str) -> String {
    form_urlencoded::byte_serialize(topic.as_bytes()).collect()
}

fn publish(store: &Store, topic: &str, data: &str) -> Answer {
    store.query(&format!("publish={}{data}", encoded(topic))).answer()
}

fn poll(store: &Store, topic: &str, since: &str) -> Answer {
    store.query(&format!("subscribed[{}]={since}&wait=0", encoded(topic))).answer()
}

fn body(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|_| panic!("{answer:?}"))
}

fn messages(answer: &Answer, topic: &str) -> Vec<String> {
    let found = body(answer)["m"][topic].as_array().cloned().unwrap_or_default();
    found.iter().map(|message| message["data"].as_str().unwrap().to_owned()).collect()
}

/// The file of the only topic.
fn only_file(store: &Store) -> PathBuf {
    let names = store.names();
    assert_eq!(names.len(), 1, "{names:?}");
    assert!(names[0].len() <= 255 && names[0].starts_with("%~https:%2F%2Fexample.com"));
    store.0.join(&names[0])
}

fn header(store: &Store) -> Value {
    let log = fs::read_to_string(only_file(store)).unwrap();
    serde_json::from_str(log.lines().next().unwrap()).unwrap()
}

#[test]
fn longest_topic_is_published_and_polled() {
    let store = Store::new();
    let topic = iri("1");
    assert_eq!(publish(&store, &topic, "&data=one").body, "true");
    assert_eq!(header(&store)["topic"], topic);
    assert_eq!(messages(&poll(&store, &topic, "earliest"), &topic), ["one"]);
    let cursor = poll(&store, &topic, "earliest").cursor(&topic).1;
    let waiter = store.query(&format!("subscribed[{}]={cursor}", encoded(&topic))).waiting();
    assert_eq!(publish(&store, &topic, "&data=two").body, "true");
    assert_eq!(messages(&waiter.answer(), &topic), ["two"]);
    publish(&store, &(topic + "x"), "").assert_problem(400);
}

#[test]
fn event_without_message_names_its_topic() {
    let store = Store::new();
    let topic = iri("1");
    assert_eq!(publish(&store, &topic, "").body, "true");
    assert_eq!(header(&store)["topic"], topic);
    let answer = poll(&store, &topic, "1.5");
    let (s, cursor) = answer.cursor(&topic);
    assert_eq!((s, messages(&answer, &topic)), ('1', vec![]));
    assert_eq!(publish(&store, &topic, "&data=x").body, "true");
    assert_eq!(messages(&poll(&store, &topic, &cursor), &topic), ["x"]);
    assert_eq!(body(&poll(&store, &topic, &cursor)).get("gap"), None);
}

/// The first event after that gives the file its header.
#[test]
fn file_that_touch_made_gets_its_header() {
    for data in ["", "&data=x"] {
        let store = Store::new();
        let topic = iri("1");
        publish(&store, &topic, "");
        let file = only_file(&store);
        fs::remove_file(&file).unwrap();
        File::create(&file).unwrap();
        assert_eq!(poll(&store, &topic, "1.5").cursor(&topic).0, '1');
        assert_eq!(publish(&store, &topic, data).body, "true");
        assert_eq!(header(&store)["topic"], topic);
        assert_eq!(messages(&poll(&store, &topic, "earliest"), &topic).len(), data.len().min(1));
    }
}

#[test]
fn compaction_keeps_the_topic() {
    let store = Store::new();
    let topic = iri("1");
    publish(&store, &topic, "&data=older");
    publish(&store, &topic, "&data=old");
    let call = store.query(&format!("publish={}&data=new", encoded(&topic)));
    assert_eq!(call.variable("NOVCOMET_KEEP_BYTES", "1").answer().body, "true");
    let header = header(&store);
    assert_eq!(header["topic"], topic);
    assert!(header["dropped"].is_number(), "{header}");
    assert_eq!(messages(&poll(&store, &topic, "earliest"), &topic), ["old", "new"]);
}

#[test]
fn topics_with_the_same_beginning_are_independent() {
    let store = Store::new();
    let topics = [iri("1"), iri("2"), iri("\"1"), iri("\\1")];
    for topic in &topics {
        publish(&store, topic, &format!("&data={}", encoded(topic)));
    }
    assert_eq!(store.names().len(), topics.len());
    for topic in topics {
        assert_eq!(messages(&poll(&store, &topic, "earliest"), &topic).concat(), topic);
    }
}

#[test]
fn file_of_another_topic_is_503() {
    let store = Store::new();
    let (topic, other) = (iri("1"), iri("2"));
    publish(&store, &other, "&data=secret");
    let foreign = only_file(&store);
    let log = fs::read_to_string(&foreign).unwrap();
    fs::remove_file(foreign).unwrap();
    publish(&store, &topic, "");
    fs::write(only_file(&store), &log).unwrap();
    for answer in [
        poll(&store, &topic, "earliest"),
        poll(&store, &topic, "1.5"),
        publish(&store, &topic, ""),
        publish(&store, &topic, "&data=x"),
    ] {
        answer.assert_problem(503);
        assert!(answer.log.contains("names another topic") && !answer.body.contains("secret"));
    }
    assert_eq!(fs::read_to_string(only_file(&store)).unwrap(), log);
}

//! A CGI program with its own check, called as a server does: `examples/own_check.rs`, with a
//! directory of mailboxes.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::binary::{COMET, Call, SECOND, Store};
use crate::support::dir::make_file;

/// An example, which cargo builds with the tests, beside the binary.
fn example(name: &str) -> PathBuf {
    let program = PathBuf::from(COMET).with_file_name("examples").join(name);
    assert!(program.exists(), "`cargo build --examples`, as `cargo test` alone does");
    program
}

fn call(mailboxes: &Store, query: &str) -> Call {
    let directory = mailboxes.0.to_str().unwrap();
    let call = Call::of(&example("own_check")).variable("MAILBOXES", directory);
    call.method("GET").variable("QUERY_STRING", query)
}

/// A mailbox is a file, here with the suffix `.comet`.
#[test]
fn mail_wakes_a_subscriber() {
    let mailboxes = Store::new().with("a", SECOND, 5_000);
    let news = call(&mailboxes, "subscribed[a.comet]=1.5&subscribed[b.comet]=0").answer();
    assert_eq!(news.body, r#"{"s":1,"k":{"a.comet":1795415403.000005}}"#);
    let query = "subscribed[a.comet]=1795415403.000005&subscribed[b.comet]=0";
    let waiter = call(&mailboxes, query).variable("NOVCOMET_SLEEP", "0.05").waiting();
    fs::write(mailboxes.file("b"), "mail").unwrap();
    assert_eq!(waiter.answer().cursor("b.comet").0, '1');
}

/// The library closes no descriptors of a program except the standard streams.
#[test]
fn descriptor_opened_before_check_stays_open() {
    let store = Store::new().with("a", SECOND, 5_000);
    let call = Call::of(&example("open_check")).method("GET");
    let call = call.variable("WATCHED", store.file("a").to_str().unwrap());
    let news = call.variable("QUERY_STRING", "subscribed[b]=1.5&wait=0").answer();
    assert_eq!(news.body, r#"{"s":1,"k":{"b":1795415403.000005}}"#);
}

#[test]
fn every_protocol_is_available() {
    let mailboxes = Store::new().with("a", SECOND, 5_000);
    let query = "subscribed[a.comet]=1.5&wait=0";
    let json = call(&mailboxes, &format!("{query}&stream=json")).answer().body;
    assert!(json.contains(r#"data: {"s":1,"k":{"a.comet":1795415403.000005}}"#), "{json}");
    let stream = call(&mailboxes, query).variable("HTTP_ACCEPT", "text/event-stream").answer();
    assert!(stream.body.contains("event: a.comet\n"), "{stream:?}");
    for cursor in ["1795415403.000005", "latest"] {
        let query = format!("subscribed[a.comet]={cursor}&subscribed[b]={cursor}&wait=0");
        let quiet = call(&mailboxes, &query).answer().body;
        let b = if cursor == "latest" { "0.100000" } else { cursor };
        assert_eq!(quiet, format!(r#"{{"s":0,"k":{{"a.comet":1795415403.000005,"b":{b}}}}}"#));
    }
    let about = call(&mailboxes, "about=1").variable("NOVCOMET_TELL_STORE", "on").answer().body;
    assert!(about.ends_with(r#""protocols":["bayeux","mercure","novcomet"]}"#), "{about}");
    for query in ["info[a.comet]=1", "topics="] {
        call(&mailboxes, query).answer().assert_problem(501);
    }
    assert_eq!(call(&mailboxes, "health=1").answer().body, r#"{"status":"pass"}"#);
    let figures = call(&mailboxes, "metrics=1").variable("NOVCOMET_METRICS", "all").answer().body;
    assert!(figures.contains("novcomet_waiters") && !figures.contains("_total"), "{figures}");
    call(&mailboxes, "subscribed[a.comet]=x").answer().assert_problem(400);
    call(&mailboxes, "publish=a.comet").answer().assert_problem(400);
}

/// The program's own wait and pause are used unless the environment sets them.
#[test]
fn environment_sets_the_wait_time() {
    let mailboxes = Store::new();
    let call = call(&mailboxes, "subscribed[a]=0").variable("NOVCOMET_TRIES", "1");
    assert_eq!(call.variable("NOVCOMET_SLEEP", "0.1").answer().cursor("a").0, '0');
}

#[test]
fn topic_name_cannot_leave_the_mailboxes() {
    let mailboxes = Store::new();
    for name in ["..", "a/..", "/etc/passwd", "."] {
        let answer = call(&mailboxes, &format!("subscribed[{name}]=1.5&wait=0")).answer();
        assert_eq!(answer.cursor(name), ('0', "1.500000".into()), "{name}");
    }
}

/// The presets of a program are the last that count.
#[test]
fn settings_file_wins_over_the_program() {
    let mailboxes = Store::new();
    let file = mailboxes.0.join("novcomet.conf");
    make_file(&file, "NOVCOMET_TRIES=1\nNOVCOMET_SLEEP=0.1\n", 0o640);
    let begin = Instant::now();
    let call =
        call(&mailboxes, "subscribed[a]=0").variable("NOVCOMET_CONF", file.to_str().unwrap());
    assert!(call.answer().body.starts_with(r#"{"s":0,"#));
    assert!(begin.elapsed() < Duration::from_secs(2), "the program waits 40 s");
}

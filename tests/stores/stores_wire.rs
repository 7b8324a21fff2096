//! The answers are the same over every store. The tests call the real binary with an
//! environment, as in cgi.rs, and do not depend on the store behind it.

use std::process::Command;

use crate::support::binary::{Answer, Call, batch};
use crate::support::host::not_run;
use crate::support::store::{Backend, Kind, over_every_store};

over_every_store! {
    publish_is_confirmed
    message_is_replayed_byte_for_byte
    publish_wakes_a_waiter
    quiet_wait_ends_with_unchanged_cursors
    lost_messages_are_a_gap
    latest_has_the_newest_message
    stream_from_latest_starts_with_the_newest_message
    stream_continues_where_it_ended
    each_unusual_id_is_a_topic
    several_topics_get_the_same_message
    batch_is_published_in_order
}

/// The wait is an hour and has no periodic read, so only the store itself can wake the process.
fn call(backend: &Backend, query: &str) -> Call {
    let call = Call::new().variable("NOVCOMET_STORE", &backend.url());
    let call = call.variable("NOVCOMET_TRIES", "1").variable("NOVCOMET_SLEEP", "3600");
    call.variable("NOVCOMET_POLL", "0.02").variable("QUERY_STRING", query)
}

fn get(backend: &Backend, query: &str) -> Answer {
    let answer = call(backend, query).answer();
    assert_eq!((answer.status(), answer.log.as_str()), (200, ""), "{query}");
    answer
}

fn publish_is_confirmed(kind: Kind) {
    let backend = Backend::start(kind);
    assert_eq!(get(&backend, "publish=a").body, "true");
    let posted = call(&backend, "").form("publish=a&data=x").answer();
    let cursor = posted.cursor("a").1;
    assert_eq!(posted.body, format!(r#"{{"s":1,"k":{{"a":{cursor}}}}}"#));
    assert_eq!(get(&backend, "subscribed[a]=0&wait=0").cursor("a"), ('0', cursor));
}

fn message_is_replayed_byte_for_byte(kind: Kind) {
    let backend = Backend::start(kind);
    let post = |data: &str| {
        let posted = call(&backend, "").form(&format!("publish=a&data={data}")).answer();
        posted.cursor("a").1
    };
    let (one, two) = (post("one"), post("two%0A%22%C3%A9"));
    let second = format!(r#"{{"id":{two},"data":"two\n\"é"}}"#);
    let news = get(&backend, &format!("subscribed[a]={one}&subscribed[b]=0"));
    assert_eq!(news.body, format!(r#"{{"s":1,"k":{{"a":{two}}},"m":{{"a":[{second}]}}}}"#));
    let all = get(&backend, "subscribed[a]=earliest");
    let both = format!(r#"[{{"id":{one},"data":"one"}},{second}]"#);
    assert_eq!(all.body, format!(r#"{{"s":1,"k":{{"a":{two}}},"m":{{"a":{both}}}}}"#));
}

/// The cursor is not that of now, because a process that talks to a server sleeps too and may
/// not have read yet.
fn publish_wakes_a_waiter(kind: Kind) {
    let backend = Backend::start(kind);
    let mut at = [("a", "0.1".to_owned()), ("b", "0.1".to_owned())];
    for round in 0..6 {
        let [a, b] = at.each_ref().map(|(_, cursor)| cursor);
        let waiter = call(&backend, &format!("subscribed[a]={a}&subscribed[b]={b}")).waiting();
        let (topic, cursor) = &mut at[round % 2];
        get(&backend, &format!("publish={topic}&data={round}"));
        let answer = waiter.answer();
        assert!(answer.body.contains(&format!(r#""data":"{round}""#)), "{answer:?}");
        *cursor = answer.cursor(topic).1;
    }
}

fn quiet_wait_ends_with_unchanged_cursors(kind: Kind) {
    let backend = Backend::start(kind);
    let at = call(&backend, "").form("publish=a").answer().cursor("a").1;
    for wait in ["0", "0.2"] {
        let query = format!("subscribed[a]={at}&subscribed[b]=&wait={wait}");
        let body = format!(r#"{{"s":0,"k":{{"a":{at},"b":0.100000}}}}"#);
        assert_eq!(get(&backend, &query).body, body);
    }
}

/// A user has removed the file, so there is no gap. In a server's memory it is a loss.
fn lost_messages_are_a_gap(kind: Kind) {
    let backend = Backend::start(kind);
    let at = call(&backend, "").form("publish=a&data=x").answer().cursor("a").1;
    backend.lose_everything();
    let lost = get(&backend, &format!("subscribed[a]={at}&wait=0")).body;
    match kind {
        Kind::File => assert_eq!(lost, format!(r#"{{"s":0,"k":{{"a":{at}}}}}"#)),
        _ => assert_eq!(lost, r#"{"s":1,"k":{"a":0.100000},"gap":["a"]}"#),
    }
    let next = call(&backend, "").form("publish=a&data=y").answer().cursor("a").1;
    let m = format!(r#""m":{{"a":[{{"id":{next},"data":"y"}}]}}"#);
    let k = format!(r#""k":{{"a":{next}}}"#);
    let since = |cursor: &str| get(&backend, &format!("subscribed[a]={cursor}")).body;
    assert_eq!(since(&at), format!(r#"{{"s":1,{k},{m},"gap":["a"]}}"#));
    assert_eq!(since("0.100000"), format!(r#"{{"s":1,{k},{m}}}"#));
}

fn stream_continues_where_it_ended(kind: Kind) {
    let backend = Backend::start(kind);
    get(&backend, "publish=a&data=one");
    let query = "subscribed[a]=earliest&subscribed[b]=0&wait=0&stream=1";
    let first = get(&backend, query).body;
    assert!(first.ends_with("\ndata: one\n\n"), "{first}");
    let id = first.rsplit_once("\nid: ").unwrap().1.split('\n').next().unwrap();
    get(&backend, "publish=a&data=two");
    let resumed = get(&backend, &format!("{query}&lastEventId={id}")).body;
    assert!(resumed.ends_with("\ndata: two\n\n") && !resumed.contains("data: one"), "{resumed}");
}

/// Topics without a message, with one, and with an event after it.
fn latest_has_the_newest_message(kind: Kind) {
    let backend = Backend::start(kind);
    let latest = "subscribed[a]=latest&subscribed[b]=latest&subscribed[c]=0&wait=0";
    let quiet = r#"{"s":0,"k":{"a":0.100000,"b":0.100000,"c":0.100000}}"#;
    assert_eq!(get(&backend, latest).body, quiet);
    let post = |form| call(&backend, "").form(form).answer().cursor(&form[8..9]).1;
    post("publish=a&data=one");
    let two = post("publish=a&data=two");
    let (b, c) = (post("publish=b"), post("publish=c&data=x"));
    let m = format!(r#""m":{{"a":[{{"id":{two},"data":"two"}}]}}"#);
    assert_eq!(get(&backend, latest).body, format!(r#"{{"s":1,"k":{{"a":{two}}},{m}}}"#));
    let rest = get(&backend, &latest.replacen("latest", &two, 1)).body;
    assert_eq!(rest, format!(r#"{{"s":0,"k":{{"a":{two},"b":{b},"c":{c}}}}}"#));
    let touched = post("publish=a");
    let news = get(&backend, latest).body;
    assert_eq!(news, format!(r#"{{"s":1,"k":{{"a":{touched}}},{m}}}"#));
}

/// A client that has seen only the start of the stream gets the same again.
fn stream_from_latest_starts_with_the_newest_message(kind: Kind) {
    let backend = Backend::start(kind);
    let post = |data: &str| {
        call(&backend, "").form(&format!("publish=a&data={data}")).answer().cursor("a").1
    };
    let [_, two] = ["one", "two"].map(post);
    let latest = "subscribed[a]=latest&subscribed[b]=latest&wait=0";
    for query in [latest, "subscribed[a]=0&subscribed[b]=0&wait=0&lastEventId=12kw-12kw"] {
        let json = get(&backend, &format!("{query}&stream=json")).body;
        let begin = r#"data: {"s":0,"k":{"a":0.050000,"b":0.100000}}"#;
        let m = format!(r#""m":{{"a":[{{"id":{two},"data":"two"}}]}}"#);
        assert!(json.contains(&format!("\nid: 12kw-255s\n{begin}\n\n")), "{json}");
        let end = format!("\ndata: {{\"s\":1,\"k\":{{\"a\":{two}}},{m}}}\n\n");
        assert!(json.ends_with(&end), "{json}");
        for (named, event) in [("1", "event: a\n"), ("0", "")] {
            let text = get(&backend, &format!("{query}&stream=1&named={named}")).body;
            let (begin, news) = text.split_once("\n\n").unwrap();
            assert!(begin.ends_with("\nid: 12kw-255s"), "{text}");
            assert!(news.starts_with(event) && news.ends_with("-255s\ndata: two\n\n"), "{text}");
        }
    }
}

fn each_unusual_id_is_a_topic(kind: Kind) {
    let backend = Backend::start(kind);
    for id in ["a%2Fb", "..%2F..%2Fetc", "a%252Fb", "a%20b", "a%5D%5Bb", "%7Ba%7D", "%2A", "%24"] {
        get(&backend, &format!("publish={id}&data={id}"));
        let answer = get(&backend, &format!("subscribed[{id}]=earliest"));
        assert_eq!(answer.body.matches("\"data\":").count(), 1, "{answer:?}");
    }
}

fn several_topics_get_the_same_message(kind: Kind) {
    let backend = Backend::start(kind);
    let posted = call(&backend, "").form("publish=a&publish=b&data=x").answer();
    let news = get(&backend, "subscribed[a]=earliest&subscribed[b]=earliest");
    for id in ["a", "b"] {
        assert_eq!(news.cursor(id), posted.cursor(id));
    }
}

fn batch_is_published_in_order(kind: Kind) {
    let backend = Backend::start(kind);
    let entries = r#"[{"publish":"a","data":"one"},{"publish":"b"},{"publish":"a","data":"two"}]"#;
    let answer = call(&backend, "").form(&batch(entries)).answer();
    let parts: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let news = get(&backend, "subscribed[a]=earliest&subscribed[b]=0.1").body;
    let news: serde_json::Value = serde_json::from_str(&news).unwrap();
    let messages = news["m"]["a"].as_array().unwrap();
    for (message, part, data) in [(0, 0, "one"), (1, 2, "two")] {
        assert_eq!((&messages[message]["data"], &parts[part]["s"]), (&data.into(), &1.into()));
        assert_eq!(messages[message]["id"], parts[part]["k"]["a"]);
    }
    assert_eq!((messages.len(), &news["k"]["b"]), (2, &parts[1]["k"]["b"]));
}

// Redis, used by any language.

#[test]
fn plain_xadd_is_a_publish() {
    let backend = Backend::start(Kind::Redis);
    let mut at = "0.1".to_owned();
    for round in 0..20 {
        let waiter = call(&backend, &format!("subscribed[a]={at}")).waiting();
        let id = backend.redis(&["XADD", "novcomet:a", "*", "data", "from afar"]);
        let answer = waiter.answer();
        let cursor = answer.cursor("a").1;
        let message = format!(r#""m":{{"a":[{{"id":{cursor},"data":"from afar"}}]}}"#);
        assert!(answer.body.contains(&message), "{round}: {answer:?}");
        let (milliseconds, rest) = id.trim().split_once('-').unwrap();
        let within: u64 = rest.parse().unwrap();
        let shift = u64::from(milliseconds.ends_with("000"));
        let micros = milliseconds.parse::<u64>().unwrap() * 1000 + within + shift;
        assert_eq!(cursor, format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000));
        at = call(&backend, "").form("publish=a&data=ours").answer().cursor("a").1;
    }
    let waiter = call(&backend, &format!("subscribed[a]={at}")).waiting();
    backend.redis(&["XADD", "novcomet:a", "*", "hello", "world"]);
    assert!(!waiter.answer().body.contains("\"m\""), "an event without a message");
}

/// Other programs may add any number of entries without a message.
#[test]
fn latest_finds_the_message_before_foreign_events() {
    let backend = Backend::start(Kind::Redis);
    call(&backend, "").form("publish=a&data=one").answer();
    let id = call(&backend, "").form("publish=a&data=two").answer().cursor("a").1;
    let script = "for i = 1, 700 do redis.call('XADD', KEYS[1], '*', 'x', i) end return 'OK'";
    assert_eq!(backend.redis(&["EVAL", script, "1", "novcomet:a"]), "OK\n");
    let news = get(&backend, "subscribed[a]=latest&wait=0");
    assert!(news.body.ends_with(&format!(r#""m":{{"a":[{{"id":{id},"data":"two"}}]}}}}"#)));
    assert!(news.cursor("a").1 > id);
}

/// Entries of one moment of the server, as a script or a transaction adds them. There are more
/// entries than a millisecond has microseconds, at the beginning of a second.
#[test]
fn foreign_burst_is_read_in_order() {
    let backend = Backend::start(Kind::Redis);
    for millisecond in ["1795415403000", "1795415403999"] {
        backend.redis(&["DEL", "novcomet:a"]);
        let add = format!("redis.call('XADD', KEYS[1], '{millisecond}-'..i, 'data', i)");
        let script = format!("for i = 0, 1499 do {add} end return 'OK'");
        assert_eq!(backend.redis(&["EVAL", &script, "1", "novcomet:a"]), "OK\n");
        let mut cursor = "0.1".to_owned();
        let mut next = 0;
        while next < 1500 {
            let query = format!("subscribed[a]={cursor}");
            let call = call(&backend, &query).variable("NOVCOMET_KEEP", "10000");
            let answer = call.variable("NOVCOMET_KEEP_AGE", "1e15").answer();
            let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
            for message in body["m"]["a"].as_array().unwrap() {
                assert_eq!(message["data"], next.to_string());
                next += 1;
            }
            let (s, at) = answer.cursor("a");
            assert!(s == '1' && !at.ends_with(".000000") && !answer.body.contains("gap"));
            cursor = at;
        }
    }
}

#[test]
fn prefix_and_database_separate_sites() {
    let backend = Backend::start(Kind::Redis);
    let url = |rest: &str| format!("{}?{rest}", backend.url());
    let ask = |url: &str, query: &str| {
        call(&backend, query).variable("NOVCOMET_STORE", url).answer().body
    };
    let sites = [url("prefix=one:"), url("prefix=two:"), url("prefix=one:&db=1")];
    for site in &sites {
        assert_eq!(ask(site, "subscribed[a]=0&wait=0"), r#"{"s":0,"k":{"a":0.100000}}"#);
        assert_eq!(ask(site, "publish=a&data=x"), "true");
    }
    assert_eq!(backend.redis(&["KEYS", "*:a"]).lines().count(), 2);
}

/// The system's resolver looks up the name.
#[test]
fn host_name_of_server_is_resolved() {
    let hostname = Command::new("uname").arg("-n").output().unwrap().stdout;
    let hostname = String::from_utf8(hostname).unwrap();
    let known = Command::new("getent").args(["ahosts", hostname.trim()]).output().unwrap();
    if !known.status.success() {
        not_run("a server by its name", "a host name that is known");
        return;
    }
    let url = format!("redis://{}:1/0", hostname.trim());
    let answer = Call::new().variable("NOVCOMET_STORE", &url);
    let answer = answer.variable("QUERY_STRING", "publish=a").answer();
    answer.assert_problem(503);
    assert!(answer.log.contains("refused"), "{answer:?}");
    let url = "redis://nowhere.invalid:1/0";
    let answer = Call::new().variable("NOVCOMET_STORE", url);
    let answer = answer.variable("QUERY_STRING", "publish=a").answer();
    answer.assert_problem(503);
    assert!(answer.log.contains("nowhere.invalid"), "{answer:?}");
    // An EventSource would be closed for ever by a 503.
    let answer = Call::new().variable("NOVCOMET_STORE", url);
    let answer = answer.variable("QUERY_STRING", "subscribed[a]=0&stream=1").answer();
    assert!(answer.is_postponed(), "{answer:?}");
}

//! Hostile requests of Bayeux: bounds, and fields of a type that nobody expects.

use serde_json::{Value, json};

use super::bayeux::{Client, delivered, pair, replies};
use crate::support::binary::{Answer, Store};

/// What stands where nothing is repeated.
const MARK: &str = "MARK";

fn send(store: &Store, body: &str) -> Answer {
    let call = store.query("").variable("SCRIPT_NAME", "/bayeux").form(body);
    call.variable("CONTENT_TYPE", "application/json").answer()
}

fn nested(depth: usize) -> String {
    format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn request_has_bounds() {
    let store = Store::new();
    let message = r#"{"channel":"/a","data":1}"#;
    let many = |count: usize| format!("[{}]", vec![message; count].join(","));
    assert_eq!(replies(&send(&store, &many(64))).len(), 64);
    send(&store, &many(65)).assert_problem(413);
    let form = vec![format!("message={}", many(33)); 2].join("&");
    let call = store.query("").variable("SCRIPT_NAME", "/bayeux").form(&form);
    call.variable("CONTENT_TYPE", "application/x-www-form-urlencoded").answer().assert_problem(413);
    for (depth, is_done) in [(127, true), (128, false), (10_000, false)] {
        let body = format!(r#"{{"channel":"/a","data":{}}}"#, nested(depth));
        assert_eq!(replies(&send(&store, &body))[0]["successful"], is_done, "{depth}");
        for body in [nested(depth), format!("[{}]", nested(depth))] {
            send(&store, &body).assert_problem(400);
        }
    }
    let long = |bytes: usize| format!(r#"{{"channel":"/a","data":"{}"}}"#, "x".repeat(bytes));
    assert_eq!(replies(&send(&store, &long(65_000)))[0]["successful"], true);
    let answer = send(&store, &long(10_000_000));
    assert!(answer.status() == 413 || replies(&answer)[0]["successful"] == false, "{answer:?}");
}

#[test]
fn session_has_a_bound_of_subscriptions() {
    let store = Store::new();
    let client = Client::begin(&store);
    let names = |from: usize, to: usize| (from..to).map(|it| format!("/{it}")).collect::<Vec<_>>();
    let subscribe = |names: Vec<String>| {
        client.say(json!([{"channel": "/meta/subscribe", "subscription": names}])).remove(0)
    };
    assert_eq!(subscribe(names(0, 64))["successful"], true);
    assert_eq!(subscribe(names(0, 64))["successful"], true, "it has them");
    for one in ["/64", "/*", "/**"] {
        let refused = subscribe(vec![one.to_owned()]);
        let error = format!("413:{one}:a session has at most 64 subscriptions");
        assert_eq!(refused["error"], error);
    }
    let leave = json!([{"channel": "/meta/unsubscribe", "subscription": "/0"}]);
    assert_eq!(client.say(leave)[0]["successful"], true);
    let one_more = subscribe(names(64, 66));
    assert!(one_more["error"].as_str().unwrap().starts_with("413:/65:"), "{one_more}");
    store.query("publish=/64&data=1").answer();
    store.query("publish=/0&data=1").answer();
    assert_eq!(client.poll(None).1, [pair("/64", &json!(1))]);
    let same = subscribe(vec!["/1".to_owned(); 5_000]);
    assert_eq!(same["successful"], true, "one is no more for being named again");
}

/// Each field of each message has a type that nobody expects. The reply is one of the protocol,
/// repeats nothing else, and the session goes on.
#[test]
fn field_of_any_type_is_answered() {
    let store = Store::new();
    let client = Client::begin(&store);
    assert_eq!(client.subscribe("/heard")["successful"], true);
    let channels =
        ["/meta/handshake", "/meta/connect", "/meta/subscribe", "/meta/unsubscribe", "/a"];
    let fields = ["id", "subscription", "ext", "advice", "supportedConnectionTypes", "clientId"];
    let values = [
        "null",
        "true",
        "-1",
        "1e999",
        "[]",
        r#"["MARK"]"#,
        r#"{"MARK":"MARK"}"#,
        r#"{"timeout":-1,"ack":-1,"token":1}"#,
        r#"{"timeout":0.5,"ack":"1"}"#,
        r#"{"timeout":99999999999999,"ack":99999999999999999999}"#,
        r#""\ud800""#,
        r#""\u0000""#,
        &nested(1_000),
    ];
    for channel in channels {
        for field in fields {
            for value in values {
                // An empty connect would be held; it comes last and not alone.
                let base = json!({"channel": channel, "clientId": client.id, "data": 1});
                let mut base = base.as_object().unwrap().clone();
                base.remove(field);
                let rest = serde_json::to_string(&base).unwrap();
                let message = format!(r#"{},"{field}":{value}}}"#, &rest[..rest.len() - 1]);
                let body = format!("[{message},{{\"channel\":\"/service/x\"}}]");
                let answer = send(&store, &body);
                let all = replies(&answer);
                assert_eq!(all.len(), 2, "{body}: {all:?}");
                for mut reply in all {
                    assert!(reply["successful"].is_boolean(), "{body}: {reply}");
                    assert!(matches!(
                        reply["id"],
                        Value::Null | Value::String(_) | Value::Number(_)
                    ));
                    let reply = reply.as_object_mut().unwrap();
                    let subscription = reply.remove("subscription");
                    let is_named = subscription.is_some_and(|it| it.to_string().contains(MARK));
                    let rest = json!(reply).to_string();
                    assert!(is_named || !rest.contains(MARK), "{body}: {rest}");
                }
            }
        }
    }
    store.query("publish=/heard&data=1").answer();
    let mut heard = client.poll(None).1;
    // It may have been answered for the changes of before.
    if heard.is_empty() {
        heard = client.poll(None).1;
    }
    assert_eq!(heard, [pair("/heard", &json!(1))]);
}

/// The last of two fields of one name counts, everywhere.
#[test]
fn double_key_has_one_meaning() {
    let store = Store::new();
    let body =
        r#"{"channel":"/meta/handshake","channel":"/a","data":1,"data":2,"id":"x","id":"y"}"#;
    let reply = replies(&send(&store, body)).remove(0);
    assert_eq!(reply, json!({"channel": "/a", "successful": true, "id": "y"}));
    let heard = store.query("subscribed[/a]=earliest").answer().body;
    assert!(heard.contains(r#""data":"2"}"#) && !heard.contains(r#""data":"1"}"#), "{heard}");
}

#[test]
fn unknown_field_is_never_repeated() {
    let store = Store::new();
    let client = Client::begin(&store);
    let more = r#""__proto__":{"MARK":1},"constructor":"MARK","MARK":"MARK","timestamp":"MARK""#;
    for channel in ["/meta/handshake", "/meta/subscribe", "/meta/x", "/service/x", "/a", ""] {
        let body = format!(
            r#"[{{"channel":"{channel}","clientId":"{}","data":{{"a":1}},"subscription":"/a",{more},
               "ext":{{"MARK":1}},"connectionType":"MARK","version":"MARK","minimumVersion":"MARK",
               "supportedConnectionTypes":["MARK","long-polling"],"advice":{{"MARK":1}}}}]"#,
            client.id
        );
        let answer = send(&store, &body);
        assert!(replies(&answer).len() == 1 && !answer.body.contains(MARK), "{answer:?}");
        assert!(!answer.head.contains(MARK));
    }
    client.publish("/a", &json!({"__proto__": {"a": 1}}));
    let heard = delivered(&client.connect(None).answer()).1;
    assert_eq!(heard.last().unwrap().1, json!({"__proto__": {"a": 1}}), "data is the client's own");
    for body in [r#""MARK""#, r#"["MARK"]"#, r#"{"MARK"}"#, r#"[{"channel":"/a"},"MARK"]"#] {
        let answer = send(&store, body);
        answer.assert_problem(400);
        assert!(!answer.body.contains(MARK), "{answer:?}");
    }
}

/// The text of other publishers may look like JSON. A client whose parser is strict reads each
/// answer all the same.
#[test]
fn odd_text_is_a_string() {
    let store = Store::new();
    let client = Client::begin(&store);
    client.subscribe("/a");
    let odd = [nested(1_000), r#""\ud800""#.to_owned(), "[1,]".to_owned(), "NaN".to_owned()];
    for text in &odd {
        let call = store.query("publish=/a").form(text).variable("CONTENT_TYPE", "text/plain");
        assert_eq!(call.answer().status(), 200);
    }
    let mut heard = Vec::new();
    while heard.len() < odd.len() {
        heard.extend(client.poll(None).1);
    }
    assert!(heard.into_iter().map(|(_, data)| data).eq(odd.map(Value::String)));
}

/// With longer channels, the shortest log would be too long for any change.
#[test]
fn subscriptions_are_bounded_together() {
    let store = Store::new();
    let client = Client::begin(&store);
    let mut refused = None;
    for number in 0..40 {
        let channel = format!("/{number}{}", "x".repeat(1_000));
        let reply = client.subscribe(&channel);
        if reply["successful"] == false {
            refused = Some((number, reply["error"].clone()));
            break;
        }
    }
    let (number, error) = refused.unwrap();
    assert!(number > 25, "{number}");
    assert!(error.as_str().unwrap().starts_with("413:"), "{error}");
    for _ in 0..3 {
        client.publish("/1", &json!(0));
        let connect = client.say(json!([{"channel": "/meta/connect"}, {"channel": "/meta/x"}]));
        assert_eq!(connect[1]["successful"], true, "{connect:?}");
    }
}

/// Each message to a topic that another process holds takes 2 s.
#[test]
fn messages_end_within_seconds_of_their_limit() {
    let store = Store::new();
    let file = std::fs::File::create(store.file("%2Fa")).unwrap();
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let begin = std::time::Instant::now();
    let message = json!({"channel": "/a", "data": 1});
    let answer = super::bayeux::call(&store, &json!(vec![message; 9])).answer();
    assert!(begin.elapsed() < std::time::Duration::from_secs(6), "{:?}", begin.elapsed());
    let late = "503::the messages before this one took too long";
    assert!(answer.body.ends_with(&format!("\"error\":\"{late}\"}}]")), "{}", answer.body);
}

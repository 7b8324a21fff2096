//! What the binary tells of topics: what is kept, and their names.

use crate::support::binary::{Answer, Call, Store};
use crate::support::tokens::Keys;

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

fn quote(example: &str) {
    assert!(PROTOCOL.contains(&format!("    {example}\n")), "not in docs/protocol.md: {example}");
}

fn publish(store: &Store, topic: &str, data: &str) -> String {
    store.query("").form(&format!("publish={topic}&data={data}")).answer().cursor(topic).1
}

fn ask(store: &Store, query: &str) -> Answer {
    store.query(query).method("GET").answer()
}

#[test]
fn info_tells_what_is_kept() {
    let store = Store::new();
    let first = publish(&store, "a", "hello");
    let last = publish(&store, "a", "world");
    let example = r#"{"topics":{"a":{"last":1795415403.163847,"oldest":1795415391.004211,"messages":2,"bytes":10},"b":{"last":null,"oldest":null,"messages":0,"bytes":0}}}"#;
    quote(example);
    let expected = example.replace("1795415403.163847", &last).replace("1795415391.004211", &first);
    assert_eq!(ask(&store, "info[a]=1&info[b]=1").body, expected);
    assert_eq!(store.names(), ["a.comet"], "asking makes no topic");
    let event = store.query("").form("publish=a").answer().cursor("a").1;
    assert!(ask(&store, "info[a]=1").body.contains(&format!(r#""last":{event},"#)));
    let kept = ask(&store, "info[a]=1&info[a]=1&info%5Ba%5D=1");
    assert_eq!(kept.body.matches("last").count(), 1, "{kept:?}");
    assert_eq!(store.query("info[a]=1").method("HEAD").answer().body, "");
    for query in ["info[]=1", "info[a", "info[a][b]=1", "info"] {
        ask(&store, query).assert_problem(400);
    }
    let many: Vec<_> = (0..65).map(|number| format!("info[{number}]=1")).collect();
    ask(&store, &many.join("&")).assert_problem(400);
}

/// A message that is no longer kept does not count.
#[test]
fn info_counts_no_dropped_message() {
    let store = Store::new();
    publish(&store, "a", "old");
    let second = publish(&store, "a", "new");
    let call = store.query("info[a]=1").method("GET").variable("NOVCOMET_KEEP", "1");
    let kept = format!(r#""oldest":{second},"messages":1,"bytes":3"#);
    assert!(call.answer().body.contains(&kept));
}

#[test]
fn info_needs_the_right_to_subscribe() {
    let store = Store::new();
    let keys = Keys::new();
    publish(&store, "secret/a", "x");
    let ask = |token: &str| {
        let call = private(&store, &keys, "info[secret/a]=1", token);
        call.answer().status()
    };
    assert_eq!(ask(""), 401);
    assert_eq!(ask(&keys.token(r#"{"subscribe":["other"]}"#)), 403);
    assert_eq!(ask(&keys.token(r#"{"publish":["*"]}"#)), 403);
    assert_eq!(ask(&keys.token(r#"{"subscribe":["secret/*"]}"#)), 200);
    let none = store.query("info[a]=1").method("GET").variable("NOVCOMET_SUBSCRIBE", "none");
    assert_eq!(none.answer().status(), 403);
}

fn private(store: &Store, keys: &Keys, query: &str, token: &str) -> Call {
    let call = store.query(query).method("GET").variable("NOVCOMET_PRIVATE", "secret/*");
    let call = call.variable("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
    match token {
        "" => call,
        token => call.variable("HTTP_AUTHORIZATION", &format!("Bearer {token}")),
    }
}

#[test]
fn topics_are_listed_by_prefix() {
    let store = Store::new();
    for topic in ["news/b", "news/a", "other"] {
        publish(&store, topic, "x");
    }
    let example = r#"{"topics":["news/a","news/b"]}"#;
    quote(example);
    assert_eq!(ask(&store, "topics=news/").body, example);
    assert_eq!(ask(&store, "topics=").body, r#"{"topics":["news/a","news/b","other"]}"#);
    assert_eq!(ask(&store, "topics=news/&after=news/a").body, r#"{"topics":["news/b"]}"#);
    assert_eq!(ask(&store, "topics=x").body, r#"{"topics":[]}"#);
    ask(&store, "topics=%ff").assert_problem(400);
}

#[test]
fn long_list_goes_on() {
    let store = Store::new();
    for number in 0..1_001 {
        std::fs::write(store.file(&format!("{number:04}")), "").unwrap();
    }
    let first = ask(&store, "topics=").body;
    assert!(first.ends_with(r#""0999"],"after":"0999"}"#), "{first}");
    assert_eq!(ask(&store, "topics=&after=0999").body, r#"{"topics":["1000"]}"#);
}

/// A list never names a private topic to one whose token does not grant it.
#[test]
fn private_topics_are_listed_for_their_subscribers_only() {
    let store = Store::new();
    let keys = Keys::new();
    for topic in ["public", "secret/a", "secret/b"] {
        publish(&store, topic, "x");
    }
    let list = |token: &str| {
        let answer = private(&store, &keys, "topics=", token).answer();
        assert_eq!(answer.status(), 200, "{answer:?}");
        answer.body
    };
    assert_eq!(list(""), r#"{"topics":["public"]}"#);
    assert_eq!(list(&keys.token(r#"{"subscribe":["other"]}"#)), r#"{"topics":["public"]}"#);
    let one = keys.token(r#"{"subscribe":["secret/a"]}"#);
    assert_eq!(list(&one), r#"{"topics":["public","secret/a"]}"#);
    let all = keys.token(r#"{"subscribe":["secret/*"]}"#);
    assert_eq!(list(&all), r#"{"topics":["public","secret/a","secret/b"]}"#);
    let call =
        |token| private(&store, &keys, "topics=", token).variable("NOVCOMET_SUBSCRIBE", "token");
    assert_eq!(call("").answer().status(), 401);
    assert_eq!(call(&one).answer().body, r#"{"topics":["secret/a"]}"#);
}

/// A private update counts only for those who may read it.
#[test]
fn info_counts_no_private_message_for_others() {
    let (store, keys) = (Store::new(), Keys::new());
    let update = store.query("").form("topic=a&data=hello&private=on");
    let update = update.variable("SCRIPT_NAME", "/.well-known/mercure");
    let update = update.variable("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
    let update = update.variable("GATEWAY_INTERFACE", "CGI/1.1");
    let bearer = format!("Bearer {}", keys.token(r#"{"publish":["*"]}"#));
    assert_eq!(update.variable("HTTP_AUTHORIZATION", &bearer).answer().status(), 200);
    let ask = |token: &str| {
        let call = private(&store, &keys, "info[a]=1", token);
        call.variable("GATEWAY_INTERFACE", "CGI/1.1").answer().body
    };
    assert!(ask("").contains(r#""messages":0,"bytes":0"#), "{}", ask(""));
    let granted = ask(&keys.token(r#"{"subscribe":["a"]}"#));
    assert!(granted.contains(r#""messages":1,"bytes":5"#), "{granted}");
}

#[test]
fn names_in_a_question_are_bounded_and_count_once() {
    let store = Store::new();
    let one = "x".repeat(1_000);
    let same = format!("info[{one}]=1&").repeat(7);
    assert_eq!(ask(&store, &same).body.matches("messages").count(), 1);
    for (name, count, status) in [("info", 8, 200), ("info", 9, 413), ("who", 9, 413)] {
        let names = (0..count).map(|number| format!("{name}[{number}{one}]=1"));
        let form = names.collect::<Vec<_>>().join("&");
        assert_eq!(store.query("").form(&form).answer().status(), status, "{count} of {name}");
    }
}

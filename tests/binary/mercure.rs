//! The hub of Mercure in the real binary: what it publishes, and what it refuses.

use novcomet::protocol::mercure::{MAX_FIELD, MAX_MATCHER, MAX_MATCHERS, MAX_TOPICS};
use serde_json::Value;

use crate::support::binary::{Answer, Call, Store};
use crate::support::tokens::Keys;

const PAGE: &str = include_str!("../../docs/mercure.md");
const HUB: &str = "/.well-known/mercure";
const METADATA: &str = "/.well-known/oauth-protected-resource/.well-known/mercure";

/// Whether docs/mercure.md has this example.
fn quote(example: &str) -> &str {
    assert!(PAGE.contains(&format!("    {example}\n")), "not in docs/mercure.md: {example}");
    example
}

/// A store with a hub, which needs tokens of 0.x to publish.
struct House {
    store: Store,
    keys: Keys,
}

impl House {
    fn new() -> Self {
        Self { store: Store::new(), keys: Keys::new() }
    }

    fn at(&self, path: &str, query: &str) -> Call {
        let call = self.store.query(query).method("GET").variable("SCRIPT_NAME", path);
        call.variable("HTTP_HOST", "example.com")
            .variable("NOVCOMET_MERCURE_ANONYMOUS", "on")
            .variable("NOVCOMET_TOKEN_KEY", &self.keys.path("hs"))
    }

    fn subscribe(&self, query: &str) -> Answer {
        self.at(HUB, query).answer()
    }

    /// As symfony/mercure sends it.
    fn post(&self, form: &str, token: &str) -> Call {
        self.at(HUB, "")
            .form(form)
            .variable("CONTENT_TYPE", "application/x-www-form-urlencoded")
            .variable("HTTP_AUTHORIZATION", &format!("Bearer {token}"))
    }

    fn publish(&self, form: &str) -> Answer {
        self.post(form, &self.keys.token(r#"{"publish":["*"]}"#)).answer()
    }
}

fn challenge(answer: &Answer) -> Option<&str> {
    answer.head.lines().find_map(|line| line.strip_prefix("WWW-Authenticate: "))
}

#[test]
fn limits_are_documented() {
    for text in [
        format!("At most {MAX_TOPICS}, of 1,024 bytes each."),
        format!("there can be {MAX_MATCHERS} of 4,096 bytes each"),
    ] {
        assert!(PAGE.contains(&text), "{text}");
    }
    assert_eq!((MAX_MATCHER, MAX_FIELD), (4_096, 1_024));
}

#[test]
fn publish_answers_with_the_id() {
    let house = House::new();
    let topic =
        quote("topic=https%3A%2F%2Fexample.com%2Fbooks%2F1&data=%7B%22status%22%3A%22sold%22%7D");
    let answer = house.publish(topic);
    assert_eq!(answer.status(), 200, "{answer:?}");
    assert!(answer.head.contains("\r\nContent-Type: text/plain; charset=utf-8\r\n"), "{answer:?}");
    let example = quote("#hof6g6si4n");
    let digits = answer.body.strip_prefix('#').unwrap_or_else(|| panic!("{answer:?}"));
    assert!(digits.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase()));
    assert_eq!((answer.body.len(), answer.log.as_str()), (example.len(), ""));
}

#[test]
fn update_reaches_our_own_subscribers() {
    let house = House::new();
    assert_eq!(house.publish("topic=a&data=one&unknown=x").status(), 200);
    let news = house.store.query("subscribed[a]=earliest").answer();
    assert!(news.body.contains(r#""data":"one""#), "{news:?}");
}

#[test]
fn publishers_own_id_is_the_answer() {
    assert_eq!(House::new().publish("topic=a&id=urn:uuid:a").body, "urn:uuid:a");
}

#[test]
fn invalid_updates_publish_nothing() {
    let house = House::new();
    let topics = (0..65).map(|number| format!("topic={number}")).collect::<Vec<_>>().join("&");
    let long = "x".repeat(1_025);
    for (form, status) in [
        ("data=a", 400),
        ("topic=*", 400),
        ("topic=a&topic=%2F.well-known%2Fmercure%2Fsubscriptions%2Fa", 400),
        // The URL of that topic has %6D, an encoded m.
        ("topic=a&topic=https://example.com/.well-known/%256Dercure", 400),
        ("topic=a%00", 400),
        ("topic=a&data=%FF", 400),
        ("topic=a&id=%23a", 400),
        ("topic=a&id=earliest", 400),
        ("topic=a&type=mercure", 400),
        ("topic=a&type=a%0Adata:b", 400),
        ("topic=a&retry=1.5", 400),
        (&topics, 413),
        (&format!("topic=a&topic={long}"), 413),
        (&format!("topic=a&id={long}"), 413),
    ] {
        let answer = house.publish(form);
        answer.assert_problem(status);
        assert_eq!(challenge(&answer), None, "{form}");
    }
    let token = house.keys.token(r#"{"publish":["*"]}"#);
    let long = house.post("topic=a&data=long", &token).variable("NOVCOMET_MAX_DATA", "3");
    long.answer().assert_problem(413);
    let text = house.post("topic=a", &token).variable("CONTENT_TYPE", "text/plain");
    text.answer().assert_problem(415);
    house.post("", &token).answer().assert_problem(400);
    assert_eq!(house.store.names(), [""; 0]);
}

#[test]
fn refusal_says_what_is_wrong_with_the_token() {
    let house = House::new();
    let documented = |challenge: &str| {
        assert!(PAGE.contains(&format!("| `{challenge}` |\n")), "{challenge}");
        Some(challenge.to_owned())
    };
    let refused = |call: Call, status| {
        let answer = call.answer();
        answer.assert_problem(status);
        challenge(&answer).map(str::to_owned)
    };
    let bare = house.at(HUB, "").form("topic=a");
    assert_eq!(refused(bare, 401), documented("Bearer"));
    let wrong = house.post("topic=a", "a.b.c");
    assert_eq!(refused(wrong, 401), documented(r#"Bearer error="invalid_token""#));
    for claims in [r#"{"publish":["b"]}"#, r#"{"subscribe":["*"]}"#] {
        let small = house.post("topic=b&topic=a", &house.keys.token(claims));
        assert_eq!(refused(small, 403), documented(r#"Bearer error="insufficient_scope""#));
    }
    assert_eq!(house.store.names(), [""; 0]);
}

#[test]
fn invalid_subscriptions_are_refused() {
    let house = House::new();
    let many = vec!["topic=a"; 101].join("&");
    let long = format!("topic={}", "x".repeat(4_097));
    for query in [
        "",
        "Topic=a",
        "match=a&topic=a",
        "Match=a",
        "match=a&matcher=a",
        "match_regexp=a",
        "topic=%FF",
        "match=a%0A",
        &many,
        &long,
    ] {
        house.subscribe(query).assert_problem(400);
    }
}

#[test]
fn head_has_the_documented_lines() {
    for query in ["topic=a", "match=a"] {
        let answer = House::new().at(HUB, query).method("HEAD").answer();
        assert_eq!(answer.body, "");
        for line in answer.head.lines() {
            quote(line);
        }
        assert_eq!(answer.head.lines().count(), 7, "{answer:?}");
    }
}

#[test]
fn methods_are_told() {
    let house = House::new();
    let methods = "GET, HEAD, POST, QUERY, OPTIONS";
    assert!(PAGE.contains(&format!("`{methods}`")));
    for (method, status) in [("OPTIONS", 204), ("PUT", 405), ("DELETE", 405)] {
        let answer = house.at(HUB, "topic=a").method(method).answer();
        assert_eq!(answer.status(), status, "{answer:?}");
        let allow = format!("Allow: {methods}");
        assert!(answer.head.lines().any(|line| line == allow), "{answer:?}");
    }
}

#[test]
fn query_method_takes_matchers_from_the_form() {
    let house = House::new();
    let ask = |form: &str| house.at(HUB, "last_event_id=a").form(form).method("QUERY");
    ask("match=a&topic=b").answer().assert_problem(400);
    ask("").answer().assert_problem(400);
    ask("match=a").variable("CONTENT_TYPE", "application/json").answer().assert_problem(415);
    house.store.query("publish=a").form("").method("QUERY").answer().assert_problem(405);
    assert_eq!(house.store.names(), [""; 0]);
}

#[test]
fn hub_describes_itself() {
    let house = House::new();
    house.at(METADATA, "").answer().assert_problem(404);
    let url = "https://example.com/.well-known/mercure";
    let answer = house.at(METADATA, "").variable("NOVCOMET_MERCURE_URL", url).answer();
    assert_eq!(answer.body, quote(&answer.body));
    assert_eq!(serde_json::from_str::<Value>(&answer.body).unwrap()["resource"], url);
}

#[test]
fn url_decides_the_protocol() {
    let house = House::new();
    house.at(HUB, "publish=a").answer().assert_problem(400);
    house.at("/.well-known/mercure/subscriptions", "publish=a").answer().assert_problem(404);
    let below = house.at("/comet.cgi", "publish=a").variable("PATH_INFO", HUB);
    below.answer().assert_problem(400);
    assert_eq!(house.store.names(), [""; 0]);
    assert_eq!(house.at("/comet.cgi", "publish=a").answer().body, "true");
}

/// The streams of a hub, which end soon.
fn stream(house: &House, query: &str) -> Call {
    house.at(HUB, query).variable("NOVCOMET_STREAM", "0.2")
}

#[test]
fn subscriber_gets_what_is_kept() {
    let house = House::new();
    let first = house.publish("topic=a&data=one&type=book&retry=5000").body;
    house.publish("topic=b&topic=a&data=two%0D%0Athree&id=urn:b");
    house.publish("topic=c&data=no");
    let answer = stream(&house, "topic=a&topic=b&lastEventID=earliest").answer();
    assert!(answer.head.ends_with("\r\nLast-Event-ID: earliest"), "{answer:?}");
    let one = format!("event: book\nretry: 5000\nid: {first}\ndata: one\n\n");
    assert_eq!(answer.body, format!(":\n{one}id: urn:b\ndata: two\ndata: three\n\n"));
}

#[test]
fn subscriber_goes_on_after_its_last_id() {
    let house = House::new();
    let first = house.publish("topic=a&data=one").body;
    house.publish("topic=a&data=two&id=urn:b");
    let last = house.publish("topic=a&data=three").body;
    let two = "id: urn:b\ndata: two\n\n";
    let three = format!("id: {last}\ndata: three\n\n");
    for (id, rest) in
        [(first.as_str(), format!("{two}{three}")), ("urn:b", three), (&last, String::new())]
    {
        let answer = stream(&house, "match=a").variable("HTTP_LAST_EVENT_ID", id).answer();
        assert!(answer.head.ends_with(&format!("\r\nMercure-Last-Event-ID: {id}")), "{answer:?}");
        assert_eq!(answer.body, format!(":\n{rest}"), "{id}");
    }
}

#[test]
fn unknown_id_gets_nothing_of_the_past() {
    let house = House::new();
    house.publish("topic=a&data=one");
    for id in ["urn:x", "#", "#-1", "#zzzzzzzzzz", "é"] {
        let answer = stream(&house, "match=a").variable("HTTP_LAST_EVENT_ID", id).answer();
        assert!(answer.head.ends_with("\r\nMercure-Last-Event-ID: earliest"), "{answer:?}");
        assert_eq!(answer.body, ":\n", "{id}");
    }
    let answer = stream(&house, "match=a").answer();
    assert!(!answer.head.contains("Last-Event-ID"), "{answer:?}");
    assert_eq!(answer.body, ":\n");
}

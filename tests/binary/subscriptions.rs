//! The subscription events of Mercure and the subscription API, in the real binary.

use std::io::Read;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::support::binary::{Answer, Call, Store, has_inotify};
use crate::support::tokens::{Keys, now};
use crate::support::wait::eventually;

const PAGE: &str = include_str!("../../docs/mercure.md");
const HUB: &str = "/.well-known/mercure";
const ALL: &str = "/.well-known/mercure/subscriptions";
const URL: &str = "https://example.com/.well-known/mercure";

/// Whether docs/mercure.md has this example.
fn quote(example: &str) {
    assert!(PAGE.contains(&format!("    {example}\n")), "not in docs/mercure.md: {example}");
}

/// A hub that tells who subscribes.
struct House {
    store: Store,
    keys: Keys,
    /// Tokens of 0.x and of 1.0 that grant everything.
    first: String,
    second: String,
}

impl House {
    fn new() -> Self {
        let keys = Keys::new();
        let first = keys.token(r#"{"publish":["*"],"subscribe":["*"],"payload":{"user":"a"}}"#);
        let second = access_token(&keys, r#"{"match":"*"}"#);
        Self { store: Store::new(), keys, first, second }
    }

    fn at(&self, path: &str, query: &str, token: &str) -> Call {
        let uri = format!("{path}?{query}");
        let path = path.replace("%2F", "/");
        let call = self.store.query(query).method("GET").variable("SCRIPT_NAME", &path);
        call.variable("REQUEST_URI", &uri)
            .variable("HTTP_HOST", "example.com")
            .variable("HTTP_AUTHORIZATION", &format!("Bearer {token}"))
            .variable("NOVCOMET_MERCURE_URL", URL)
            .variable("NOVCOMET_MERCURE_SUBSCRIPTIONS", "on")
            .variable("NOVCOMET_TOKEN_KEY", &self.keys.path("hs"))
            .variable("NOVCOMET_MAX_WAITERS", "0")
            .variable("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0")
    }

    fn listen(&self, query: &str, token: &str) -> Listener {
        Listener::of(self.at(HUB, query, token))
    }

    fn ask(&self, path: &str, token: &str) -> Answer {
        self.at(path, "", token).answer()
    }

    fn list(&self, path: &str, token: &str) -> Vec<Value> {
        let answer = self.ask(path, token);
        assert_eq!(answer.status(), 200, "{answer:?}");
        let list: Value = serde_json::from_str(&answer.body).unwrap();
        list["subscriptions"].as_array().unwrap().clone()
    }
}

/// A token of 1.0 to subscribe to what this matcher selects.
fn access_token(keys: &Keys, matcher: &str) -> String {
    let claims = format!(
        r#"{{"exp":{},"aud":"{URL}","authorization_details":[{{"type":"https://mercure.rocks/authorization-detail","actions":["subscribe"],"topics":[{matcher}],"payload":{{"user":"b"}}}}]}}"#,
        now() + 60
    );
    keys.sign(&[("HS256", "hs", r#"{"alg":"HS256","typ":"at+jwt"}"#, claims)]).remove(0)
}

/// A subscriber whose stream has begun.
struct Listener {
    child: Child,
    heard: Arc<Mutex<String>>,
}

impl Listener {
    fn of(call: Call) -> Self {
        let stops = call.command.get_envs().any(|(_, value)| {
            value.and_then(|value| value.to_str()).is_some_and(|value| value.ends_with("=stop"))
        });
        let mut child = call.start().take();
        let (mut stdout, heard) = (child.stdout.take().unwrap(), Arc::<Mutex<String>>::default());
        let text = Arc::clone(&heard);
        thread::spawn(move || {
            let mut buffer = [0; 4_096];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                let mut text = text.lock().unwrap();
                text.push_str(&String::from_utf8_lossy(&buffer[..count]));
                if stops && text.contains(STOP) {
                    break;
                }
            }
        });
        let listener = Self { child, heard };
        listener.hears("\r\n\r\n:\n");
        listener
    }

    fn hears(&self, text: &str) {
        eventually(text, || self.text().contains(text));
    }

    fn text(&self) -> String {
        self.heard.lock().unwrap().clone()
    }

    /// The documents of the hub that it has heard.
    fn documents(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().filter_map(|line| line.strip_prefix("data: {"));
        lines.map(|line| serde_json::from_str(&format!("{{{line}")).unwrap()).collect()
    }
}

/// The data after which a listener of the topic `stop` closes its connection.
const STOP: &str = "data: stop";

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn joining_and_leaving_are_told_in_the_form_of_each_generation() {
    let house = House::new();
    let watcher = house.listen("topic=*", &house.first);
    let one = house.listen("topic=https://example.com/books/1&topic=stop", &house.first);
    watcher.hears("books/1");
    let two =
        house.listen("match_urlpattern=https://example.com/books/:id&match=stop", &house.second);
    watcher.hears("urlpattern");
    let joined = watcher.documents();
    assert_eq!(joined.len(), 4, "{joined:?}");
    assert_eq!(joined[0]["@context"], "https://mercure.rocks/");
    assert_eq!(joined[0]["type"], "Subscription");
    assert_eq!(joined[0]["topic"], "https://example.com/books/1");
    assert_eq!((&joined[0]["active"], &joined[0]["payload"]), (&json!(true), &json!({"user":"a"})));
    assert_eq!(joined[0]["subscriber"], joined[1]["subscriber"]);
    assert_eq!(joined[2]["type"], "subscription");
    assert_eq!(joined[2]["match_type"], "urlpattern");
    assert_eq!(joined[2]["match"], "https://example.com/books/:id");
    assert_eq!(joined[2]["payload"], json!({"user":"b"}));
    assert_eq!(watcher.text().matches("event: mercure\n").count(), 2, "those of 1.0");
    for number in [0, 2] {
        let id = joined[number]["subscriber"].as_str().unwrap().strip_prefix("urn:uuid:").unwrap();
        let text = watcher.text().replace(id, "bb3de268-05b0-8c65-b44e-8f9acefc29d6");
        let line = |line: &&str| line.starts_with("data: {") && line.contains("bb3de268");
        quote(text.lines().find(line).unwrap());
    }
    quote("event: mercure");
    // They know only of those who came after them.
    assert_eq!((one.documents(), two.documents()), (vec![], vec![]));
    assert_eq!(house.store.names(), [""; 0], "nothing is kept");
    // Both close their connections.
    let form = "topic=stop&data=stop";
    let publisher = house.at(HUB, "", &house.first).form(form).answer();
    assert_eq!(publisher.status(), 200, "{publisher:?}");
    eventually("both have gone", || watcher.documents().len() == 8);
    let gone = watcher.documents().split_off(4);
    for (here, gone) in joined.iter().zip(&gone) {
        assert_eq!(gone["active"], false);
        assert!(gone["id"].as_str().unwrap().contains("/subscriptions/"), "{here}");
    }
}

#[test]
fn only_those_who_may_hear_who_subscribes() {
    let house = House::new();
    let topics = r"/.well-known/mercure/subscriptions/{topic}/{subscriber}";
    let other = house.keys.token(r#"{"subscribe":["a","https://example.com/{id}"]}"#);
    let mine = house.keys.token(&format!(r#"{{"subscribe":["{topics}"]}}"#));
    let query = format!("topic={}", topics.replace('{', "%7B").replace('}', "%7D"));
    let stranger = house.listen("topic=*", &other);
    let listener = house.listen(&query, &mine);
    let unasked = house.listen("topic=b", &house.first);
    let _joins = house.listen("topic=c", &other);
    listener.hears("\"topic\":\"c\"");
    assert_eq!(listener.documents().len(), 2);
    for deaf in [stranger, unasked] {
        assert!(!deaf.text().contains("Subscription"), "{}", deaf.text());
    }
}

#[test]
fn notice_leaves_the_place_of_a_subscriber() {
    let house = House::new();
    let publish = |form: &str| house.at(HUB, "", &house.first).form(form).answer().body;
    let watcher = house.listen("topic=*", &house.first);
    let first = publish("topic=a&data=one");
    watcher.hears("data: one");
    let _joins = house.listen("topic=b", &house.first);
    watcher.hears("Subscription");
    let text = watcher.text();
    let id = text.lines().rfind(|line| line.starts_with("id: ")).unwrap();
    let id = id.strip_prefix("id: ").unwrap();
    let (place, own) = id.split_once('/').unwrap();
    assert!(place >= first.as_str() && own.starts_with("urn:uuid:"), "{id} {first}");
    publish("topic=a&data=two");
    let back = house.at(HUB, "topic=a", &house.first).variable("HTTP_LAST_EVENT_ID", id);
    let back = Listener::of(back.variable("NOVCOMET_STREAM", "0.3"));
    back.hears("data: two");
    assert!(back.text().contains(&format!("\r\nLast-Event-ID: {id}\r\n")), "{}", back.text());
    assert!(!back.text().contains("data: one"));
}

#[test]
fn resources_list_who_subscribes() {
    let house = House::new();
    assert_eq!(house.list(ALL, &house.first), [json!(null); 0]);
    let _first = house.listen("topic=a/b&topic=c", &house.first);
    let _second = house.listen("match=a/b", &house.second);
    let list = house.list(ALL, &house.first);
    assert_eq!(list.iter().map(|one| &one["topic"]).collect::<Vec<_>>(), ["a/b", "c"]);
    assert!(list.iter().all(|one| one.get("@context").is_none()), "{list:?}");
    let path = format!("{ALL}/a%2Fb");
    let of_topic = house.list(&path, &house.first);
    assert_eq!(of_topic, list[..1]);
    let id = of_topic[0]["id"].as_str().unwrap();
    let single = house.ask(id, &house.first);
    let document: Value = serde_json::from_str(&single.body).unwrap();
    assert_eq!((&document["id"], &document["active"]), (&json!(id), &json!(true)));
    assert!(document["lastEventID"].as_str().unwrap().starts_with('#'), "{single:?}");
    house.ask(&format!("{ALL}/a%2Fb/urn%3Auuid%3Ax"), &house.first).assert_problem(404);

    let list = house.list(ALL, &house.second);
    assert_eq!(list.len(), 1, "{list:?}");
    assert_eq!((&list[0]["match_type"], &list[0]["match"]), (&json!("exact"), &json!("a/b")));
    assert_eq!(house.list(&format!("{ALL}/exact/a%2Fb"), &house.second), list);
    assert_eq!(house.list(&format!("{ALL}/urlpattern/a%2Fb"), &house.second), [json!(null); 0]);
    house.ask(&format!("{ALL}/regexp/a"), &house.second).assert_problem(400);
    let id = list[0]["id"].as_str().unwrap();
    let single: Value = serde_json::from_str(&house.ask(id, &house.second).body).unwrap();
    assert_eq!(single, list[0]);
}

#[test]
fn head_has_the_type_and_the_link_of_its_generation() {
    let house = House::new();
    let field = |token: &str, name: &str| {
        let answer = house.ask(ALL, token);
        let lines = answer.head.lines().find_map(|line| line.strip_prefix(name));
        lines.unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    };
    assert_eq!(field(&house.first, "Content-Type: "), "application/ld+json");
    assert_eq!(field(&house.first, "Link: "), format!("<{URL}>; rel=\"mercure\""));
    assert_eq!(field(&house.second, "Content-Type: "), "application/json");
    let link = field(&house.second, "Link: ");
    let place = link.split('"').nth(3).unwrap();
    quote(&format!("Link: {}", link.replace(place, "#hof6g6si4n")));
    quote(&house.ask(ALL, &house.second).body);
    let first = house.ask(ALL, &house.first).body;
    let first: Vec<_> = first.split('"').collect();
    let first = first.iter().map(|part| match part.starts_with('#') {
        true => "#hof6g6si4n",
        false => part,
    });
    quote(&first.collect::<Vec<_>>().join("\""));
    let metadata = "/.well-known/oauth-protected-resource/.well-known/mercure";
    let metadata = house.ask(metadata, "").body;
    let member = r#""mercure_subscriptions":true"#;
    assert!(PAGE.contains(member) && metadata.contains(member), "{metadata}");
    let origin = "https://example.org";
    let page = house.at(ALL, "", &house.second).variable("NOVCOMET_ORIGINS", origin);
    let page = page.variable("HTTP_ORIGIN", origin).answer();
    let exposed = "Access-Control-Expose-Headers: Retry-After, Link, ETag\r\n";
    assert!(page.head.contains(exposed), "{page:?}");
    let etag = field(&house.first, "ETag: ");
    let joined = house.listen("topic=a", &house.first);
    assert_ne!(field(&house.first, "ETag: "), etag);
    drop(joined);
}

#[test]
fn resources_need_a_grant_for_their_path() {
    let house = House::new();
    house.at(ALL, "", "").variable("HTTP_AUTHORIZATION", "").answer().assert_problem(401);
    house.ask(ALL, "a.b.c").assert_problem(401);
    let small = house.keys.token(r#"{"subscribe":["a","/.well-known/mercure/subscriptions/c"]}"#);
    house.ask(ALL, &small).assert_problem(403);
    house.ask(&format!("{ALL}/b"), &small).assert_problem(403);
    assert_eq!(house.ask(&format!("{ALL}/c"), &small).status(), 200);
    let matcher =
        r#"{"match":"/.well-known/mercure/subscriptions/exact/:match","match_type":"urlpattern"}"#;
    let small = access_token(&house.keys, matcher);
    house.ask(ALL, &small).assert_problem(403);
    assert_eq!(house.ask(&format!("{ALL}/exact/a%2Fb"), &small).status(), 200);
    for (path, status) in [(format!("{ALL}/a/b/c/d"), 404), (format!("{HUB}/other"), 404)] {
        house.ask(&path, &house.first).assert_problem(status);
    }
    house.at(ALL, "", &house.first).form("").answer().assert_problem(405);
}

#[test]
fn hub_tells_nothing_unless_it_is_configured() {
    let house = House::new();
    let off = |call: Call| call.variable("NOVCOMET_MERCURE_SUBSCRIPTIONS", "off");
    let watcher = Listener::of(off(house.at(HUB, "topic=*", &house.first)));
    let _joins = Listener::of(off(house.at(HUB, "topic=a", &house.first)));
    off(house.at(HUB, "", &house.first)).form("topic=b&data=end").answer();
    watcher.hears("data: end");
    assert_eq!(watcher.documents(), [json!(null); 0]);
    off(house.at(ALL, "", &house.first)).answer().assert_problem(404);
}

#[test]
fn many_subscribers_are_listed() {
    const MANY: usize = 150;
    let house = House::new();
    // Each answer is longer than a socket holds.
    let topics: Vec<_> =
        (0..20).map(|number| format!("topic={}{number}", "x".repeat(200))).collect();
    let query = topics.join("&");
    let listeners: Vec<_> = (0..MANY).map(|_| house.listen(&query, &house.first)).collect();
    eventually("all are listed", || house.list(ALL, &house.first).len() == MANY * topics.len());
    drop(listeners);
}

#[test]
fn next_leader_knows_the_others_and_tells_no_joins_again() {
    let house = House::new();
    let mut leader = house.listen("topic=leader", &house.first);
    let watcher = house.listen("topic=*", &house.first);
    let standby = house.listen("topic=standby", &house.first);
    watcher.hears("\"topic\":\"standby\"");
    let before = house.list(ALL, &house.first);
    assert_eq!(before.len(), 3, "{before:?}");
    crate::support::process::signal("TERM", &[leader.child.id()]);
    leader.child.wait().unwrap();
    let after = house.list(ALL, &house.first);
    assert_eq!(after, before[1..]);
    let _newest = house.listen("topic=newest", &house.first);
    watcher.hears("\"topic\":\"newest\"");
    let told = watcher.documents();
    let told: Vec<_> = told.iter().map(|it| json!([it["topic"], it["active"]])).collect();
    assert_eq!(json!(told), json!([["standby", true], ["leader", false], ["newest", true]]));
    drop(standby);
}

#[test]
fn lost_leader_leaves_nobody_in_the_list() {
    let house = House::new();
    let leader = house.listen("topic=leader", &house.first);
    let _other = house.listen("topic=other", &house.first);
    assert_eq!(house.list(ALL, &house.first).len(), 2);
    drop(leader);
    eventually("nobody is listed", || house.list(ALL, &house.first).is_empty());
    let _back = house.listen("topic=other", &house.first);
    eventually("it is listed again", || house.list(ALL, &house.first).len() == 1);
}

/// The leader was busy when the stream of the watcher began.
#[test]
fn late_newcomer_hears_who_came_since_its_beginning() {
    let house = House::new();
    let leader = house.listen("topic=leader", &house.first);
    crate::support::process::signal("STOP", &[leader.child.id()]);
    let watcher = house.listen("topic=*", &house.first);
    eventually("it waits alone", || has_inotify(watcher.child.id()));
    crate::support::process::signal("CONT", &[leader.child.id()]);
    let _joins = house.listen("topic=joins", &house.first);
    watcher.hears("\"topic\":\"joins\"");
    assert!(!watcher.text().contains("\"topic\":\"leader\""), "that was there before");
}

#[test]
fn stopped_leader_is_said_to_be_busy() {
    let house = House::new();
    let leader = house.listen("topic=leader", &house.first);
    crate::support::process::signal("STOP", &[leader.child.id()]);
    house.ask(ALL, &house.first).assert_problem(503);
    crate::support::process::signal("CONT", &[leader.child.id()]);
    eventually("it answers again", || house.ask(ALL, &house.first).status() == 200);
}

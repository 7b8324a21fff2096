//! The hub of Mercure at its URL, as the shipped configurations have it.

use serde_json::Value;

use crate::support::server::{Exchange, Kind, Reply, Server, Stream, stories};
use crate::support::tokens::Keys;

stories! {
    hub_answers_at_its_url
    publisher_of_symfony_is_answered
    update_reaches_each_stream
    refusal_has_its_challenge
    hub_describes_itself
    methods_reach_the_hub
    subscribers_are_told_and_listed
}

const HUB: &str = "/.well-known/mercure";
const URL: &str = "https://example.com/.well-known/mercure";

fn hub(kind: Kind, keys: &Keys) -> Server {
    keys.give_to_the_server("hs");
    Server::setup(kind)
        .option("NOVCOMET_TOKEN_KEY", &keys.path("hs"))
        .option("NOVCOMET_MERCURE_URL", URL)
        .option("NOVCOMET_MERCURE_ANONYMOUS", "on")
        .start()
}

/// As src/Hub.php of symfony/mercure sends it.
fn publish(server: &Server, form: &str, token: &str) -> Reply {
    let bearer = format!("Authorization: Bearer {token}");
    let headers = ["Content-Type: application/x-www-form-urlencoded", &bearer, "Accept: */*"];
    Exchange::send(server.port(), &format!("POST {HUB}"), &headers, form.as_bytes()).reply()
}

/// The reason of a refusal, as the hub words it.
fn detail(reply: &Reply) -> String {
    let problem: Value = serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("{reply:?}"));
    problem["detail"].as_str().unwrap().to_owned()
}

fn hub_answers_at_its_url(kind: Kind) {
    let keys = Keys::new();
    let server = hub(kind, &keys);
    for address in [HUB, "/comet.cgi/.well-known/mercure"] {
        let reply = server.get(&format!("{address}?publish=a"));
        assert_eq!(reply.status, 400, "{address}");
        assert!(detail(&reply).contains("topic (0.x)"), "{reply:?}");
    }
    assert!(!server.event_file("a").exists());
    assert_eq!(server.get("/.well-known/mercure2?topic=a").status, 404);
    assert_eq!(server.get("/.well-known/mercure/subscriptions").status, 404);
}

fn publisher_of_symfony_is_answered(kind: Kind) {
    let keys = Keys::new();
    let server = hub(kind, &keys);
    let token = keys.token(r#"{"publish":["*"]}"#);
    let reply = publish(&server, "topic=a&data=one&private=on&id=urn%3Aa&type=b&retry=1", &token);
    assert_eq!((reply.status, reply.body.as_str()), (200, "urn:a"));
    assert_eq!(reply.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert!(server.event_file("a").is_file());
    assert_eq!(server.complaints(), [""; 0]);
}

fn update_reaches_each_stream(kind: Kind) {
    let keys = Keys::new();
    let server = hub(kind, &keys);
    let open = |query| Stream::of(server.send(&format!("GET {HUB}?{query}")));
    let mut streams = ["topic=a", "topic=*", "match=b&match=a"].map(open);
    // The comment comes when the stream has begun.
    for stream in &mut streams {
        assert_eq!(stream.bytes(2), b":\n");
    }
    let token = keys.token(r#"{"publish":["*"]}"#);
    let id = publish(&server, "topic=a&topic=b&data=one", &token).body;
    for mut stream in streams {
        // On a busy machine there is a sign of life before it.
        let update = std::iter::from_fn(|| stream.event()).find(|it| it.field("data").is_some());
        let fields = update.map(|it| ["id", "data"].map(|name| it.field(name).unwrap()));
        assert_eq!(fields, Some([id.clone(), "one".to_owned()]));
    }
}

fn refusal_has_its_challenge(kind: Kind) {
    let keys = Keys::new();
    let server = hub(kind, &keys);
    let bare = server.post(HUB, "topic=a");
    assert_eq!((bare.status, bare.header("WWW-Authenticate")), (401, Some("Bearer")));
    let small = publish(&server, "topic=a", &keys.token(r#"{"publish":["b"]}"#));
    let challenge = r#"Bearer error="insufficient_scope""#;
    assert_eq!((small.status, small.header("WWW-Authenticate")), (403, Some(challenge)));
    assert!(!server.event_file("a").exists());
    assert_eq!(server.complaints(), [""; 0]);
}

fn hub_describes_itself(kind: Kind) {
    let keys = Keys::new();
    let reply = hub(kind, &keys).get("/.well-known/oauth-protected-resource/.well-known/mercure");
    let metadata: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(metadata["resource"], URL);
}

/// lighttpd itself refuses methods that it does not know.
fn methods_reach_the_hub(kind: Kind) {
    let keys = Keys::new();
    let server = hub(kind, &keys);
    let options = server.send(&format!("OPTIONS {HUB}")).reply();
    let methods = Some("GET, HEAD, POST, QUERY, OPTIONS");
    assert_eq!((options.status, options.header("Allow")), (204, methods));
    let form = ["Content-Type: application/x-www-form-urlencoded"];
    let query = Exchange::send(server.port(), &format!("QUERY {HUB}"), &form, b"match=a&topic=a");
    let query = query.reply();
    match kind {
        Kind::Lighttpd => assert!([400, 501].contains(&query.status), "{query:?}"),
        _ => assert!(detail(&query).contains("use one of them"), "{query:?}"),
    }
}

/// A slash in a topic stays one in the path, and a client that goes is told of.
fn subscribers_are_told_and_listed(kind: Kind) {
    let keys = Keys::new();
    keys.give_to_the_server("hs");
    let server = Server::setup(kind)
        .option("NOVCOMET_TOKEN_KEY", &keys.path("hs"))
        .option("NOVCOMET_MERCURE_SUBSCRIPTIONS", "on")
        .start();
    let bearer = format!("Authorization: Bearer {}", keys.token(r#"{"subscribe":["*"]}"#));
    let get =
        |path: &str| Exchange::send(server.port(), &format!("GET {HUB}{path}"), &[&bearer], b"");
    let document = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let mut watcher = Stream::of(get("?topic=*"));
    assert_eq!(watcher.bytes(2), b":\n");
    let mut one = Stream::of(get("?topic=https%3A%2F%2Fexample.com%2F..%2Fa"));
    assert_eq!(one.bytes(2), b":\n");
    let joined = document(&watcher.event().unwrap().field("data").unwrap());
    assert_eq!(
        (&joined["topic"], &joined["active"]),
        (&"https://example.com/../a".into(), &true.into())
    );
    let list = get("/subscriptions/https%3A%2F%2Fexample.com%2F..%2Fa").reply();
    let list = document(&list.body);
    assert_eq!(list["subscriptions"].as_array().unwrap().len(), 1, "{list}");
    let id = joined["id"].as_str().unwrap().strip_prefix(HUB).unwrap();
    let single = get(id).reply();
    assert_eq!((single.status, single.header("Content-Type")), (200, Some("application/ld+json")));
    assert_eq!(document(&single.body)["id"], joined["id"]);
    let all = document(&get("/subscriptions").reply().body);
    assert_eq!(all["subscriptions"].as_array().unwrap().len(), 2, "{all}");
    drop(one);
    let gone = document(&watcher.event().unwrap().field("data").unwrap());
    assert_eq!((&gone["id"], &gone["active"]), (&joined["id"], &false.into()));
    assert_eq!(get(id).reply().status, 404);
    assert_eq!(server.get("/.well-known/mercure/subscriptions").status, 401);
    assert_eq!(server.complaints(), [""; 0]);
}

//! The wire to a proxy that holds connections: instructions, links and hints. docs/grip.md has
//! every byte of it.

use std::fs::{self, Permissions};
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use crate::support::binary::{Answer, Call, Store, Waiter};
use crate::support::control::{OK, serve, url};
use crate::support::dir::create_by_kernel;
use crate::support::tokens::{HS256, Keys, claims, now};

const GRIP: &str = include_str!("../../docs/grip.md");
const ALL: &str = r#"{"publish":["*"],"subscribe":["*"]}"#;

/// A store behind a proxy.
struct House {
    store: Store,
    keys: Keys,
    signature: String,
}

impl House {
    fn new() -> Self {
        Self::of(Store::new())
    }

    fn of(store: Store) -> Self {
        let keys = Keys::new();
        let claims = format!(r#"{{"iss":"pushpin","exp":{}}}"#, now() + 60);
        let signature = keys.sign(&[("HS256", "hs", HS256, claims)]).remove(0);
        Self { store, keys, signature }
    }

    /// A request through a proxy with this signature.
    fn signed(&self, query: &str, signature: &str) -> Call {
        let call = self.store.query(query).method("GET").variable("HTTP_GRIP_SIG", signature);
        let call = call.variable("SCRIPT_NAME", "/comet.cgi");
        call.variable("NOVCOMET_GRIP_KEY", &self.keys.path("hs"))
    }

    fn held(&self, query: &str) -> Call {
        self.signed(query, &self.signature)
    }
}

/// The instructions in the head of an answer, as the document has them.
fn instructions(answer: &Answer) -> String {
    let lines = answer.head.lines().filter(|line| line.starts_with("Grip-"));
    lines.fold(String::new(), |all, line| format!("{all}    {line}\n"))
}

/// The link, relative to the URL of the request.
fn target(answer: &Answer) -> &str {
    let found = answer.head.lines().find_map(|line| line.strip_prefix("Grip-Link: <"));
    found.unwrap_or_else(|| panic!("{answer:?}")).split('>').next().unwrap()
}

/// The query of the link.
fn link(answer: &Answer) -> String {
    target(answer).split_once('?').unwrap().1.to_owned()
}

fn of_document(answer: &Answer) -> bool {
    GRIP.contains(&instructions(answer).replace(target(answer), "comet.cgi/MARK?grip=STATE"))
}

#[test]
fn poll_is_held_with_its_cursor() {
    let house = House::of(Store::new().with("news", 1_795_415_403, 163_846_000));
    let query = "subscribed[news]=1795415403.163846";
    let answer = house.held(query).variable("NOVCOMET_SLEEP", "40").answer();
    let example = format!("{}\n    {}\n", instructions(&answer), answer.body);
    assert!(GRIP.contains(&example), "{answer:?}");
    assert_eq!(answer.status(), 200);
    // News is answered as ever.
    let answer = house.held("subscribed[news]=1.5").answer();
    assert_eq!(instructions(&answer), "");
    assert_eq!(answer.body, r#"{"s":1,"k":{"news":1795415403.163846}}"#);
}

/// The second client of a crowd that looks during an event comes back soon.
#[test]
fn hold_is_short_after_an_event() {
    let house = House::new();
    house.store.query("publish=a&data=x").answer();
    let answer = house.held("subscribed[a]=").answer();
    assert!(answer.head.contains("\r\nGrip-Timeout: 5\r\n"), "{answer:?}");
    let answer = house.held("subscribed[quiet]=").answer();
    assert!(answer.head.contains("\r\nGrip-Timeout: 3600"), "{answer:?}");
}

#[test]
fn stream_goes_on_by_its_link() {
    let house = House::of(Store::new().with("news", 1_795_415_403, 163_846_000));
    let begin = house.held("subscribed[news]=&stream=1").answer();
    assert!(of_document(&begin) && begin.body.starts_with(": novcomet"), "{begin:?}");
    let quiet = house.held(&link(&begin)).answer();
    assert!(instructions(&quiet).contains("; rel=next; timeout=120\n"), "{quiet:?}");
    assert_eq!(quiet.body, "");
    house.store.query("publish=news&data=one").answer();
    house.store.query("publish=news&data=two").answer();
    let next = house.held(&link(&quiet)).answer();
    let data: Vec<_> = next.body.lines().filter(|line| line.starts_with("data: ")).collect();
    assert_eq!(data, ["data: one", "data: two"], "{next:?}");
    assert!(!next.body.contains("retry"), "{next:?}");
    let last = house.held(&link(&next)).answer();
    assert_eq!((last.status(), last.body.as_str()), (200, ""));
}

/// Pushpin asks once for all that have the same link.
#[test]
fn clients_at_one_place_have_one_link() {
    let house = House::of(Store::new().with("news", 1_795_415_403, 163_846_000));
    let one = house.held("subscribed[news]=1.5&stream=1").answer();
    let other = house.held("subscribed[news]=&stream=1").answer();
    assert_ne!(one.body, other.body);
    assert_eq!(target(&one), target(&other));
    let later = house.held(&link(&one)).answer();
    assert_eq!(link(&one), link(&later));
    // A proxy may tell links apart by their paths only. The later one is beside the first.
    let path = |answer: &Answer| target(answer).split_once('?').unwrap().0.to_owned();
    assert_eq!(path(&one), format!("comet.cgi/{}", path(&later)));
    let elsewhere = house.held("subscribed[other]=&stream=1").answer();
    assert_ne!(path(&one), path(&elsewhere));
}

#[test]
fn each_kind_of_subscriber_is_held() {
    let house = House::new();
    house.store.query("publish=a/b&data=x").answer();
    for (query, channel) in [
        ("subscribed[a/b]=&stream=json", "novcomet-a%2Fb"),
        ("matching=a/*&stream=1", "novcomet"),
        ("matching=a/*", "novcomet; prev-id="),
    ] {
        let answer = house.held(query).answer();
        let line = format!("\r\nGrip-Channel: {channel}");
        assert!(answer.head.contains(&line), "{query}: {answer:?}");
    }
    let hub = |query: &str| {
        let call = house.held(query).variable("SCRIPT_NAME", "/.well-known/mercure");
        call.variable("NOVCOMET_MERCURE_ANONYMOUS", "on").answer()
    };
    let mercure = hub("topic=a/b&topic=c");
    for channel in ["novcomet-a%2Fb", "novcomet-c"] {
        assert!(mercure.head.contains(&format!("\r\nGrip-Channel: {channel}\r\n")), "{mercure:?}");
    }
    house.store.query("publish=c&data=y").answer();
    let next = hub(&link(&mercure));
    assert!(next.body.contains("data: y"), "{next:?}");
}

#[test]
fn pattern_goes_on_from_its_position() {
    let house = House::new();
    let poll = house.held("matching=a*").answer();
    let line = poll.head.lines().find_map(|line| line.strip_prefix("Grip-Channel: ")).unwrap();
    let position = line.split_once("prev-id=").unwrap().1;
    house.store.query("publish=ab&data=x").answer();
    let last = format!("novcomet; last-id={position}");
    let again = house.held("matching=a*").variable("HTTP_GRIP_LAST", &last).answer();
    assert!(again.body.contains(r#""data":"x""#), "{again:?}");
    assert_eq!(instructions(&again), "");
}

/// The proxy repeats the request as it was.
#[test]
fn repeated_poll_begins_where_it_began() {
    let house = House::of(Store::new().with("news", 1_795_415_403, 163_846_000));
    house.store.query("publish=news&data=x").answer();
    let last = "novcomet-other; last-id=9.5, novcomet-news; last-id=1795415403.163846";
    let call = |query: &str| house.held(query).variable("HTTP_GRIP_LAST", last).answer();
    // So is a second that was not over.
    for since in ["", "4294967296"] {
        let answer = call(&format!("subscribed[news]={since}"));
        assert!(answer.body.contains(r#""data":"x""#), "{since}: {answer:?}");
    }
    // A cursor of the client's own counts.
    let cursor = house.store.query("subscribed[news]=1.5").answer().body;
    let cursor = cursor.split_once("\"news\":").unwrap().1.split('}').next().unwrap();
    let own = call(&format!("subscribed[news]={cursor}"));
    assert!(own.head.contains("\r\nGrip-Hold: response\r\n"), "{own:?}");
}

#[test]
fn forged_signature_changes_nothing() {
    let house = House::new();
    let sign = |key: &str, expires: i64| {
        let claims = format!(r#"{{"iss":"pushpin","exp":{expires}}}"#);
        house.keys.sign(&[("HS256", key, HS256, claims)]).remove(0)
    };
    let without_exp = house.keys.sign(&[("HS256", "hs", HS256, "{}".into())]).remove(0);
    let none = ("none", "hs", r#"{"alg":"none"}"#, claims(60, ALL));
    let unsigned = house.keys.sign(&[none]).remove(0);
    let others = [sign("ed", now() + 60), sign("hs", now() - 1), without_exp, unsigned, "x".into()];
    for signature in others {
        let waiter = house.signed("subscribed[a]=", &signature).waiting();
        house.store.query("publish=a").answer();
        let answer = waiter.answer();
        assert!(answer.body.starts_with(r#"{"s":1"#), "{answer:?}");
        assert_eq!(instructions(&answer), "");
    }
    // Without a key there is no proxy.
    let call = house.store.query("subscribed[b]=").method("GET");
    let waiter = call.variable("HTTP_GRIP_SIG", &house.signature).waiting();
    house.store.query("publish=b").answer();
    assert_eq!(instructions(&waiter.answer()), "");
}

#[test]
fn link_counts_for_its_maker_and_its_rules() {
    let house = House::new();
    let begin = house.held("subscribed[a]=&stream=1").answer();
    let link = link(&begin);
    house.store.query("publish=a&data=secret").answer();
    let ended = |call: Call| {
        let answer = call.answer();
        assert_eq!((answer.status(), answer.body.as_str()), (200, ""), "{answer:?}");
        assert_eq!(instructions(&answer), "");
    };
    ended(house.held(&link.replace("grip=e", "grip=f")));
    ended(house.held("grip="));
    ended(house.held(&link).variable("NOVCOMET_SUBSCRIBE", "none"));
    for key in ["hs", "ed"] {
        let other_key = house.held(&link).variable("NOVCOMET_TOKEN_ALGORITHM", "HS256");
        ended(other_key.variable("NOVCOMET_TOKEN_KEY", &house.keys.path(key)));
    }
    let private = house.held(&link).variable("NOVCOMET_PRIVATE", "a");
    ended(private.variable("NOVCOMET_TOKEN_KEY", &house.keys.path("hs")));
    let direct = house.store.query(&link).method("GET");
    let direct = direct.variable("NOVCOMET_GRIP_KEY", &house.keys.path("hs")).answer();
    direct.assert_problem(400);
    assert!(house.held(&link).answer().body.contains("data: secret"));
}

#[test]
fn private_topic_is_held_until_its_token_expires() {
    let house = House::new();
    let token = |seconds: i64| {
        let claims = claims(seconds, r#"{"subscribe":["a"]}"#);
        house.keys.sign(&[("HS256", "hs", HS256, claims)]).remove(0)
    };
    let private = |call: Call| {
        let call = call.variable("NOVCOMET_PRIVATE", "a");
        call.variable("NOVCOMET_TOKEN_KEY", &house.keys.path("hs"))
    };
    let ask = |query: &str, token: &str| {
        let call = private(house.held(query));
        call.variable("HTTP_AUTHORIZATION", &format!("Bearer {token}")).answer()
    };
    private(house.held("subscribed[a]=&stream=1")).answer().assert_problem(401);
    let begin = ask("subscribed[a]=&stream=1", &token(60));
    // The proxy returns the link without the token.
    let quiet = private(house.held(&link(&begin))).answer();
    let timeout = instructions(&quiet).split_once("timeout=").unwrap().1.to_owned();
    let timeout: u64 = timeout.lines().next().unwrap().parse().unwrap();
    assert!((50..=61).contains(&timeout), "{quiet:?}");
    let poll = ask("subscribed[a]=", &token(60));
    let timeout = poll.head.lines().find_map(|line| line.strip_prefix("Grip-Timeout: ")).unwrap();
    assert!(timeout.parse::<u64>().unwrap() <= 60, "{poll:?}");
    // A link of a token that has expired meanwhile ends the stream.
    let brief = ask("subscribed[a]=&stream=1", &token(2));
    let brief = link(&brief);
    house.store.query("publish=a&data=x").answer();
    crate::support::wait::eventually("it expires", || {
        let answer = private(house.held(&brief)).answer();
        answer.status() == 200 && answer.body.is_empty() && instructions(&answer).is_empty()
    });
}

/// A request that a proxy cannot hold is waited for.
#[test]
fn long_request_is_not_held() {
    let house = House::new();
    let topics = |count: usize, name: &str| {
        let topics = (0..count).map(|number| format!("subscribed[{name}{number}]="));
        topics.collect::<Vec<_>>().join("&")
    };
    let held = |query: &str| instructions(&house.held(query).answer());
    let twenty = held(&topics(20, "t"));
    assert_eq!(twenty.matches("Grip-Channel").count(), 20);
    let long = "x".repeat(400);
    for query in [topics(21, "t"), topics(14, &long), "subscribed[t0]=&wait=4".into()] {
        let waiter = house.held(&query).waiting();
        let topic = if query.contains("xxx") { format!("{long}0") } else { "t0".into() };
        house.store.query(&format!("publish={topic}")).answer();
        assert_eq!(instructions(&waiter.answer()), "");
    }
    // Of several messages, the look after a hold would find the newest only.
    for query in ["subscribed[new]=latest", "subscribed[new]=latest&stream=1"] {
        let waiter = house.held(query).start();
        waiter.await_sleep();
        drop(waiter);
    }
    // No one who only looks is held, and no stream with an end of its own.
    assert_eq!(held("subscribed[a]=&wait=0"), "");
    assert_eq!(held("subscribed[a]=&wait=0&stream=1"), "");
}

/// A client that rounds its cursors would come back at once.
#[test]
fn doubtful_poll_is_not_held() {
    let house = House::new();
    house.store.query("publish=a&data=x").answer();
    house.store.query("publish=a&data=y").answer();
    let all = house.store.query("subscribed[a]=earliest").answer().body;
    let id = all.rsplit_once("\"id\":").unwrap().1.split(',').next().unwrap();
    let rounded = format!("subscribed[a]={}&wait=6", &id[..id.len() - 4]);
    let answer = house.held(&rounded).answer();
    assert_eq!(instructions(&answer), "");
    assert!(answer.body.starts_with(r#"{"s":1"#), "{answer:?}");
}

/// A client that is not held comes back later.
#[test]
fn poll_without_a_cursor_is_let_go() {
    let house = House::new();
    std::fs::create_dir(house.store.file("u")).unwrap();
    let answer = house.held("subscribed[u]=&subscribed[a]=").answer();
    assert_eq!(instructions(&answer), "");
    assert!(answer.head.contains("\r\nRetry-After: 5\r\n"), "{answer:?}");
}

/// Pushpin takes no longer beginning.
#[test]
fn long_beginning_is_not_held() {
    let house = House::new();
    for letter in ["a", "b"] {
        house.store.query("publish=t").form(&format!("data={}", letter.repeat(60_000))).answer();
    }
    let query = "subscribed[t]=earliest&stream=1";
    let answer = house.held(query).answer();
    assert!(answer.body.len() > 100_000, "{}", answer.body.len());
    assert_eq!(instructions(&answer), "");
}

#[test]
fn publish_tells_each_proxy() {
    let store = Store::new();
    let listeners = [(), ()].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let urls = listeners.each_ref().map(|it| format!("http://{}/a", it.local_addr().unwrap()));
    let told = thread::scope(|scope| {
        let told = listeners.each_ref().map(|listener| scope.spawn(|| serve(listener, OK)));
        let call = store.query("publish=news&data=x").method("POST");
        let answer = call.variable("NOVCOMET_GRIP", &urls.join(" ")).answer();
        assert_eq!((answer.status(), answer.log.as_str()), (200, ""));
        let cursor = answer.body.split_once("\"news\":").unwrap().1.split('}').next().unwrap();
        told.map(|it| it.join().unwrap().replace(cursor, "1795415403.163846"))
    });
    for request in told {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /a/publish/ HTTP/1.1\r\nHost: 127.0.0.1:"), "{head}");
        assert!(GRIP.contains(&format!("    {body}\n")), "{body}");
    }
}

/// Each protocol publishes by the same way.
#[test]
fn each_way_to_publish_tells_the_proxy() {
    let store = Store::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url(&listener);
    let call = |query: &str| store.query(query).variable("NOVCOMET_GRIP", &url);
    let batch = crate::support::binary::batch(r#"[{"publish":"a"},{"publish":"b"}]"#);
    let keys = Keys::new();
    let token = keys.token(r#"{"publish":["*"]}"#);
    let mercure = call("").variable("SCRIPT_NAME", "/.well-known/mercure");
    let mercure = mercure.variable("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
    let mercure = mercure.variable("HTTP_AUTHORIZATION", &format!("Bearer {token}"));
    // Its topics are channels, which begin with a slash.
    let bayeux = call("").variable("SCRIPT_NAME", "/bayeux");
    let message = r#"[{"channel":"/a","data":1},{"channel":"/b","data":1}]"#;
    let bayeux = bayeux.form(message).variable("CONTENT_TYPE", "application/json");
    for (slash, call) in [
        ("", call("publish=a&publish=b")),
        ("", call("").form(&batch)),
        ("", mercure.form("topic=a&topic=b&data=x")),
        ("%2F", bayeux),
    ] {
        let told = thread::scope(|scope| {
            let told = scope.spawn(|| serve(&listener, OK));
            let answer = call.answer();
            assert!((200..300).contains(&answer.status()), "{answer:?}");
            told.join().unwrap()
        });
        for name in ["a", "b"] {
            let channel = format!("\"channel\":\"novcomet-{slash}{name}\"");
            assert_eq!(told.matches(&channel).count(), 1, "{told}");
        }
    }
}

/// The event is in the store, and the next proxy is told.
#[test]
fn proxy_that_fails_is_logged() {
    let store = Store::new();
    let [deaf, angry, other] = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let works = other.local_addr().unwrap();
    for (proxy, why) in [
        (gone, "Connection refused"),
        (deaf.local_addr().unwrap(), "in time"),
        (angry.local_addr().unwrap(), "400 Bad Request"),
    ] {
        let urls = format!("http://{proxy} http://{works}");
        let answer = thread::scope(|scope| {
            let told = scope.spawn(|| serve(&other, OK));
            if why.starts_with("400") {
                scope.spawn(|| serve(&angry, "HTTP/1.1 400 Bad Request\r\n\r\n"));
            }
            let call = store.query("publish=a&data=x").variable("NOVCOMET_GRIP", &urls);
            let answer = call.answer();
            assert!(told.join().unwrap().contains("novcomet-a"));
            answer
        });
        assert_eq!((answer.status(), answer.body.as_str()), (200, "true"));
        assert_eq!(answer.log.lines().count(), 1, "{answer:?}");
        assert!(answer.log.contains(&proxy.to_string()), "{answer:?}");
        assert!(answer.log.contains(why), "{answer:?}");
    }
    let kept = store.query("subscribed[a]=earliest").answer().body;
    assert_eq!(kept.matches("\"data\":\"x\"").count(), 3, "{kept}");
}

/// A subscriber that waits in a crowd, through a server with this proxy.
fn led(store: &Store, topic: &str, proxies: &str) -> Waiter {
    let call = store.query(&format!("subscribed[{topic}]=0")).variable("NOVCOMET_GRIP", proxies);
    call.variable("GATEWAY_INTERFACE", "CGI/1.1").waiting()
}

/// The first subscriber that waits leads, and hears of every file. A publisher without a proxy
/// gives its event a time of its own, so nobody is told of that.
#[test]
fn leader_forwards_touches_only() {
    let store = Store::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = url(&listener);
    let leader = led(&store, "x", &url);
    for number in 0..100 {
        store.query("publish=b&data=x").answer();
        store.query("publish=c").answer();
        let name = format!("a{number}");
        create_by_kernel(&store.file(&name));
        let told = serve(&listener, OK);
        let told = told.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(told.matches("\"channel\"").count(), 2, "{told}");
        assert!(told.contains(&format!("\"channel\":\"novcomet-{name}\"")), "{told}");
        let (_, cursor) = store.query(&format!("subscribed[{name}]=1.5")).answer().cursor(&name);
        assert_eq!(told.matches(&format!("\"id\":\"{cursor}\"")).count(), 2, "{told}");
        // This is a change, and no event.
        fs::set_permissions(store.file(&name), Permissions::from_mode(0o600)).unwrap();
    }
    leader.await_sleep();
}

/// Its client has the answer before the proxy is told. On a busy machine, the proxy may be too late
/// once.
#[test]
fn leader_forwards_the_touch_that_ends_its_wait() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let is_told_later = |_| {
        let store = Store::new();
        let mut leader = led(&store, "a", &url(&listener)).take();
        create_by_kernel(&store.file("a"));
        let mut answer = String::new();
        let mut stdout = leader.stdout.take().unwrap();
        while !answer.ends_with("}}") {
            let mut part = [0; 4_096];
            let read = stdout.read(&mut part).unwrap();
            answer += std::str::from_utf8(&part[..read]).unwrap();
            assert!(read > 0, "{answer}");
        }
        assert!(answer.contains(r#"{"s":1,"k":{"a":"#), "{answer}");
        assert!(serve(&listener, OK).contains("novcomet-a"));
        leader.wait_with_output().unwrap().stderr.is_empty()
    };
    assert!((0..5).any(is_told_later));
}

/// The crowd is held up once, and then the proxy is left alone for a while.
#[test]
fn leader_reports_a_proxy_that_fails() {
    let store = Store::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf = listener.local_addr().unwrap();
    let url = format!("http://{deaf} http://unknown.invalid");
    let (leader, other) = (led(&store, "end", &url), led(&store, "end", &url));
    create_by_kernel(&store.file("a"));
    let _silent = listener.accept().unwrap();
    create_by_kernel(&store.file("b"));
    create_by_kernel(&store.file("c"));
    store.query("publish=end").answer();
    let log = leader.answer().log;
    assert_eq!(log.lines().count(), 1, "{log}");
    assert!(log.contains(&deaf.to_string()) && log.contains("was not told"), "{log}");
    assert_eq!(other.answer().log, "");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "it was told again");
}

/// What a client on another machine may not know, it does not learn through a proxy on this one.
#[test]
fn client_of_a_proxy_is_not_on_this_machine() {
    let house = House::new();
    let local =
        |call: Call| call.variable("REMOTE_ADDR", "127.0.0.1").variable("HTTP_HOST", "localhost");
    let direct = local(house.store.query("about=1").method("GET")).answer();
    assert!(direct.body.contains("file://"), "{direct:?}");
    for signature in [house.signature.as_str(), "forged"] {
        let answer = local(house.signed("about=1", signature)).answer();
        assert!(!answer.body.contains("file://"), "{answer:?}");
    }
}

#[test]
fn useless_key_is_told_to_the_administrator() {
    let house = House::new();
    let answer = house.held("subscribed[a]=").variable("NOVCOMET_GRIP_KEY", "/nowhere").answer();
    answer.assert_problem(503);
    assert!(answer.log.contains("NOVCOMET_GRIP_KEY"), "{answer:?}");
    // Only a proxy's request needs it.
    let direct = house.store.query("subscribed[a]=&wait=0").method("GET");
    assert_eq!(direct.variable("NOVCOMET_GRIP_KEY", "/nowhere").answer().status(), 200);
    let public = house.held("subscribed[a]=").variable("NOVCOMET_GRIP_ALGORITHM", "ES256").answer();
    assert!(public.log.contains("NOVCOMET_GRIP_SECRET"), "{public:?}");
}

/// A service that signs with its own key.
#[test]
fn public_key_needs_a_secret_for_links() {
    let house = House::new();
    let claims = format!(r#"{{"iss":"fastly:x","exp":{}}}"#, now() + 60);
    let header = r#"{"alg":"ES256","typ":"JWT"}"#;
    let signature = house.keys.sign(&[("ES256", "es", header, claims)]).remove(0);
    let call = |query: &str, secret: &str| {
        let call = house.signed(query, &signature).variable("NOVCOMET_GRIP_ALGORITHM", "ES256");
        call.variable("NOVCOMET_GRIP_KEY", &house.keys.path("es.pub"))
            .variable("NOVCOMET_GRIP_SECRET", secret)
            .answer()
    };
    let begin = call("subscribed[a]=&stream=1", &house.keys.path("hs"));
    assert!(call(&link(&begin), &house.keys.path("hs")).head.contains("Grip-Hold: stream"));
    let useless = call(&link(&begin), &house.keys.path("es.pub"));
    assert!(useless.log.contains("NOVCOMET_GRIP_SECRET"), "{useless:?}");
}

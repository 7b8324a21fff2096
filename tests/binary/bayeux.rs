//! Bayeux by the real binary.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::UNIX_EPOCH;

use filetime::FileTime;
use serde_json::{Value, json};

use crate::support::binary::{Answer, Call, Store, Waiter, session_file};
use crate::support::wait::eventually;

const PAGE: &str = include_str!("../../docs/bayeux.md");

/// A client, with a hold of an hour, so only an event or a change can end it sooner.
pub(super) struct Client<'s> {
    store: &'s Store,
    pub id: String,
    pub cookie: String,
}

pub(super) fn call(store: &Store, messages: &Value) -> Call {
    let call = store.query("").variable("SCRIPT_NAME", "/bayeux");
    let call = call.variable("NOVCOMET_BAYEUX_TIMEOUT", "3600");
    call.form(&messages.to_string()).variable("CONTENT_TYPE", "application/json;charset=UTF-8")
}

pub(super) fn handshake() -> Value {
    json!([{"channel": "/meta/handshake", "version": "1.0", "id": "1",
            "supportedConnectionTypes": ["websocket", "long-polling"]}])
}

pub(super) fn replies(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status(), 200, "{}", answer.body);
    assert!(answer.log.is_empty(), "{}", answer.log);
    serde_json::from_str(&answer.body).unwrap()
}

impl<'s> Client<'s> {
    pub fn begin(store: &'s Store) -> Self {
        Self::by(store, &handshake())
    }

    pub fn acking(store: &'s Store) -> Self {
        let mut messages = handshake();
        messages[0]["ext"] = json!({"ack": true});
        Self::by(store, &messages)
    }

    fn by(store: &'s Store, messages: &Value) -> Self {
        let answer = call(store, messages).answer();
        let reply = replies(&answer).remove(0);
        assert_eq!(reply["successful"], true, "{reply}");
        let cookie = answer.header("Set-Cookie").unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        let client = Self { store, id: reply["clientId"].as_str().unwrap().to_owned(), cookie };
        // The first connect is answered at once.
        let first = client.connect(None).answer();
        assert_eq!(replies(&first)[0]["advice"]["reconnect"], "retry");
        client
    }

    pub fn call(&self, mut messages: Value) -> Call {
        for message in messages.as_array_mut().unwrap() {
            message["clientId"] = json!(self.id);
        }
        call(self.store, &messages)
    }

    pub fn connect(&self, ack: Option<u64>) -> Call {
        let ext = ack.map_or(json!({}), |ack| json!({"ack": ack}));
        self.call(json!([{"channel": "/meta/connect", "connectionType": "long-polling",
                          "id": "c", "ext": ext}]))
    }

    /// The batch, and what is delivered.
    pub fn poll(&self, ack: Option<u64>) -> (Option<u64>, Vec<(String, Value)>) {
        delivered(&self.connect(ack).answer())
    }

    fn held(&self) -> Waiter {
        let waiter = self.connect(None).start();
        let is_held = || {
            let text = fs::read_to_string(self.file()).unwrap();
            let last = text.lines().rfind(|line| !line.is_empty()).unwrap();
            last.starts_with("{\"Attend")
        };
        eventually("the connect is held", is_held);
        waiter
    }

    pub fn file(&self) -> std::path::PathBuf {
        self.store.0.join(session_file(&self.id))
    }

    pub fn say(&self, messages: Value) -> Vec<Value> {
        replies(&self.call(messages).answer())
    }

    pub fn subscribe(&self, channel: &str) -> Value {
        self.say(json!([{"channel": "/meta/subscribe", "subscription": channel}])).remove(0)
    }

    pub fn publish(&self, channel: &str, data: &Value) -> Value {
        self.say(json!([{"channel": channel, "data": data}])).remove(0)
    }
}

pub(super) fn delivered(answer: &Answer) -> (Option<u64>, Vec<(String, Value)>) {
    let mut all = replies(answer);
    let reply = all.remove(0);
    assert_eq!((&reply["channel"], &reply["successful"]), (&json!("/meta/connect"), &json!(true)));
    assert!(all.iter().all(|one| one.get("successful").is_none()), "{all:?}");
    let pair = |one: Value| (one["channel"].as_str().unwrap().to_owned(), one["data"].clone());
    (reply["ext"]["ack"].as_u64(), all.into_iter().map(pair).collect())
}

pub(super) fn pair(channel: &str, data: &Value) -> (String, Value) {
    (channel.to_owned(), data.clone())
}

#[test]
fn message_between_two_connects_is_delivered_once() {
    let store = Store::new();
    let client = Client::begin(&store);
    assert_eq!(client.subscribe("/chat/*")["subscription"], "/chat/*");
    let before = pair("/chat/a", &json!({"n": 1}));
    assert_eq!(client.publish("/chat/a", &before.1)["successful"], true);
    client.publish("/other", &json!(0));
    assert_eq!(client.poll(None).1, [before]);
    store.query("publish=/chat/b&data=text").answer();
    store.query("publish=/chat/c").answer();
    let expected = [pair("/chat/b", &json!("text")), pair("/chat/c", &Value::Null)];
    assert_eq!(client.poll(None).1, expected);
    let held = client.held();
    client.publish("/chat/d", &json!([1]));
    assert_eq!(delivered(&held.answer()).1, [pair("/chat/d", &json!([1]))]);
}

#[test]
fn what_is_not_acknowledged_comes_again() {
    let store = Store::new();
    let client = Client::acking(&store);
    client.subscribe("/**");
    client.publish("/a", &json!(1));
    let (first, one) = client.poll(Some(1));
    assert_eq!((first, one.len()), (Some(2), 1));
    client.publish("/a", &json!(2));
    let (second, both) = client.poll(Some(1));
    assert_eq!((second, both.len()), (Some(3), 2), "the client has not received the second batch");
    client.publish("/a", &json!(3));
    let (third, rest) = client.poll(Some(3));
    assert_eq!((third, rest), (Some(4), vec![pair("/a", &json!(3))]));
}

#[test]
fn held_connect_learns_of_changes() {
    let store = Store::new();
    let client = Client::begin(&store);
    for change in [
        json!([{"channel": "/meta/subscribe", "subscription": ["/a", "/b/**"]}]),
        json!([{"channel": "/meta/unsubscribe", "subscription": "/a"}]),
    ] {
        let held = client.held();
        assert_eq!(client.say(change)[0]["successful"], true);
        assert_eq!(delivered(&held.answer()).1, [], "it ends, and its client comes again");
    }
    let superseded = client.held();
    let told = || fs::read_to_string(client.file()).unwrap().matches("Told").count();
    let before = told();
    let held = client.connect(None).start();
    assert_eq!(delivered(&superseded.answer()).1, [], "the one after it is held");
    assert_eq!(told(), before, "and would end by a note of this one");
    client.publish("/a", &json!(1));
    client.publish("/b/c", &json!(2));
    assert_eq!(delivered(&held.answer()).1, [pair("/b/c", &json!(2))]);
    let held = client.held();
    client.say(json!([{"channel": "/meta/disconnect"}]));
    assert_eq!(delivered(&held.answer()).1, []);
    assert!(!client.file().exists());
}

/// It is the name of the topic that tells of changes. Another client that knew it could take the
/// session.
#[test]
fn subscriber_by_pattern_learns_no_client_id() {
    let store = Store::new();
    let client = Client::begin(&store);
    for way in ["matching=**", "matching=*/*", "template={%2Ba}"] {
        // The same settings, so that they wait together.
        let stream = store.query(&format!("{way}&stream=json&wait=1")).method("GET");
        let stream = stream.variable("NOVCOMET_BAYEUX_TIMEOUT", "3600").waiting();
        let held = client.connect(None).waiting();
        client.subscribe(&format!("/{}", way.len()));
        held.answer();
        let body = stream.answer().body;
        assert!(!body.contains(&client.id), "{body}");
    }
}

#[test]
fn unknown_session_begins_again() {
    let store = Store::new();
    let client = Client::begin(&store);
    let other = Client {
        store: &store,
        id: client.id.replace(&client.id[30..], "0000000000"),
        cookie: String::new(),
    };
    for channel in ["/meta/connect", "/meta/subscribe", "/meta/disconnect", "/a"] {
        let message = json!([{"channel": channel, "subscription": "/a", "data": 1}]);
        let reply = other.say(message).remove(0);
        assert_eq!(reply["successful"], false, "{reply}");
        assert_eq!(reply["error"], "402::session_unknown");
        assert_eq!(reply["advice"]["reconnect"], "handshake");
    }
}

#[test]
fn session_ends_when_its_client_stays_away() {
    let store = Store::new();
    let client = Client::begin(&store);
    let log = fs::read_to_string(client.file()).unwrap();
    let (before, told) = log.rsplit_once("{\"Told").unwrap();
    let mut told: Value = serde_json::from_str(&format!("{{\"Told{told}")).unwrap();
    let until = told["Told"]["until"].as_f64().unwrap();
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!((now..now + 10.0).contains(&until), "{until}");
    told["Told"]["until"] = json!(1.000_001);
    fs::write(client.file(), format!("{before}{told}\n")).unwrap();
    let reply = replies(&client.connect(None).answer()).remove(0);
    assert_eq!(reply["error"], "402::session_unknown", "{reply}");
}

#[test]
fn stolen_session_needs_the_cookie_of_its_browser() {
    let store = Store::new();
    let client = Client::begin(&store);
    let asked = |cookie: &str| {
        let call = client.call(json!([{"channel": "/meta/subscribe", "subscription": "/a"}]));
        replies(&call.variable("HTTP_COOKIE", cookie).answer())[0]["successful"] == true
    };
    let other = "BAYEUX_BROWSER=00000000000000000000000000000000";
    assert!(asked("") && asked(other), "it is bound to no browser yet");
    assert!(asked(&format!("a=b; {}", client.cookie)), "from now on it is needed");
    assert!(!asked("") && !asked(other) && asked(&client.cookie));
}

#[test]
fn second_page_of_a_browser_polls() {
    let store = Store::new();
    let begin = |cookie: Option<&str>| {
        let call = call(&store, &handshake());
        let answer = call.variable("HTTP_COOKIE", cookie.unwrap_or_default()).answer();
        let id = replies(&answer)[0]["clientId"].as_str().unwrap().to_owned();
        (id, answer.header("Set-Cookie").map(|it| it.split(';').next().unwrap().to_owned()))
    };
    let (id, cookie) = begin(None);
    let cookie = cookie.unwrap();
    let (other, none) = begin(Some(&cookie));
    assert_eq!(none, None, "it has one");
    let [first, second] =
        [id, other].map(|id| Client { store: &store, id, cookie: cookie.clone() });
    let connect = |client: &Client| client.connect(None).variable("HTTP_COOKIE", &cookie);
    for client in [&first, &second] {
        connect(client).answer();
        let subscribe = json!([{"channel": "/meta/subscribe", "subscription": "/a"}]);
        client.call(subscribe).variable("HTTP_COOKIE", &cookie).answer();
    }
    let held = connect(&first).variable("GATEWAY_INTERFACE", "CGI/1.1").start();
    eventually("the first page waits", || {
        fs::read_to_string(first.file()).unwrap().matches("Attend").count() == 2
    });
    let reply = replies(&connect(&second).answer()).remove(0);
    assert_eq!(reply["advice"]["multiple-clients"], true, "{reply}");
    assert_eq!(reply["advice"]["interval"], 2000);
    store.query("publish=/a&data=1").answer();
    assert_eq!(delivered(&held.answer()).1.len(), 1);
    assert_eq!(delivered(&connect(&second).answer()).1.len(), 1);
}

#[test]
fn bad_messages_have_their_codes() {
    let store = Store::new();
    let client = Client::begin(&store);
    for (message, error) in [
        (json!({}), "400::channel_missing"),
        (json!({"channel": "a", "data": 1}), "400::channel_invalid"),
        (json!({"channel": "/a/*", "data": 1}), "400::channel_invalid"),
        (json!({"channel": "/a"}), "400::a message to a channel has data"),
        (json!({"channel": "/meta/x"}), "404:/meta/x:unknown_meta"),
        (json!({"channel": "/meta/subscribe"}), "403::subscription_missing"),
        (
            json!({"channel": "/meta/subscribe", "subscription": "/meta/connect"}),
            "403:/meta/connect:subscription_invalid",
        ),
        (
            json!({"channel": "/meta/subscribe", "subscription": "/a/*/b"}),
            "400:/a/*/b:only the last segment of a channel is * or **",
        ),
    ] {
        let reply = client.say(json!([message])).remove(0);
        assert_eq!((&reply["successful"], &reply["error"]), (&json!(false), &json!(error)));
    }
    let types = json!([{"channel": "/meta/handshake", "supportedConnectionTypes": ["websocket"]}]);
    let reply = replies(&call(&store, &types).answer()).remove(0);
    assert_eq!(reply["error"], "301::the server speaks long-polling only");
    assert_eq!(reply["advice"]["reconnect"], "none");
    for (body, status) in [("", 400), ("[", 400), ("[1]", 400), ("[]", 400)] {
        let call = store.query("").variable("SCRIPT_NAME", "/bayeux").form(body);
        let answer = call.variable("CONTENT_TYPE", "application/json").answer();
        assert_eq!(answer.status(), status, "{body}: {}", answer.body);
    }
    let get = store.query("").variable("SCRIPT_NAME", "/bayeux").method("GET").answer();
    assert_eq!((get.status(), get.header("Allow")), (405, Some("POST, OPTIONS")));
}

#[test]
fn sessions_are_bounded() {
    let store = Store::new();
    let begin = || {
        let call = call(&store, &handshake()).variable("REMOTE_ADDR", "192.0.2.1");
        let call = call.variable("NOVCOMET_BAYEUX_MAX_SESSIONS_PER_ADDRESS", "2");
        replies(&call.answer()).remove(0)
    };
    assert_eq!([begin(), begin()].map(|it| it["successful"] == true), [true, true]);
    let refused = begin();
    assert_eq!(refused["error"], "503::too_many_sessions");
    // Faye would shake hands twice for each advice, and so ever more often.
    assert_eq!(refused["advice"], Value::Null);
}

#[test]
fn long_log_is_written_anew() {
    let store = Store::new();
    let client = Client::acking(&store);
    client.subscribe("/a");
    let mut batch = 1;
    for number in 0..80 {
        client.publish("/a", &json!(number));
        let (next, told) = client.poll(Some(batch));
        assert_eq!(told, [pair("/a", &json!(number))]);
        batch = next.unwrap();
    }
    let size = fs::metadata(client.file()).unwrap().size();
    assert!(size < 20_000, "{size}");
}

/// A client hears all messages after its subscription, although a request was held that did not
/// know of it.
#[test]
fn nothing_is_lost_between_subscription_and_connect() {
    let store = Store::new();
    let client = Client::begin(&store);
    for round in 0..200 {
        let channel = format!("/{round}/*");
        let held = client.connect(None).start();
        client.subscribe(&channel);
        let all = [0, 1, 2].map(|number| pair(&format!("/{round}/{number}"), &json!(number)));
        for (channel, data) in &all {
            store.query(&format!("publish={channel}&data={data}")).answer();
        }
        let mut heard = delivered(&held.answer()).1;
        while heard.len() < all.len() {
            heard.extend(client.poll(None).1);
        }
        assert_eq!(heard, all, "round {round}");
        client.say(json!([{"channel": "/meta/unsubscribe", "subscription": channel}]));
    }
}

/// The messages and the answers of docs/bayeux.md, which are in the lines after each other.
#[test]
fn examples_of_the_page_are_true() {
    const ID: &str = "2bbb5d70f948d26de28234727a76030fdfcec1e8";
    let store = Store::new();
    let lines: Vec<_> = PAGE.lines().filter_map(|line| line.strip_prefix("    ")).collect();
    let asked = lines.windows(2).filter(|pair| pair[0].starts_with("{\"channel\":"));
    let mut id = ID.to_owned();
    assert_eq!(asked.clone().count(), 4);
    for pair in asked {
        let call = store.query("").variable("SCRIPT_NAME", "/bayeux");
        let call = call.form(&pair[0].replace(ID, &id));
        let answer = call.variable("CONTENT_TYPE", "application/json").answer();
        if pair[0].contains("handshake") {
            id = replies(&answer)[0]["clientId"].as_str().unwrap().to_owned();
            assert_eq!(answer.header("Content-Type"), Some("application/json;charset=UTF-8"));
        }
        assert_eq!(answer.body.replace(&id, ID), pair[1]);
    }
    let unknown = json!([{"channel": "/meta/connect", "clientId": ID, "id": "5"}]);
    let answer = call(&store, &unknown).answer();
    assert!(PAGE.contains(&format!("    {}\n", answer.body)), "{}", answer.body);
}

/// A touch has no place in the order, and each pattern has a position of its own.
#[test]
fn touch_is_heard_once_in_a_newer_channel() {
    let store = Store::new();
    let client = Client::begin(&store);
    for channel in ["/a", "/b"] {
        client.subscribe(channel);
        store.query("publish=/other").answer();
    }
    fs::File::create(store.file("%2Fb")).unwrap();
    let mut heard = client.poll(None).1;
    for round in 0..5 {
        assert_eq!(heard, [pair("/b", &Value::Null)], "{round}");
        client.publish("/a", &json!(round));
        assert_eq!(client.poll(None).1, [pair("/a", &json!(round))]);
        // The kernel's own time moves by ticks, and two touches in one are one.
        filetime::set_file_mtime(store.file("%2Fb"), FileTime::now()).unwrap();
        heard = client.poll(None).1;
    }
}

/// Channels are separate: an update with several topics is heard in each.
#[test]
fn update_with_several_topics_is_heard_in_each_channel() {
    let store = Store::new();
    let client = Client::begin(&store);
    client.subscribe("/b");
    let keys = crate::support::tokens::Keys::new();
    let token = keys.token(r#"{"publish":["*"]}"#);
    let update = store.query("").form("topic=/a&topic=/b&data=x");
    let update = update.variable("SCRIPT_NAME", "/.well-known/mercure");
    let update = update.variable("GATEWAY_INTERFACE", "CGI/1.1");
    let update = update.variable("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
    let update = update.variable("HTTP_AUTHORIZATION", &format!("Bearer {token}"));
    assert_eq!(update.answer().status(), 200);
    client.subscribe("/a");
    assert_eq!(client.poll(None).1, [pair("/b", &json!("x"))]);
}

#[test]
fn message_has_the_limit_of_all_messages() {
    let store = Store::new();
    let client = Client::begin(&store);
    let message = json!([{"channel": "/a", "data": "12345678"}]);
    let small = client.call(message.clone()).variable("NOVCOMET_MAX_DATA", "10").answer();
    assert_eq!(replies(&small)[0]["successful"], true);
    let large = client.call(message).variable("NOVCOMET_MAX_DATA", "9").answer();
    assert_eq!(replies(&large)[0]["error"], "413::a message has at most 9 bytes");
}

/// A list of the directory does not show the id of a session.
#[test]
fn file_of_a_session_does_not_name_it() {
    let store = Store::new();
    let client = Client::begin(&store);
    let names = store.names();
    assert!(client.file().exists() && names.iter().all(|name| !name.contains(&client.id[8..])));
}

/// It would use up the sessions of its visitor.
#[test]
fn foreign_site_begins_no_session() {
    let store = Store::new();
    let call = call(&store, &handshake()).variable("GATEWAY_INTERFACE", "CGI/1.1");
    let answer = call.variable("HTTP_SEC_FETCH_SITE", "cross-site").answer();
    assert_eq!(replies(&answer)[0]["error"], "403::handshake_denied");
    assert!(store.names().is_empty());
}

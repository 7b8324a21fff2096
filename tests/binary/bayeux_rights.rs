//! The rights of sessions of Bayeux: what a client without a token, with one, with an expired
//! one, and a foreign site can do.

use serde_json::{Value, json};

use super::bayeux::{handshake, replies};
use crate::support::binary::{Answer, Call, Store};
use crate::support::tokens::{HS256, Keys, claims};
use crate::support::wait::eventually;

const GRANT: &str = r#"{"publish":["/a","/private/a"],"subscribe":["/private/a"]}"#;

/// Channels that anybody may hear, the one that [`GRANT`] grants, and one that it does not.
const CHANNELS: [&str; 3] = ["/a", "/private/a", "/private/b"];

/// A store that requires a token to publish and to hear `/private/…`.
struct House {
    store: Store,
    keys: Keys,
}

/// Headers, by the names of their variables.
type Headers<'a> = &'a [(&'a str, &'a str)];

impl House {
    fn new() -> Self {
        Self { store: Store::new(), keys: Keys::new() }
    }

    fn call(&self, messages: &Value, headers: Headers) -> Call {
        let call = self.store.query("").variable("SCRIPT_NAME", "/bayeux");
        let call = call.variable("NOVCOMET_BAYEUX_TIMEOUT", "3600");
        let call = call.variable("NOVCOMET_PUBLISH", "token").variable("HTTP_HOST", "a.example");
        let call = call.variable("NOVCOMET_PRIVATE", "/private/*");
        let call = call.variable("NOVCOMET_TOKEN_KEY", &self.keys.path("hs"));
        let call = call.form(&messages.to_string()).variable("CONTENT_TYPE", "application/json");
        let set = |call: Call, (name, value): &(&str, &str)| call.variable(name, value);
        headers.iter().fold(call, set)
    }

    fn say(&self, messages: &Value, headers: Headers) -> Vec<Value> {
        replies(&self.call(messages, headers).answer())
    }

    /// A session that begins with these headers and this `ext`.
    fn begin(&self, headers: Headers, ext: Value) -> String {
        let mut messages = handshake();
        messages[0]["ext"] = ext;
        let reply = self.say(&messages, headers).remove(0);
        let id = reply["clientId"].as_str();
        id.unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    /// Whether each channel can be published to, whether it can be subscribed to, and whether a
    /// message in it is heard by `/**`.
    fn rights(&self, id: &str, headers: Headers) -> [[bool; 3]; 3] {
        let is_done =
            |message: Value| self.say(&json!([message]), headers)[0]["successful"] == true;
        let all = json!({"channel": "/meta/subscribe", "clientId": id, "subscription": "/**"});
        assert!(is_done(all));
        let connect =
            json!([{"channel": "/meta/connect", "clientId": id, "advice": {"timeout": 0}}]);
        self.say(&connect, headers);
        let publishes =
            CHANNELS.map(|channel| is_done(json!({"channel": channel, "clientId": id, "data": 1})));
        for channel in CHANNELS {
            self.store.query(&format!("publish={channel}&data=2")).answer();
        }
        let told = self.say(&connect, headers);
        let hears = CHANNELS.map(|channel| told.iter().any(|one| one["channel"] == channel));
        let subscribes = CHANNELS.map(|channel| {
            is_done(json!({"channel": "/meta/subscribe", "clientId": id, "subscription": channel}))
        });
        [publishes, subscribes, hears]
    }
}

const NONE: [[bool; 3]; 3] = [[false; 3], [true, false, false], [true, false, false]];
const GRANTED: [[bool; 3]; 3] = [[true, true, false]; 3];

#[test]
fn session_has_the_rights_of_its_handshake() {
    let house = House::new();
    let token = house.keys.token(GRANT);
    let bearer = format!("Bearer {token}");
    let cookie = format!("mercureAuthorization={token}");
    let own_site = [("HTTP_COOKIE", cookie.as_str()), ("HTTP_SEC_FETCH_SITE", "same-origin")];
    let header = [("HTTP_AUTHORIZATION", bearer.as_str())];
    let none = house.begin(&[], json!({}));
    assert_eq!(house.rights(&none, &[]), NONE);
    for (headers, ext) in
        [(&header[..], json!({})), (&own_site[..], json!({})), (&[][..], json!({"token": token}))]
    {
        let id = house.begin(headers, ext);
        assert_eq!(house.rights(&id, &[]), GRANTED, "{headers:?}");
    }
    assert_eq!(house.rights(&none, &header)[0], GRANTED[0], "a later token counts by itself");
    assert_eq!(house.rights(&none, &[]), NONE, "and for its request only");
}

/// `ext.token` is read in a handshake only: it does not raise another message.
#[test]
fn token_counts_in_a_handshake_only() {
    let house = House::new();
    let id = house.begin(&[], json!({}));
    let ext = json!({"token": house.keys.token(GRANT)});
    let publish = json!([{"channel": "/a", "clientId": id, "data": 1, "ext": ext},
        {"channel": "/a", "data": 1, "ext": ext},
        {"channel": "/meta/subscribe", "clientId": id, "subscription": "/private/a", "ext": ext}]);
    for reply in house.say(&publish, &[]) {
        assert_eq!(reply["successful"], false, "{reply}");
        assert!(reply["error"].as_str().unwrap().starts_with("403:/"), "{reply}");
    }
}

#[test]
fn wrong_token_begins_nothing() {
    let house = House::new();
    let other = Keys::new().token(GRANT);
    let expired = house.keys.sign(&[("HS256", "hs", HS256, claims(-1, GRANT))]).remove(0);
    for token in ["x", "", &other, &expired] {
        let mut messages = handshake();
        messages[0]["ext"] = json!({"token": token});
        is_denied(&house.call(&messages, &[]).answer());
        let bearer = format!("Bearer {token}");
        is_denied(&house.call(&handshake(), &[("HTTP_AUTHORIZATION", &bearer)]).answer());
    }
    assert!(house.store.names().is_empty());
}

fn is_denied(answer: &Answer) {
    let reply = replies(answer).remove(0);
    assert_eq!(reply["successful"], false, "{reply}");
    assert_eq!(reply["error"], "403::handshake_denied");
    assert_eq!(reply["advice"]["reconnect"], "none", "it would try for ever");
    assert!(reply.get("clientId").is_none() && answer.header("Set-Cookie").is_none());
}

/// A request that is held ends with the token, too.
#[test]
fn token_that_expires_ends_the_session() {
    let house = House::new();
    let token = house.keys.sign(&[("HS256", "hs", HS256, claims(3, GRANT))]).remove(0);
    let id = house.begin(&[], json!({"token": token}));
    let subscribe =
        json!({"channel": "/meta/subscribe", "clientId": id, "subscription": "/private/a"});
    let mut connect =
        json!([{"channel": "/meta/connect", "clientId": id, "advice": {"timeout": 0}}]);
    assert_eq!(house.say(&json!([subscribe]), &[])[0]["successful"], true);
    assert_eq!(house.say(&connect, &[])[0]["successful"], true);
    connect[0].as_object_mut().unwrap().remove("advice");
    let held = house.call(&connect, &[]).start();
    assert_eq!(replies(&held.answer()).len(), 1, "it ends without a message");
    let is_unknown = |message: &Value| {
        let reply = house.say(&json!([message]), &[]).remove(0);
        reply["error"] == "402::session_unknown" && reply["advice"]["reconnect"] == "handshake"
    };
    eventually("the session is over", || is_unknown(&connect[0]));
    let publish = json!({"channel": "/a", "clientId": id, "data": 1});
    assert!(is_unknown(&subscribe) && is_unknown(&publish));
    house.store.query("publish=/private/a&data=1").answer();
    assert!(is_unknown(&connect[0]));
}

/// A browser sends its cookies with what a foreign page asks. Nothing of it is done by the
/// cookie's rights, nor in its session.
#[test]
fn foreign_site_cannot_use_a_cookie() {
    let house = House::new();
    let cookie = format!("mercureAuthorization={}", house.keys.token(GRANT));
    let own = [("HTTP_COOKIE", cookie.as_str()), ("HTTP_ORIGIN", "http://a.example")];
    let id = house.begin(&own, json!({}));
    for mark in [
        &[("HTTP_ORIGIN", "http://evil.example")][..],
        &[("HTTP_ORIGIN", "null")],
        &[("HTTP_SEC_FETCH_SITE", "cross-site")],
        &[("HTTP_SEC_FETCH_SITE", "same-site")],
        &[("HTTP_ORIGIN", "http://a.example"), ("HTTP_SEC_FETCH_SITE", "cross-site")],
        &[],
    ] {
        let foreign = [&[("HTTP_COOKIE", cookie.as_str())][..], mark].concat();
        is_denied(&house.call(&handshake(), &foreign).answer());
        let messages = json!([
            {"channel": "/a", "data": 1},
            {"channel": "/a", "clientId": id, "data": 1},
            {"channel": "/meta/subscribe", "clientId": id, "subscription": "/private/a"},
            {"channel": "/meta/disconnect", "clientId": id},
            {"channel": "/meta/connect", "clientId": id},
        ]);
        let all = house.say(&messages, &foreign);
        assert!(all.len() == 5 && all.iter().all(|one| one["successful"] == false), "{all:?}");
        assert_eq!(all[4]["advice"]["reconnect"], "none");
    }
    assert!(!house.store.names().contains(&"%2Fa.comet".to_owned()));
    assert_eq!(house.rights(&id, &own), GRANTED, "the session goes on");
}

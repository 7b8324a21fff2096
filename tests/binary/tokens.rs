//! The real binary checks tokens that Node.js has signed.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::binary::{Answer, Call, Store};
use crate::support::host::{is_root, not_run};
use crate::support::tokens::{HS256, Keys, claims, now};

const ALL: &str = r#"{"publish":["*"],"subscribe":["*"]}"#;

/// A store that requires a token to publish. Subscribers need a token for the topics
/// `private/…` and `secret`.
struct House {
    store: Store,
    keys: Keys,
}

impl House {
    fn new() -> Self {
        Self { store: Store::new(), keys: Keys::new() }
    }

    fn ask(&self, query: &str) -> Call {
        let call = self.store.query(query).method("GET").variable("HTTP_HOST", "a.example");
        let call = call.variable("NOVCOMET_PRIVATE", "private/*, secret");
        call.variable("NOVCOMET_PUBLISH", "token")
            .variable("NOVCOMET_TOKEN_KEY", &self.keys.path("hs"))
    }

    fn with(&self, query: &str, token: &str) -> Call {
        self.ask(query).variable("HTTP_AUTHORIZATION", &format!("Bearer {token}"))
    }

    /// The same store with another algorithm and its key.
    fn by(&self, algorithm: &str, key: &str, token: &str) -> Answer {
        let call = self.with("publish=a", token).variable("NOVCOMET_TOKEN_ALGORITHM", algorithm);
        call.variable("NOVCOMET_TOKEN_KEY", &self.keys.path(key)).answer()
    }
}

/// The only form of a 401.
fn assert_unauthorized(answer: &Answer, rule: &str) {
    assert_eq!(answer.status(), 401, "{rule}: {answer:?}");
    assert!(answer.head.contains("\r\nWWW-Authenticate: Bearer\r\n"), "{rule}: {answer:?}");
    let body = r#"{"detail":"this needs a valid token","status":401,"title":"Unauthorized"}"#;
    assert_eq!((answer.body.as_str(), answer.log.as_str()), (body, ""), "{rule}");
}

#[test]
fn each_algorithm_accepts_its_own_key() {
    let house = House::new();
    for (algorithm, private, public) in [
        ("HS256", "hs", "hs"),
        ("EdDSA", "ed", "ed.pub"),
        ("ES256", "es", "es.pub"),
        ("RS256", "rs", "rs.pub"),
    ] {
        let header = format!(r#"{{"alg":"{algorithm}","typ":"JWT","kid":"1"}}"#);
        let tokens = house.keys.sign(&[(algorithm, private, &header, claims(60, ALL))]);
        assert_eq!(house.by(algorithm, public, &tokens[0]).body, "true", "{algorithm}");
    }
}

/// Each event is judged by its topic, also those that come later.
#[test]
fn pattern_shows_private_topics_only_by_a_grant() {
    let house = House::new();
    for topic in ["public/a", "private/a", "private/b", "secret"] {
        house.store.query(&format!("publish={topic}&data=in-{topic}")).answer();
    }
    let grant = r#"{"subscribe":["private/a"]}"#;
    let tokens = [claims(60, grant), claims(60, ALL), claims(-1, ALL)];
    let tokens = tokens.map(|claims| ("HS256", "hs", HS256, claims));
    let tokens = house.keys.sign(&tokens);
    let all = "matching=**&since=earliest";
    let shown = |answer: &Answer| {
        assert_eq!(answer.status(), 200, "{answer:?}");
        let topics = ["public/a", "private/a", "private/b", "secret"];
        topics.map(|topic| answer.body.contains(topic))
    };
    assert_eq!(shown(&house.ask(all).answer()), [true, false, false, false]);
    assert_eq!(shown(&house.with(all, &tokens[0]).answer()), [true, true, false, false]);
    assert_eq!(shown(&house.with(all, &tokens[1]).answer()), [true; 4]);
    assert_unauthorized(&house.with(all, &tokens[2]).answer(), "a token that has expired");
    let waiter = house.with("matching=**", &tokens[0]).waiting();
    house.store.query("publish=private/b&data=x").answer();
    house.store.query("publish=secret&data=x").answer();
    house.store.query("publish=private/a&data=x").answer();
    assert_eq!(shown(&waiter.answer()), [false, true, false, false]);
}

/// Each token has exactly one fault.
#[test]
fn every_wrong_token_gets_the_same_401() {
    let house = House::new();
    let good = claims(60, ALL);
    let exp = now() + 60;
    let with = |more: &str| format!(r#"{{"exp":{exp},{more},"mercure":{ALL}}}"#);
    let only = |text: &str| text.replace("EXP", &exp.to_string());
    let drafts = [
        ("no signature", "none", "hs", r#"{"alg":"none"}"#, good.clone()),
        ("alg none, signed", "HS256", "hs", r#"{"alg":"none"}"#, good.clone()),
        ("alg in lower case", "HS256", "hs", r#"{"alg":"hs256"}"#, good.clone()),
        ("no alg", "HS256", "hs", r#"{"typ":"JWT"}"#, good.clone()),
        ("alg twice", "HS256", "hs", r#"{"alg":"none","alg":"HS256"}"#, good.clone()),
        ("alg is no text", "HS256", "hs", r#"{"alg":["HS256"]}"#, good.clone()),
        ("another key", "HS256", "hs2", HS256, good.clone()),
        ("another algorithm", "HS512", "hs", r#"{"alg":"HS512"}"#, good.clone()),
        ("another algorithm in disguise", "HS512", "hs", HS256, good.clone()),
        ("signed by RS256", "RS256", "rs", r#"{"alg":"RS256"}"#, good.clone()),
        ("crit", "HS256", "hs", r#"{"alg":"HS256","crit":["b64"],"b64":true}"#, good.clone()),
        ("an empty crit", "HS256", "hs", r#"{"alg":"HS256","crit":[]}"#, good.clone()),
        ("a header twice", "HS256", "hs", r#"{"alg":"HS256","kid":"1","kid":"2"}"#, good.clone()),
        ("a header that is no object", "HS256", "hs", r#"["alg","HS256"]"#, good.clone()),
        ("more after the header", "HS256", "hs", r#"{"alg":"HS256"}{}"#, good.clone()),
        ("no exp", "HS256", "hs", HS256, format!(r#"{{"mercure":{ALL}}}"#)),
        ("past exp", "HS256", "hs", HS256, claims(-1, ALL)),
        ("exp is now", "HS256", "hs", HS256, claims(0, ALL)),
        ("exp is text", "HS256", "hs", HS256, only(r#"{"exp":"EXP","mercure":{"publish":["*"]}}"#)),
        ("exp is null", "HS256", "hs", HS256, only(r#"{"exp":null,"mercure":{"publish":["*"]}}"#)),
        (
            "exp is negative",
            "HS256",
            "hs",
            HS256,
            only(r#"{"exp":-1,"mercure":{"publish":["*"]}}"#),
        ),
        (
            "exp is beyond all",
            "HS256",
            "hs",
            HS256,
            only(r#"{"exp":1e400,"mercure":{"publish":["*"]}}"#),
        ),
        ("exp twice", "HS256", "hs", HS256, with(&format!("\"exp\":{exp}"))),
        ("exp twice, once escaped", "HS256", "hs", HS256, with(&format!("\"\\u0065xp\":{exp}"))),
        ("future nbf", "HS256", "hs", HS256, with(&format!("\"nbf\":{}", exp - 20))),
        ("nbf is text", "HS256", "hs", HS256, with("\"nbf\":\"0\"")),
        ("nbf twice", "HS256", "hs", HS256, with("\"nbf\":1,\"nbf\":1")),
        ("any claim twice", "HS256", "hs", HS256, with("\"sub\":\"a\",\"sub\":\"a\"")),
        ("mercure twice", "HS256", "hs", HS256, with(&format!("\"mercure\":{ALL}"))),
        ("publish twice", "HS256", "hs", HS256, claims(60, r#"{"publish":["b"],"publish":["*"]}"#)),
        (
            "subscribe twice",
            "HS256",
            "hs",
            HS256,
            claims(60, r#"{"publish":["*"],"subscribe":[],"subscribe":[]}"#),
        ),
        ("publish is text", "HS256", "hs", HS256, claims(60, r#"{"publish":"*"}"#)),
        ("publish of numbers", "HS256", "hs", HS256, claims(60, r#"{"publish":[1,"*"]}"#)),
        ("mercure is a list", "HS256", "hs", HS256, claims(60, r#"["*"]"#)),
        ("claims that are no object", "HS256", "hs", HS256, "[]".into()),
        ("claims that are no JSON", "HS256", "hs", HS256, format!("{good}x")),
        ("more than 8 KiB", "HS256", "hs", HS256, with(&format!("\"x\":\"{}\"", "x".repeat(8192)))),
    ];
    let unnamed: Vec<_> = drafts
        .iter()
        .map(|(_, alg, key, header, claims)| (*alg, *key, *header, claims.clone()))
        .collect();
    let tokens = house.keys.sign(&unnamed);
    for ((rule, ..), token) in drafts.iter().zip(&tokens) {
        assert_unauthorized(&house.with("publish=a", token).answer(), rule);
    }
    assert_eq!(house.store.names(), [""; 0], "nothing was published");
}

/// Two texts must not stand for the same token, and nothing may be added to a token. Base64 and
/// the parts are the same for all algorithms. Signatures are not: see
/// `es256_token_has_two_forms`.
#[test]
fn hs256_token_has_one_form() {
    let house = House::new();
    let good = house.keys.token(ALL);
    let parts: Vec<_> = good.split('.').collect();
    let [header, claims, signature] = parts[..] else { panic!("{good}") };
    // 32 bytes leave two unused bits in the last character. They must be zero.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
    let trailing = format!("{}{next}", &signature[..signature.len() - 1]);
    for (rule, token) in [
        ("padding", format!("{good}=")),
        ("trailing bits", format!("{header}.{claims}.{trailing}")),
        ("two parts", format!("{header}.{claims}")),
        ("four parts", format!("{good}.{signature}")),
        ("an empty signature", format!("{header}.{claims}.")),
        ("no claims", format!("{header}..{signature}")),
        ("a shorter signature", format!("{header}.{claims}.{}", &signature[..40])),
        ("a space inside", format!("{header}. {claims}.{signature}")),
        ("two tokens", format!("{good}, {good}")),
        ("nothing", String::new()),
        ("not UTF-8 as text", "\u{fffd}".into()),
    ] {
        assert_unauthorized(&house.with("publish=a", &token).answer(), rule);
    }
    assert_eq!(house.with("publish=a", &good).answer().body, "true");
}

/// Everyone can turn an ECDSA signature (r, s) into (r, n - s). Node.js, OpenSSL and Java sign
/// with either form, so refusing one form would refuse half of their tokens.
#[test]
fn es256_token_has_two_forms() {
    let house = House::new();
    let header = r#"{"alg":"ES256"}"#;
    let (low, high) = ("ES256 with low s", "ES256 with high s");
    let tokens = house
        .keys
        .sign(&[(low, "es", header, claims(60, ALL)), (high, "es", header, claims(60, ALL))]);
    for token in &tokens {
        assert_eq!(house.by("ES256", "es.pub", token).body, "true");
    }
}

/// The other algorithms have one form. Adding the group's order or the modulus gives another
/// text of the same number, and it is refused.
#[test]
fn rs256_and_eddsa_signatures_have_one_form() {
    let house = House::new();
    for (algorithm, other, private, public) in [
        ("EdDSA", "EdDSA with S + L", "ed", "ed.pub"),
        ("RS256", "RS256 with a leading zero", "rs", "rs.pub"),
    ] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let draft = |how| (how, private, header.as_str(), claims(60, ALL));
        let tokens = house.keys.sign(&[draft(algorithm), draft(other)]);
        assert_eq!(house.by(algorithm, public, &tokens[0]).body, "true", "{algorithm}");
        assert_unauthorized(&house.by(algorithm, public, &tokens[1]), other);
    }
}

/// A client with the public key must not be able to sign tokens.
#[test]
fn public_key_cannot_sign_tokens() {
    let house = House::new();
    for (algorithm, public) in [("RS256", "rs.pub"), ("ES256", "es.pub"), ("EdDSA", "ed.pub")] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let tokens = house.keys.sign(&[
            ("HS256 by file", public, HS256, claims(60, ALL)),
            ("HS256 by file", public, &header, claims(60, ALL)),
        ]);
        for token in &tokens {
            assert_unauthorized(&house.by(algorithm, public, token), algorithm);
        }
        let pem = fs::read_to_string(house.keys.path(public)).unwrap();
        for (number, before) in ["", "\n", " ", "\u{feff}", "Subject: x\n\n"].iter().enumerate() {
            let name = format!("{public}-{number}");
            fs::write(house.keys.path(&name), format!("{before}{pem}")).unwrap();
            house.keys.allow(&name, 0o600);
            let token = house.keys.sign(&[("HS256 by file", &name, HS256, claims(60, ALL))]);
            let confused = house.by("HS256", &name, &token[0]);
            confused.assert_problem(503);
            assert!(confused.log.contains("holds PEM"), "{before:?}: {confused:?}");
        }
    }
    let wrong = house.keys.sign(&[
        ("EdDSA", "ed2", r#"{"alg":"EdDSA"}"#, claims(60, ALL)),
        ("ES256 in DER", "es", r#"{"alg":"ES256"}"#, claims(60, ALL)),
        ("PS256", "rs", r#"{"alg":"RS256"}"#, claims(60, ALL)),
        ("RS512", "rs", r#"{"alg":"RS256"}"#, claims(60, ALL)),
    ]);
    for (token, (algorithm, public)) in wrong.iter().zip([
        ("EdDSA", "ed.pub"),
        ("ES256", "es.pub"),
        ("RS256", "rs.pub"),
        ("RS256", "rs.pub"),
    ]) {
        assert_unauthorized(&house.by(algorithm, public, token), algorithm);
    }
}

#[test]
fn token_comes_from_header_or_cookie() {
    let house = House::new();
    let (good, other) = (house.keys.token(ALL), house.keys.token(r#"{"publish":["b"]}"#));
    let ask = || house.ask("publish=a");
    let bearer = |call: Call, text: String| call.variable("HTTP_AUTHORIZATION", &text);
    let cookie = |call: Call, text: String| {
        call.variable("HTTP_COOKIE", &text).variable("HTTP_SEC_FETCH_SITE", "same-origin")
    };
    let crumb = |token: &str| format!("mercureAuthorization={token}");
    for (rule, call, status) in [
        ("header", bearer(ask(), format!("Bearer {good}")), 200),
        ("a scheme in any case", bearer(ask(), format!("bEARER  {good}")), 200),
        ("cookie", cookie(ask(), crumb(&good)), 200),
        ("cookie among others", cookie(ask(), format!("x=1; {};y=2", crumb(&good))), 200),
        (
            "the server's own scheme, and a cookie",
            cookie(bearer(ask(), "Basic eDp5".into()), crumb(&good)),
            200,
        ),
        (
            "header good, cookie bad",
            cookie(bearer(ask(), format!("Bearer {good}")), crumb("x")),
            200,
        ),
        ("header bad, cookie good", cookie(bearer(ask(), "Bearer x".into()), crumb(&good)), 401),
        ("header empty, cookie good", cookie(bearer(ask(), "Bearer".into()), crumb(&good)), 401),
        (
            "header without the grant, cookie with",
            cookie(bearer(ask(), format!("Bearer {other}")), crumb(&good)),
            403,
        ),
        ("cookie twice", cookie(ask(), format!("{}; {}", crumb(&good), crumb(&good))), 401),
        ("cookie of another name", cookie(ask(), format!("x{}", crumb(&good))), 401),
        ("cookie in another case", cookie(ask(), format!("MercureAuthorization={good}")), 401),
        ("no scheme", bearer(ask(), good.clone()), 401),
        ("another scheme", bearer(ask(), format!("Basic {good}")), 401),
        ("none", ask(), 401),
    ] {
        let answer = call.answer();
        assert_eq!(answer.status(), status, "{rule}: {answer:?}");
        if status == 401 {
            assert_unauthorized(&answer, rule);
        }
    }
    for name in ["authorization", "access_token", "token", "%61uthorization"] {
        let query = format!("publish=a&{name}={good}");
        assert_unauthorized(&house.ask(&query).answer(), "a token in the URL");
        let answer = house.with(&query, &good).answer();
        assert_unauthorized(&answer, "a token in the URL beside the header");
        let form = house.ask("").form(&query).answer();
        assert_unauthorized(&form, "a token in the form");
        let form = house.with("", &good).form(&query).answer();
        assert_unauthorized(&form, "a token in the form beside the header");
        let query = format!("subscribed[secret]=0&wait=0&{name}={good}");
        let form = house.with("", &good).form(&query).answer();
        assert_unauthorized(&form, "a subscriber's token in the form beside the header");
    }
    let message = house.with("publish=a", &good).form("token=is+a+word").answer();
    assert_eq!(message.status(), 200, "the body is a message: {message:?}");
    let free = house.ask("subscribed[public]=0&wait=0&token=x").answer();
    assert_eq!(free.status(), 200, "where no grant is needed, it is a parameter like others");
}

/// A browser sends the cookie with requests from every page. To publish or subscribe by the
/// cookie, a request needs headers that show a page of the own site.
#[test]
fn cookie_needs_proof_of_own_site() {
    let house = House::new();
    let good = house.keys.token(ALL);
    let cookie = format!("mercureAuthorization={good}");
    for (marks, publishes, subscribes) in [
        (&[][..], 403, 403),
        (&[("SEC_FETCH_SITE", "same-origin")], 200, 200),
        (&[("SEC_FETCH_SITE", "none")], 403, 403),
        (&[("SEC_FETCH_SITE", "same-site")], 403, 403),
        (&[("SEC_FETCH_SITE", "cross-site")], 403, 403),
        (&[("SEC_FETCH_SITE", "")], 403, 403),
        (&[("SEC_FETCH_SITE", "none"), ("REFERER", "http://a.example/")], 403, 403),
        (&[("SEC_FETCH_SITE", "cross-site"), ("REFERER", "http://a.example/")], 403, 403),
        (&[("SEC_FETCH_SITE", "cross-site"), ("REFERER", "https://pages.example/")], 403, 403),
        (&[("SEC_FETCH_SITE", "cross-site"), ("ORIGIN", "https://pages.example")], 200, 200),
        (&[("SEC_FETCH_SITE", "same-site"), ("ORIGIN", "https://pages.example")], 200, 200),
        (&[("SEC_FETCH_SITE", "cross-site"), ("ORIGIN", "http://a.example")], 403, 403),
        (&[("ORIGIN", "http://a.example")], 200, 200),
        (&[("ORIGIN", "https://pages.example")], 200, 200),
        (&[("ORIGIN", "http://evil.example")], 403, 403),
        (&[("ORIGIN", "null")], 403, 403),
        (&[("ORIGIN", "")], 403, 403),
        (&[("ORIGIN", "null"), ("REFERER", "http://a.example/")], 403, 403),
        // A redirect by a foreign page keeps the Referer of our page.
        (&[("REFERER", "http://a.example/page")], 403, 200),
        (&[("REFERER", "https://pages.example/page")], 403, 200),
        (&[("REFERER", "http://evil.example/page")], 403, 403),
        (&[("REFERER", "")], 403, 403),
    ] {
        let from = |call: Call| {
            let call = call.variable("NOVCOMET_ORIGINS", "https://pages.example");
            let set = |call: Call, (name, value): &(&str, &str)| {
                call.variable(&format!("HTTP_{name}"), value)
            };
            marks.iter().fold(call, set)
        };
        let ask = |query: &str| from(house.ask(query).variable("HTTP_COOKIE", &cookie));
        let form = from(house.ask("").form("publish=a").variable("HTTP_COOKIE", &cookie));
        for (call, status) in [
            (ask("publish=a"), publishes),
            (form, publishes),
            (ask("publish=a").method("HEAD"), publishes),
            (ask("subscribed[secret]=0&wait=0"), subscribes),
            (ask("subscribed[secret]=0&wait=0").method("HEAD"), subscribes),
            (ask("subscribed[secret]=0&wait=0&stream=1"), subscribes),
            (ask("subscribed[secret]=0&wait=0&stream=json"), subscribes),
            (ask("subscribed[public]=0&wait=0"), 200),
        ] {
            let answer = call.answer();
            assert_eq!(answer.status(), status, "{marks:?}: {answer:?}");
            let says = "send Sec-Fetch-Site: same-origin or this site's Origin";
            assert!(status == 200 || answer.body.is_empty() || answer.body.contains(says));
        }
        let header = from(house.with("publish=a", &good)).answer();
        assert_eq!(header.status(), 200, "the header is no cookie: {marks:?}");
    }
}

#[test]
fn every_topic_needs_a_matching_grant() {
    let house = House::new();
    let token =
        house.keys.token(r#"{"publish":["a","news/*"],"subscribe":["secret","private/b*"]}"#);
    for (query, status) in [
        ("publish=a", 200),
        ("publish=news/today", 200),
        ("publish=news/", 200),
        ("publish=a&publish=news/x", 200),
        ("publish=A", 403),
        ("publish=ab", 403),
        ("publish=news", 403),
        ("publish=a&publish=b", 403),
        ("publish=secret", 403),
        ("publish=*", 403),
        ("subscribed[secret]=0&wait=0", 200),
        ("subscribed[private/b]=0&wait=0", 200),
        ("subscribed[private/box]=0&wait=0", 200),
        ("subscribed[public]=0&wait=0", 200),
        ("subscribed[public]=0&subscribed[secret]=0&wait=0", 200),
        ("subscribed[private/a]=0&wait=0", 403),
        ("subscribed[secret]=0&subscribed[private/a]=0&wait=0", 403),
        ("subscribed[private/a]=0&wait=0&stream=1", 403),
        ("subscribed[private/a]=0&wait=0&stream=json", 403),
    ] {
        let answer = house.with(query, &token).answer();
        assert_eq!(answer.status(), status, "{query}: {answer:?}");
        let head = house.with(query, &token).method("HEAD").answer();
        assert_eq!(head.status(), status, "HEAD {query}: {head:?}");
    }
    let null = house.keys.token(r#"{"publish":["a"],"subscribe":null}"#);
    assert_eq!(house.with("publish=a", &null).answer().status(), 200, "as Mercure has it");
    house.with("subscribed[secret]=0&wait=0", &null).answer().assert_problem(403);
    let empty = house.keys.sign(&[("HS256", "hs", HS256, format!(r#"{{"exp":{}}}"#, now() + 60))]);
    house.with("publish=a", &empty[0]).answer().assert_problem(403);
    let mut names = house.store.names();
    names.sort_unstable();
    assert_eq!(names, ["a.comet", "news%2F.comet", "news%2Ftoday.comet", "news%2Fx.comet"]);
}

#[test]
fn private_topic_needs_a_token() {
    let house = House::new();
    for topic in ["secret", "private/", "private/x", "%73ecret"] {
        for more in ["", "&stream=1", "&stream=json"] {
            for method in ["GET", "HEAD"] {
                let query = format!("subscribed[{topic}]=earliest&wait=0{more}");
                let answer = house.ask(&query).method(method).answer();
                assert_eq!(answer.status(), 401, "{method} {query}: {answer:?}");
            }
        }
        let form = house.ask("").form(&format!("subscribed[{topic}]=0&wait=0"));
        assert_unauthorized(&form.answer(), topic);
    }
    for topic in ["secrets", "Secret", "private", "public"] {
        let answer = house.ask(&format!("subscribed[{topic}]=0&wait=0")).answer();
        assert_eq!(answer.status(), 200, "{topic} is public: {answer:?}");
    }
    let mut shell = house.ask("subscribed[secret]=0&wait=0");
    shell.command.env_remove("REQUEST_METHOD");
    assert_eq!(shell.answer().status(), 200, "a shell can read the file itself");
}

#[test]
fn subscribe_token_applies_to_every_topic() {
    let house = House::new();
    let token = house.keys.token(r#"{"subscribe":["secret","b/*"]}"#);
    let ask = |query: &str| house.ask(query).variable("NOVCOMET_SUBSCRIBE", "token");
    let with = |query: &str| house.with(query, &token).variable("NOVCOMET_SUBSCRIBE", "token");
    for more in ["", "&stream=1", "&stream=json"] {
        for (topic, status) in [("secret", 200), ("b/c", 200), ("public", 403), ("b", 403)] {
            let query = format!("subscribed[{topic}]=0&wait=0{more}");
            assert_unauthorized(&ask(&query).answer(), &query);
            assert_eq!(with(&query).answer().status(), status, "{query}");
            assert_eq!(with(&query).method("HEAD").answer().status(), status, "HEAD {query}");
        }
    }
    let both = with("subscribed[secret]=0&subscribed[public]=0&wait=0").answer();
    both.assert_problem(403);
}

#[test]
fn any_separator_makes_topics_private() {
    let house = House::new();
    let ask = |list: &str, topic: &str| {
        let query = format!("subscribed[{topic}]=earliest&wait=0");
        house.ask(&query).variable("NOVCOMET_PRIVATE", list).answer()
    };
    for between in ["\t", "\n", "\r\n", "\u{a0}", "\u{2003}", "\u{feff}", "\u{200b}", " , "] {
        let list = format!("{between}secret{between}other{between}");
        assert_eq!(ask(&list, "secret").status(), 401, "{list:?}");
        assert_eq!(ask(&list, "other").status(), 401, "{list:?}");
    }
    assert_eq!(ask("salary%20list,a%2Cb", "salary%20list").status(), 401);
    assert_eq!(ask("salary%20list,a%2Cb", "a,b").status(), 401);
    assert_eq!(ask("salary%20list", "salary").status(), 200);
    for list in ["\"secret\"", "50%", "%00", "%ff", &"x".repeat(1025)] {
        let answer = ask(list, "secret");
        answer.assert_problem(503);
        assert!(answer.log.contains("is not a list of names that topics can have"), "{answer:?}");
    }
}

// Expiry.

#[test]
fn stream_ends_when_its_token_expires() {
    let house = House::new();
    let long = house.keys.token(ALL);
    let short = house.keys.sign(&[("HS256", "hs", HS256, claims(8, ALL))]).remove(0);
    let begin = Instant::now();
    let stream = house.with("subscribed[secret]=0&stream=1", &short).waiting();
    house.with("publish=secret&data=before", &long).answer();
    let answer = stream.answer();
    let took = begin.elapsed();
    assert!(answer.body.contains("data: before\n"), "what came before is delivered: {answer:?}");
    assert!(took < Duration::from_secs(60), "five minutes were its own: {took:?}");
}

#[test]
fn expired_token_ends_poll_with_401() {
    let house = House::new();
    let short = house.keys.sign(&[("HS256", "hs", HS256, claims(2, ALL))]).remove(0);
    let begin = Instant::now();
    let answer = house.with("subscribed[secret]=0", &short).answer();
    assert_unauthorized(&answer, "exp passed while it waited");
    assert!(begin.elapsed() < Duration::from_secs(60), "an hour was its own");
}

/// A stopped process cannot exit in time, so `exp` is checked at each delivery.
#[test]
fn message_after_expiry_is_not_delivered() {
    let house = House::new();
    let long = house.keys.token(ALL);
    for query in ["subscribed[secret]=0&stream=1", "subscribed[secret]=0"] {
        let draft = ("HS256", "hs", HS256, claims(5, ALL));
        let short = house.keys.sign(&[draft]).remove(0);
        let waiter = house.with(query, &short).waiting();
        waiter.signal("STOP");
        std::thread::sleep(Duration::from_millis(5100));
        let late = house.with("publish=secret&data=late", &long).answer();
        assert_eq!(late.status(), 200);
        waiter.signal("CONT");
        let answer = waiter.answer();
        assert!(!answer.body.contains("late"), "{query}: {answer:?}");
    }
}

// The key.

#[test]
fn exposed_or_invalid_key_is_refused() {
    let house = House::new();
    let keys = &house.keys;
    let good = keys.token(ALL);
    let write = |name: &str, content: &[u8], mode: u32| {
        fs::write(keys.path(name), content).unwrap();
        keys.allow(name, mode);
    };
    let secret = fs::read(keys.path("hs")).unwrap();
    write("readable", &secret, 0o644);
    write("writable", &secret, 0o602);
    write("executable", &secret, 0o601);
    write("group-writable", &secret, 0o660);
    write("two-names", &secret, 0o600);
    fs::hard_link(keys.path("two-names"), keys.path("second-name")).unwrap();
    for (name, entries) in
        [("acl", "u:1:r"), ("group-acl", "g:1:r"), ("long-acl", "u:1:-,u:2:-,g:1:-")]
    {
        write(name, &secret, 0o600);
        let acl = Command::new("setfacl").args(["-m", entries, &keys.path(name)]).status();
        assert!(acl.expect("setfacl, of the package acl").success(), "{name}");
        keys.allow(name, 0o640);
    }
    write("mask-only", &secret, 0o600);
    let mask = Command::new("setfacl").args(["-m", "m::r", &keys.path("mask-only")]).status();
    assert!(mask.unwrap().success());
    write("short", &[b'x'; 31], 0o600);
    write("short-line", &[&[b'x'; 31][..], b"\n"].concat(), 0o600);
    write("empty", b"", 0o600);
    write("large", &vec![b'x'; 20_000], 0o600);
    symlink(keys.path("hs"), keys.path("link")).unwrap();
    fs::create_dir(keys.path("directory")).unwrap();
    keys.allow("directory", 0o700);
    assert!(Command::new("mkfifo").arg(keys.path("fifo")).status().unwrap().success());
    keys.allow("fifo", 0o600);
    let mut names = vec![
        ("HS256", "readable"),
        ("HS256", "writable"),
        ("HS256", "executable"),
        ("HS256", "group-writable"),
        ("HS256", "two-names"),
        ("HS256", "acl"),
        ("HS256", "group-acl"),
        ("HS256", "long-acl"),
        ("HS256", "short"),
        ("HS256", "short-line"),
        ("HS256", "empty"),
        ("HS256", "large"),
        ("HS256", "link"),
        ("HS256", "directory"),
        ("HS256", "fifo"),
        ("HS256", "rs"),
        ("RS256", "rs"),
        ("RS256", "es.pub"),
        ("RS256", "rs1024.pub"),
        ("RS256", "hs"),
        ("ES256", "es"),
        ("ES256", "es384.pub"),
        ("ES256", "ed.pub"),
        ("EdDSA", "es.pub"),
        ("EdDSA", "ed"),
    ];
    if is_root() {
        write("foreign", &secret, 0o600);
        chown(keys.path("foreign"), Some(1), None).unwrap();
        names.push(("HS256", "foreign"));
        // A device must not be read, although its content could be a key.
        let zeros = Command::new("mknod").args([&keys.path("device"), "c", "1", "5"]).status();
        assert!(zeros.unwrap().success());
        keys.allow("device", 0o600);
        names.push(("HS256", "device"));
    } else {
        not_run("a key of another user, and one that is a device", "root");
    }
    for (algorithm, name) in names {
        let answer = house.by(algorithm, name, &good);
        answer.assert_problem(503);
        let path = keys.path(name);
        assert!(
            answer.log.starts_with(&format!("novcomet: NOVCOMET_TOKEN_KEY: {path} ")),
            "{answer:?}"
        );
        assert!(!answer.body.contains("novcomet-test"), "the client reads no path: {answer:?}");
        for part in secret.trim_ascii_end().windows(8) {
            let part = std::str::from_utf8(part).unwrap();
            assert!(!answer.log.contains(part) && !answer.body.contains(part), "{answer:?}");
        }
    }
    assert_eq!(house.by("HS256", "mask-only", &good).body, "true", "an ACL without names");
    write("root-and-group", &secret, 0o640);
    assert_eq!(house.by("HS256", "root-and-group", &good).body, "true");
}

/// An administrator may have set the secret instead of the path of its file.
#[test]
fn secret_set_as_path_is_not_logged() {
    let house = House::new();
    for secret in [
        "/9j4AAQSkZJRgABAQEASABIAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4R",
        "/etc/passwd/AAQSkZJRgABAQEASABIAAD",
        "9j4AAQSkZJRgABAQEASABIAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsN",
        &format!("/{}", "s3cr3t+A".repeat(600)),
    ] {
        for name in ["NOVCOMET_TOKEN_KEY", "NOVCOMET_TOKEN_ALGORITHM"] {
            let answer = house.with("publish=a", "x").variable(name, secret).answer();
            answer.assert_problem(503);
            assert!(answer.log.starts_with(&format!("novcomet: {name}")), "{answer:?}");
            for part in secret.as_bytes().windows(12) {
                let part = std::str::from_utf8(part).unwrap();
                assert!(!answer.log.contains(part) && !answer.body.contains(part), "{answer:?}");
            }
        }
    }
}

#[test]
fn key_is_read_only_when_needed() {
    let house = House::new();
    let absent = |query: &str| house.ask(query).variable("NOVCOMET_TOKEN_KEY", "/nowhere/key");
    assert_eq!(absent("subscribed[public]=0&wait=0").answer().status(), 200);
    assert_eq!(absent("").method("OPTIONS").answer().status(), 204);
    absent("subscribed[secret]=0&wait=0").answer().assert_problem(503);
    absent("publish=a").answer().assert_problem(503);
}

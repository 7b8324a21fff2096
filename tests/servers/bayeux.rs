//! The server of Bayeux at its URLs, as the shipped configurations have them. The stories of
//! its clients are in `tests/browser/bayeux.test.mjs`.

use serde_json::Value;

use crate::support::server::{Exchange, Kind, Reply, Server, stories};

stories! {
    every_url_of_a_client_is_answered
    htaccess_maps_the_urls
    other_requests_are_refused
}

const JSON: &str = "Content-Type: application/json";
const HANDSHAKE: &str = r#"[{"channel":"/meta/handshake","version":"1.0","id":"1",
    "supportedConnectionTypes":["long-polling"]}]"#;

fn post(server: &Server, url: &str, body: &str) -> Reply {
    Exchange::send(server.port(), &format!("POST {url}"), &[JSON], body.as_bytes()).reply()
}

fn replies(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, 200, "{reply:?}");
    serde_json::from_str(&reply.body).unwrap_or_else(|_| panic!("{reply:?}"))
}

fn assert_answers(server: &Server, url: &str) {
    let reply = post(server, url, HANDSHAKE);
    assert_eq!(reply.header("Content-Type"), Some("application/json;charset=UTF-8"));
    assert_eq!(replies(&reply)[0]["successful"], true, "{url}");
}

fn every_url_of_a_client_is_answered(kind: Kind) {
    let server = Server::start(kind);
    for end in ["", "/", "/handshake", "/connect", "/disconnect"] {
        assert_answers(&server, &format!("/bayeux{end}"));
    }
    let form = "message=%7B%22channel%22%3A%22%2Fa%22%2C%22data%22%3A1%7D";
    let form = format!("{form}&jsonp=alert");
    let headers = ["Content-Type: application/x-www-form-urlencoded"];
    let reply = Exchange::send(server.port(), "POST /bayeux", &headers, form.as_bytes()).reply();
    assert_eq!(replies(&reply)[0]["successful"], true);
    assert!(!reply.body.contains("alert"));
    assert_eq!(server.complaints(), [""; 0]);
}

fn htaccess_maps_the_urls(kind: Kind) {
    if kind == Kind::Lighttpd {
        return;
    }
    let allowed = "Alias /drop ${ROOT}/drop\n<Directory ${ROOT}/drop>\nRequire all granted\n\
                   AllowOverride Options FileInfo AuthConfig Limit\n</Directory>";
    let server = Server::setup(kind).lines(allowed).start();
    server.drop_in("drop");
    for end in ["", "/", "/handshake"] {
        assert_answers(&server, &format!("/drop/bayeux{end}"));
    }
}

fn other_requests_are_refused(kind: Kind) {
    let server = Server::start(kind);
    for (body, status) in [("", 400), ("[]", 400), ("{\"a\":", 400), ("nonsense", 400)] {
        let reply = post(&server, "/bayeux", body);
        assert_eq!(reply.status, status, "{body}");
        assert_eq!(reply.header("Content-Type"), Some("application/problem+json"));
    }
    let jsonp = server.get("/bayeux?message=%5B%5D&jsonp=f");
    assert_eq!((jsonp.status, jsonp.header("Allow")), (405, Some("POST, OPTIONS")));
    assert!(jsonp.body.contains(r#""detail":"use POST, OPTIONS""#), "{}", jsonp.body);
    assert_eq!(server.complaints(), [""; 0]);
}

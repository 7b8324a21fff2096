//! The real binary tells its version, and where its events are.

use crate::support::binary::{Call, Store};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// The example of docs/protocol.md, of the present version.
fn quote(example: &str) -> String {
    let example = example.replace("VERSION", env!("CARGO_PKG_VERSION"));
    assert!(PROTOCOL.contains(&format!("    {example}\n")), "not in docs/protocol.md: {example}");
    example
}

fn brief() -> String {
    quote(r#"{"version":"VERSION","protocols":["bayeux","mercure","novcomet"]}"#)
}

fn whole(store: &Store) -> String {
    let whole = quote(
        r#"{"version":"VERSION","protocols":["bayeux","mercure","novcomet"],"store":"file:///dev/shm"}"#,
    );
    whole.replace("/dev/shm", store.0.to_str().unwrap())
}

/// A call as of a browser on the server's own machine.
fn ask(store: &Store) -> Call {
    let call = store.query("about=1").method("GET").variable("SERVER_PROTOCOL", "HTTP/1.1");
    call.variable("REMOTE_ADDR", "127.0.0.1").variable("HTTP_HOST", "localhost")
}

#[test]
fn about_matches_the_documentation() {
    let store = Store::new();
    let answer = ask(&store).answer();
    assert_eq!((answer.status(), answer.body, answer.log), (200, whole(&store), String::new()));
    let default = ask(&store).variable("NOVCOMET_STORE", "").answer();
    assert_eq!(default.body, quote(&whole(&store).replace(store.0.to_str().unwrap(), "/dev/shm")));
    let posted = store.query("").form("about=1").variable("NOVCOMET_PUBLISH", "none");
    assert_eq!(posted.variable("NOVCOMET_SUBSCRIBE", "none").answer().body, brief());
    let head = ask(&store).method("HEAD").answer();
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    for query in ["about", "about=", "about=0", "about=x"] {
        store.query(query).answer().assert_problem(400);
    }
    assert_eq!(store.query("about=1&publish=a").answer().body, "true");
    let poll = store.query("about=1&subscribed[a]=0.1").answer().body;
    assert!(poll.starts_with(r#"{"s":1,"#), "{poll}");
}

#[test]
fn only_local_clients_learn_the_directory() {
    let store = Store::new();
    for (variable, value) in [
        ("REMOTE_ADDR", "127.8.9.1"),
        ("REMOTE_ADDR", "::1"),
        ("REMOTE_ADDR", "::ffff:127.0.0.1"),
        ("HTTP_HOST", "LocalHost:8080"),
        ("HTTP_HOST", "127.0.0.1:80"),
        ("HTTP_HOST", "[::1]"),
        ("HTTP_HOST", "[::1]:8080"),
        ("SERVER_PROTOCOL", "HTTP/2.0"),
    ] {
        let answer = ask(&store).variable(variable, value).answer();
        assert_eq!(answer.body, whole(&store), "{variable}={value}");
    }
    for (variable, value) in [
        ("REMOTE_ADDR", ""),
        ("REMOTE_ADDR", "192.0.2.1"),
        ("REMOTE_ADDR", "::ffff:192.0.2.1"),
        ("REMOTE_ADDR", "127.0.0.1, 192.0.2.1"),
        ("HTTP_HOST", ""),
        ("HTTP_HOST", "pages.example"),
        ("HTTP_HOST", "localhost.pages.example"),
        ("HTTP_HOST", "127.0.0.1.pages.example"),
        ("HTTP_HOST", "192.0.2.1:127"),
        ("HTTP_HOST", "localhost:127.0.0.1"),
        ("SERVER_PROTOCOL", "HTTP/1.0"),
        ("HTTP_FORWARDED", "for=192.0.2.1"),
        ("HTTP_VIA", "1.1 proxy"),
        ("HTTP_X_FORWARDED_FOR", "127.0.0.1"),
        ("HTTP_X_FORWARDED_HOST", "pages.example"),
        ("HTTP_X_FORWARDED_PROTO", "https"),
        ("HTTP_X_REAL_IP", ""),
        ("NOVCOMET_TELL_STORE", "off"),
    ] {
        let answer = ask(&store).variable(variable, value).answer();
        assert_eq!(answer.body, brief(), "{variable}={value}");
    }
    let told = ask(&store).variable("REMOTE_ADDR", "192.0.2.1");
    assert_eq!(told.variable("NOVCOMET_TELL_STORE", "on").answer().body, whole(&store));
}

/// A shell can read its own environment.
#[test]
fn shell_learns_the_directory() {
    let store = Store::new();
    assert_eq!(store.query("about=1").answer().body, whole(&store));
    let off = store.query("about=1").variable("NOVCOMET_TELL_STORE", "off");
    assert_eq!(off.answer().body, brief());
}

#[test]
fn url_of_a_server_is_never_told() {
    let store = Store::new();
    for url in
        ["redis://u:s3cret@127.0.0.1:1/0", "unix:///s?pass=s3cret", "memcached://127.0.0.1:1"]
    {
        let call = ask(&store).variable("NOVCOMET_STORE", url);
        assert_eq!(call.variable("NOVCOMET_TELL_STORE", "on").answer().body, brief(), "{url}");
    }
}

/// A directory's URL has its special characters encoded.
#[test]
fn directory_is_told_as_a_url() {
    let store = Store::new();
    let odd = store.0.join("a b%é");
    std::fs::create_dir(&odd).unwrap();
    let url = format!("file://{}/a%20b%25%C3%A9", store.0.display());
    let answer = ask(&store).variable("NOVCOMET_STORE", &format!("{url}/")).answer();
    assert!(answer.body.contains(&format!(r#""store":"{url}""#)), "{answer:?}");
}

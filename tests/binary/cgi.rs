//! The real binary, called with nothing but an environment: its answers and its files.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::support::binary::{Call, SECOND, Store};
use crate::support::dir::set_time;
use crate::support::host::{is_root, not_run};

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// Whether docs/protocol.md has this example.
fn quote(example: &str) -> &str {
    assert!(PROTOCOL.contains(&format!("    {example}\n")), "not in docs/protocol.md: {example}");
    example
}

#[test]
fn publish_touches_the_event_file() {
    let store = Store::new();
    let answer = store.query("publish=a").answer();
    assert_eq!(answer.body, quote("true"));
    assert_eq!(store.names(), ["a.comet"]);
    assert_eq!(fs::metadata(store.file("a")).unwrap().len(), 0);
}

#[test]
fn answer_has_the_documented_head() {
    let store = Store::new().with("a", SECOND, 163_846_000);
    for query in ["publish=b", "subscribed[a]=1.5", "subscribed[a]=0&wait=0"] {
        let answer = store.query(query).answer();
        let length = format!("Content-Length: {}", answer.body.len());
        assert_eq!(answer.head.lines().last(), Some(&*length));
        for line in answer.head.replace(&length, "Content-Length: 4").lines() {
            quote(line);
        }
        assert_eq!(answer.head.lines().count(), 7);
    }
}

#[test]
fn poll_answers_match_the_documentation() {
    let store = Store::new().with("a", SECOND, 163_846_000);
    let news = store.query("subscribed[a]=1.5&subscribed[b]=0&1300000000").answer();
    assert_eq!(news.body, quote(r#"{"s":1,"k":{"a":1795415403.163846}}"#));
    let quiet = store.query("subscribed[a]=1795415403.163846&subscribed[b]=&wait=0").answer();
    assert_eq!(quiet.body, quote(r#"{"s":0,"k":{"a":1795415403.163846,"b":0.100000}}"#));
    assert_eq!(store.names(), ["a.comet"], "subscribing creates nothing");
}

#[test]
fn topics_with_news_are_listed_in_order() {
    let store = Store::new().with("b", SECOND, 0).with("a", SECOND, 5_000).with("old", 9, 0);
    let answer =
        store.query("subscribed[a]=1.5&subscribed[old]=9.000001&subscribed[b]=1.5").answer();
    assert_eq!(answer.body, r#"{"s":1,"k":{"a":1795415403.000005,"b":1795415403.000001}}"#);
}

#[test]
fn each_cursor_form_has_its_meaning() {
    let store = Store::new().with("a", SECOND - 1_000_000_000, 500_005_000);
    for (cursor, s) in [
        ("795415403.500004", '1'),
        ("795415403.5", '1'),
        ("795415403.500005", '0'),
        ("795415403.500006", '1'),
        ("795415402", '1'),
        ("795415403", '0'),
        ("0", '0'),
        ("", '0'),
        ("9999999999", '0'),
        ("9999999999.5", '1'),
        ("0.1", '1'),
    ] {
        let answer = store.query(&format!("subscribed[a]={cursor}&wait=0")).answer();
        let stands = (s, "795415403.500005".to_owned());
        assert_eq!(answer.cursor("a"), stands, "{cursor:?}");
    }
}

#[test]
fn invalid_requests_get_400() {
    let store = Store::new();
    for query in [
        "",
        "x",
        "&123",
        "publish=",
        "subscribed",
        "subscribed=1",
        "subscribed[]=0",
        "subscribed[a",
        "subscribed[a][b]=0",
        "subscribed[a][]=0",
        "subscribed%5Ba%5D%5Bb%5D=0",
        "subscribed]a[=0",
        "subscribed[a]=x",
        "subscribed[a]=-1",
        "subscribed[a]=1e9",
        "subscribed[a]=1.2.3",
        "subscribed[a]=99999999999999999999",
        "subscribed[a]=0&wait=x",
        "subscribed[a]=0&wait=-1",
        "subscribed[a]=0&wait=",
        "subscribed[a]=0&wait=inf",
        "publish=%FF",
        "subscribed[%C3%28]=0",
        "publish=%0A",
        "publish=a%00b",
        "--help",
        "-h+x",
        "%FF",
    ] {
        store.query(query).method("GET").answer().assert_problem(400);
    }
    store.query(&format!("publish={}", "x".repeat(1025))).answer().assert_problem(400);
    store.query(&"x".repeat(8193)).answer().assert_problem(414);
    assert_eq!(store.names(), [""; 0]);
    let text = store.query("").answer().body;
    assert_eq!(
        text,
        quote(
            r#"{"detail":"say what: publish=ID, subscribed[ID]=CURSOR or matching=PATTERN","status":400,"title":"Bad Request"}"#
        )
    );
}

#[test]
fn publish_takes_precedence_over_subscribe() {
    let store = Store::new();
    let answer = store.query("subscribed[c]=0&publish=a&publish=b&publish=a").answer();
    assert_eq!((answer.body.as_str(), store.names().len()), ("true", 2));
}

#[test]
fn each_unusual_id_has_a_file() {
    for (query, id, name) in [
        ("a%2Fb", "a%2Fb", "a%2Fb.comet"),
        ("..%2F..%2Fetc", "..%2F..%2Fetc", "..%2F..%2Fetc.comet"),
        ("100%25", "100%25", "100%25.comet"),
        ("a%252Fb", "a%252Fb", "a%252Fb.comet"),
        ("..", "..", "...comet"),
        ("%C3%A9", "%C3%A9", "é.comet"),
        ("a+b", "a%20b", "a b.comet"),
        ("a%5D%5Bb", "a%5D%5Bb", "a][b.comet"),
        ("%EF%BF%BD", "%EF%BF%BD", "\u{fffd}.comet"),
    ] {
        let store = Store::new();
        assert_eq!(store.query(&format!("publish={query}")).answer().body, "true");
        assert_eq!(store.names(), [name], "{query}");
        let answer = store.query(&format!("subscribed[{id}]=1.5")).answer();
        assert!(answer.body.starts_with(r#"{"s":1,"#), "{answer:?}");
    }
}

#[test]
fn encoded_brackets_are_decoded() {
    let store = Store::new().with("a", SECOND, 5_000);
    assert_eq!(store.query("subscribed%5Ba%5D=1.5").answer().cursor("a").0, '1');
}

#[test]
fn head_options_and_put_publish_nothing() {
    let store = Store::new().with("a", SECOND, 5_000);
    let head = store.query("publish=b").method("HEAD").answer();
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    let head = store.query("subscribed[a]=0").method("HEAD").answer();
    assert_eq!((head.status(), head.body.as_str()), (200, ""));
    let options = store.query("").method("OPTIONS").answer();
    assert_eq!((options.status(), options.body.as_str()), (204, ""));
    assert!(options.head.contains("\r\nAllow: GET, HEAD, POST, OPTIONS"));
    let put = store.query("publish=b").method("PUT").answer();
    put.assert_problem(405);
    assert!(put.head.contains("\r\nAllow: GET, HEAD, POST, OPTIONS"));
    assert_eq!(store.names(), ["a.comet"]);
}

#[test]
fn form_is_read_like_a_query() {
    let store = Store::new();
    let answer = store.query("").form("publish=b").answer();
    let (s, cursor) = answer.cursor("b");
    assert_eq!(answer.body, format!(r#"{{"s":{s},"k":{{"b":{cursor}}}}}"#));
    assert_eq!(store.query("").form("subscribed[b]=1.5").answer().cursor("b"), (s, cursor));
    let long = format!("publish=c&data={}", "y".repeat(65_537));
    store.query("").form(&long).answer().assert_problem(413);
    store.query("").form(&"%20".repeat(80_000)).answer().assert_problem(413);
    let parts = store.query("publish=d").form("{}");
    parts.variable("CONTENT_TYPE", "multipart/form-data; boundary=x").answer().assert_problem(415);
    let short = store.query("").form("publish=d").variable("CONTENT_LENGTH", "10");
    short.answer().assert_problem(400);
    assert_eq!(store.names(), ["b.comet"]);
}

// Messages.

#[test]
fn message_is_one_line_of_the_log() {
    let store = Store::new().with("a", SECOND, 163_845_000);
    store.query("publish=a&data=two%0Alines").answer();
    let (second, nanos) = store.time("a");
    let log = fs::read_to_string(store.file("a")).unwrap();
    let (header, line) = log.split_once('\n').unwrap();
    assert!(header.starts_with(r#"{"born":1795415403.163845,"inode":"#), "{log}");
    let id = format!("{second}.{:06}", nanos / 1000);
    assert_eq!(line, format!("{{\"id\":{id},\"data\":\"two\\nlines\"}}\n"));
}

#[test]
fn message_is_published_in_every_form() {
    type Way = fn(&Store) -> Call;
    let typed = |call: Call, kind| call.variable("CONTENT_TYPE", kind);
    let form = "application/x-www-form-urlencoded";
    let ways: [(Way, &str, &str); 8] = [
        (|store| store.query("publish=a&data=x%26y+z"), form, "x&y z"),
        (|store| store.query("publish=a&data="), form, ""),
        (|store| store.query("").form("publish=a&data=%C3%A9"), form, "é"),
        (|store| store.query("publish=a").form("data=x"), form, "x"),
        (
            |store| store.query("publish=a").form("a whole file\n1 + 1 = 2"),
            form,
            "a whole file\n1 + 1 = 2",
        ),
        (|store| store.query("publish=a").form("data=x"), "text/plain", "data=x"),
        (|store| store.query("publish=a").form("{\"a\": 1}\n"), "application/json", "{\"a\": 1}\n"),
        (|store| store.query("publish=a").form("é"), "text/plain; charset=utf-8", "é"),
    ];
    for (way, kind, data) in ways {
        let store = Store::new();
        assert_eq!(typed(way(&store), kind).answer().status(), 200);
        let answer = store.query("subscribed[a]=earliest").answer();
        let id = answer.cursor("a").1;
        let data = serde_json::to_string(data).unwrap();
        let m = format!(r#""m":{{"a":[{{"id":{id},"data":{data}}}]}}"#);
        assert_eq!(answer.body, format!(r#"{{"s":1,"k":{{"a":{id}}},{m}}}"#));
    }
    let store = Store::new();
    let mut latin = store.query("publish=a").form("x");
    latin.stdin = b"\xe9".to_vec();
    latin.answer().assert_problem(415);
    store.query("publish=a&data=%FF").answer().assert_problem(400);
    assert_eq!(store.names(), [""; 0]);
}

/// Someone relays a text of somebody else, as curl and webhooks send it.
#[test]
fn no_message_chooses_a_topic() {
    let form = "application/x-www-form-urlencoded";
    for (kind, body, data) in [
        ("", r#"{"a":"x=1&publish=evil&data=2"}"#, None),
        (form, r#"{"a":"x=1&publish=evil&data=2"}"#, None),
        (form, "publish=evil&data=2", None),
        ("", "data=2&publish=evil", None),
        (form, "data=2&publish=evil&publish=", Some("2")),
        (form, "wait=x&subscribed[a]=x&token=x&authorization=x", None),
        (form, "data=&token=x", Some("")),
        ("", "token=x", None),
        (form, "batch=[{\"publish\":\"evil\"}]", None),
    ] {
        let store = Store::new();
        let post = store.query("publish=a").form(body).variable("CONTENT_TYPE", kind);
        assert_eq!(post.answer().status(), 200, "{body}");
        assert_eq!(store.names(), ["a.comet"], "{body}");
        let message = serde_json::to_string(data.unwrap_or(body)).unwrap();
        let news = store.query("subscribed[a]=earliest").answer().body;
        assert!(news.contains(&format!(r#","data":{message}}}]"#)), "{news}");
    }
}

/// A payload that would be lost, and a body where the parameters are not looked for.
#[test]
fn misplaced_message_is_refused() {
    let store = Store::new();
    for nested in ["publish=a&data[a]=1", "publish=a&data%5B%5D=1&data=x"] {
        let answer = store.query("").form(nested).answer();
        answer.assert_problem(400);
        assert!(answer.body.contains("data is one text"), "{answer:?}");
        store.query(nested).answer().assert_problem(400);
    }
    let json = store.query("").form(r#"{"publish":"a","data":"b"}"#);
    let answer = json.variable("CONTENT_TYPE", "application/json").answer();
    answer.assert_problem(400);
    assert!(answer.body.contains("this body is no form"), "{answer:?}");
    assert_eq!(store.names(), [""; 0]);
}

#[test]
fn several_topics_get_the_same_message() {
    let store = Store::new();
    let answer = store.query("").form("publish=a&publish=b&data=x").answer();
    for id in ["a", "b"] {
        let news = store.query(&format!("subscribed[{id}]=earliest")).answer();
        assert_eq!(news.cursor(id), answer.cursor(id));
        assert!(news.body.contains(r#""data":"x""#));
    }
}

/// A log as in the examples of docs/protocol.md.
fn example() -> Store {
    let store = Store::new().with("b", SECOND, 0);
    let header = r#"{"born":1795415403.163846,"inode":1,"dropped":1795415403.163846}"#;
    let lines = [
        header,
        r#"{"id":1795415403.163847,"data":"one"}"#,
        r#"{"id":1795415403.163848,"data":"two"}"#,
    ];
    fs::write(store.file("a"), lines.map(|line| format!("{line}\n")).concat()).unwrap();
    fs::remove_file(store.file("b")).unwrap();
    set_time(&store.file("a"), SECOND, 163_848_000);
    store
}

#[test]
fn messages_match_the_documentation() {
    let store = example();
    let keep = |call: Call| call.variable("NOVCOMET_KEEP_AGE", "1e15");
    let news = keep(store.query("subscribed[a]=1795415403.163846")).answer();
    let k = r#"{"s":1,"k":{"a":1795415403.163848},"#;
    let two = r#"{"id":1795415403.163848,"data":"two"}"#;
    let m = format!(r#""m":{{"a":[{{"id":1795415403.163847,"data":"one"}},{two}]}}}}"#);
    assert_eq!(news.body, quote(&format!("{k}{m}")));
    let one = keep(store.query("subscribed[a]=1795415403.163846")).variable("NOVCOMET_KEEP", "1");
    let gap = format!(r#"{k}"m":{{"a":[{two}]}},"gap":["a"]}}"#);
    assert_eq!(one.answer().body, quote(&gap));
}

/// The first line of every stream.
const GREETING: &str = ": novcomet: events as they happen; a colon alone is a sign of life";

#[test]
fn event_stream_matches_the_documentation() {
    let store = example();
    let query = "subscribed[a]=1795415403.163846&subscribed[b]=0&wait=0";
    let call = |query: &str| store.query(query).variable("NOVCOMET_KEEP_AGE", "1e15");
    let answer = call(query).variable("HTTP_ACCEPT", "text/event-stream").answer();
    assert!(answer.head.contains("\r\nContent-Type: text/event-stream; charset=utf-8\r\n"));
    assert!(answer.head.ends_with("\r\nX-Accel-Buffering: no"));
    let begin = format!("{GREETING}\nretry: 1000\nid: hof6g6si4m-255s\n\n");
    let one = "event: a\nid: hof6g6si4n-255s\ndata: one\n\n";
    let two = "event: a\nid: hof6g6si4o-255s\ndata: two\n\n";
    assert_eq!(answer.body, format!("{begin}{one}{two}"));
    for block in [begin.as_str(), one] {
        block.lines().filter(|line| !line.is_empty()).for_each(|line| {
            quote(line);
        });
    }
    assert_eq!(call(&format!("{query}&stream=1")).answer().body, answer.body);
    let unnamed = call(&format!("{query}&stream=1&named=0")).answer().body;
    assert_eq!(unnamed, answer.body.replace("event: a\n", ""));
    let resumed = "subscribed[a]=0&subscribed[b]=0&wait=0&stream=1";
    let expected = begin.replace("4m", "4n") + two;
    let header = call(resumed).variable("HTTP_LAST_EVENT_ID", "hof6g6si4n-255s").answer();
    assert_eq!(header.body, expected);
    for name in ["Last-Event-ID", "lastEventId"] {
        let query = format!("{resumed}&{name}=hof6g6si4n-255s");
        assert_eq!(call(&query).answer().body, expected);
    }
    call(&format!("{resumed}&lastEventId=hof6g6si4n")).answer().assert_problem(400);
    call("subscribed[a]=0&stream=2").answer().assert_problem(400);
    let polled = call(query).variable("HTTP_ACCEPT", "text/event-stream");
    assert!(!polled.variable("REQUEST_METHOD", "HEAD").answer().head.contains("json"));
}

#[test]
fn latest_matches_the_documentation() {
    let store = example();
    let ask = |rest: &str| {
        let query = format!("subscribed[a]=latest&subscribed[b]=latest&wait=0{rest}");
        store.query(&query).variable("NOVCOMET_KEEP_AGE", "1").answer().body
    };
    let m = r#""m":{"a":[{"id":1795415403.163848,"data":"two"}]}}"#;
    let news = ask("");
    assert_eq!(news, quote(&format!(r#"{{"s":1,"k":{{"a":1795415403.163848}},{m}"#)));
    let (id, data) = ("id: 12kw-255s", r#"data: {"s":0,"k":{"a":0.050000,"b":0.100000}}"#);
    assert!(PROTOCOL.contains(&format!("`{data}`")) && PROTOCOL.contains(&format!("`{id}`")));
    let begin = format!("{GREETING}\nretry: 1000\n{id}\n");
    let end = format!("id: hof6g6si4o-255s\ndata: {news}\n\n");
    assert_eq!(ask("&stream=json"), format!("{begin}{data}\n\n{end}"));
    let end = "event: a\nid: hof6g6si4o-255s\ndata: two\n\n";
    assert_eq!(ask("&stream=1"), format!("{begin}\n{end}"));
}

#[test]
fn json_stream_matches_the_documentation() {
    let store = example();
    let keep = |call: Call| call.variable("NOVCOMET_KEEP_AGE", "1e15");
    let since = "subscribed[a]=1795415403.163846&subscribed[b]=0&wait=0&stream=json";
    let body = keep(store.query(since)).answer().body;
    let begin = [
        quote(GREETING),
        quote("retry: 1000"),
        quote("id: hof6g6si4m-255s"),
        quote(r#"data: {"s":0,"k":{"a":1795415403.163846,"b":0.100000}}"#),
    ];
    let poll = keep(store.query("subscribed[a]=1795415403.163846")).answer().body;
    let news = format!("id: hof6g6si4o-255s\ndata: {poll}\n\n");
    assert_eq!(body, format!("{}\n\n{news}", begin.join("\n")));
}

/// After any other answer, an `EventSource` would never come back.
#[test]
fn event_source_is_told_to_come_back_to_a_store_that_does_not_work() {
    let store = Store::new();
    let gone = format!("file://{}/gone", store.0.display());
    for query in ["subscribed[a]=0", "matching=a", "subscribed[a]=0&stream=1&named=0"] {
        for url in [gone.as_str(), "redis://127.0.0.1:1/0"] {
            let call = store.query(query).variable("NOVCOMET_STORE", url);
            let answer = call.variable("HTTP_ACCEPT", "text/event-stream").answer();
            assert_eq!(answer.status(), 200, "{query} {url}: {answer:?}");
            assert_eq!(answer.header("Content-Type"), Some("text/event-stream; charset=utf-8"));
            let seconds: u32 = answer.header("Retry-After").unwrap().parse().unwrap();
            assert!((5..=15).contains(&seconds));
            let why = quote(": the store cannot be used; the server's error log says why");
            assert_eq!(answer.body, format!("{why}\nretry: {seconds}000\n\n"));
            assert_eq!(answer.log.lines().count(), 1, "{answer:?}");
        }
    }
    let gone = |query: &str| store.query(query).variable("NOVCOMET_STORE", &gone);
    let source = |call: Call| call.variable("HTTP_ACCEPT", "text/event-stream");
    for query in ["subscribed[a]=0&stream=0", "subscribed[a]=0&stream=json", "publish=a"] {
        source(gone(query)).answer().assert_problem(503);
    }
    // Neither a right nor a setting is mended by waiting.
    let call = source(gone("subscribed[a]=0"));
    call.method("GET").variable("NOVCOMET_SUBSCRIBE", "none").answer().assert_problem(403);
    for (name, value) in [("NOVCOMET_STORE", "x"), ("NOVCOMET_KEEP", "x")] {
        source(gone("subscribed[a]=0")).variable(name, value).answer().assert_problem(503);
    }
}

#[test]
fn arguments_are_ignored_under_a_server() {
    let store = Store::new();
    for argument in ["--help", "--version", "-h", "x"] {
        let call = store.query("publish=a").argument(argument);
        assert_eq!(call.answer().body, "true");
        let call = Call::new().variable("GATEWAY_INTERFACE", "CGI/1.1").argument(argument);
        call.answer().assert_problem(400);
    }
}

#[test]
fn shell_call_prints_usage_or_version() {
    let say = |arguments: &[&str]| {
        let call = arguments.iter().fold(Call::new(), |call, argument| call.argument(argument));
        let output = call.output();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        (output.status.code().unwrap(), text)
    };
    let (code, [usage, _]) = say(&["--help"]);
    assert!(code == 0 && usage.starts_with("usage: "));
    assert_eq!(say(&[]), (0, [usage.clone(), String::new()]));
    let version = concat!("comet.cgi ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    assert_eq!(say(&["--version"]), (0, [version, String::new()]));
    let (code, [stdout, stderr]) = say(&["--nonsense"]);
    assert!(code == 2 && stdout.is_empty() && stderr.contains(&usage));
}

#[test]
fn exit_status_is_zero_under_a_server() {
    let store = Store::new();
    assert!(!store.query("subscribed[a]=x").answer().success);
    assert!(store.query("subscribed[a]=x").method("GET").answer().success);
}

// The store.

#[test]
fn unusable_store_is_503_and_logged_once() {
    let store = Store::new();
    for (name, value) in [
        ("NOVCOMET_STORE", "file:///nowhere/at/all"),
        ("NOVCOMET_STORE", "file:///etc/passwd"),
        ("NOVCOMET_STORE", "bogus://x"),
        ("NOVCOMET_TRIES", "many"),
        ("NOVCOMET_SLEEP", "-1"),
    ] {
        for query in ["publish=a", "subscribed[a]=0"] {
            let answer = store.query(query).variable(name, value).answer();
            answer.assert_problem(503);
            assert!(answer.log.starts_with("novcomet: "), "{answer:?}");
            assert!(!answer.body.contains("nowhere"), "the client reads no path");
        }
    }
}

#[test]
fn special_file_is_refused_unchanged() {
    let store = Store::new();
    fs::create_dir(store.file("dir")).unwrap();
    symlink(store.0.join("target"), store.file("link")).unwrap();
    let fifo = Command::new("mkfifo").arg(store.file("fifo")).status().unwrap();
    assert!(fifo.success());
    for id in ["dir", "link", "fifo"] {
        for query in [format!("publish={id}"), format!("subscribed[{id}]=0")] {
            store.query(&query).answer().assert_problem(503);
        }
    }
    assert!(!store.0.join("target").exists());
}

#[test]
fn publish_is_later_than_future_event() {
    let store = Store::new().with("a", 4_000_000_000, 999_999_000);
    assert_eq!(store.query("publish=a").answer().body, "true");
    assert_eq!(store.time("a"), (4_000_000_001, 1_000));
}

#[test]
fn writable_file_of_other_user_is_accepted() {
    if !is_root() {
        not_run("a file of another user", "root");
        return;
    }
    let store = Store::new().with("a", SECOND - 1_000_000_000, 0);
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o666)).unwrap();
    chown(store.file("a"), Some(1), Some(1)).unwrap();
    let as_www_data = |query: &str| {
        let mut call = store.query(query);
        call.command.uid(33).gid(33);
        call.answer()
    };
    let mut last = store.time("a");
    for _ in 0..50 {
        assert_eq!(as_www_data("publish=a").body, "true");
        assert!(store.time("a") > last);
        last = store.time("a");
    }
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o644)).unwrap();
    as_www_data("publish=a").assert_problem(503);
    set_time(&store.file("a"), 4_000_000_000, 0);
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o666)).unwrap();
    as_www_data("publish=a").assert_problem(503);
}

/// In a directory without a sticky bit, a member of the group who compacts the log replaces its
/// file. The other members must keep their access.
#[test]
fn compaction_by_group_member_keeps_the_group() {
    if !is_root() {
        not_run("a log that another of the group shortens", "root");
        return;
    }
    let store = Store::new();
    fs::set_permissions(&store.0, PermissionsExt::from_mode(0o777)).unwrap();
    store.query("publish=a&data=one").answer();
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o660)).unwrap();
    chown(store.file("a"), Some(1), Some(33)).unwrap();
    let before = fs::metadata(store.file("a")).unwrap();
    let call = store.query("publish=a&data=two").variable("NOVCOMET_KEEP_BYTES", "1");
    let somebody = ["--reuid", "2", "--regid", "2", "--groups", "33"];
    assert_eq!(call.by("setpriv", &somebody).answer().body, "true");
    let after = fs::metadata(store.file("a")).unwrap();
    assert_ne!(after.ino(), before.ino());
    assert_eq!((after.gid(), after.mode()), (before.gid(), before.mode()));
}

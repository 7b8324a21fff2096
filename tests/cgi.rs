//! The real binary, called with nothing but an environment: the wire and the store.

mod comet;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use comet::{COMET, Call, SECOND, Store, is_root, set_time};

const PROTOCOL: &str = include_str!("../docs/protocol.md");

/// Whether the page of the protocol has this example.
fn quote(example: &str) -> &str {
    assert!(PROTOCOL.contains(&format!("    {example}\n")), "not in docs/protocol.md: {example}");
    example
}

#[test]
fn a_publish_touches_the_event_file_and_answers_true() {
    let store = Store::new();
    let answer = store.query("publish=a").answer();
    assert_eq!(answer.body, quote("true"));
    assert_eq!(store.names(), ["a.comet"]);
    assert_eq!(fs::metadata(store.file("a")).unwrap().len(), 0);
}

#[test]
fn every_answer_has_the_pinned_head() {
    let store = Store::new().with("a", SECOND, 163_846_000);
    for query in ["publish=b", "subscribed[a]=1.5", "subscribed[a]=0&wait=0"] {
        let answer = store.query(query).answer();
        for line in answer.head.lines() {
            quote(line);
        }
        assert_eq!(answer.head.lines().count(), 6);
    }
}

#[test]
fn news_and_quiet_byte_for_byte() {
    let store = Store::new().with("a", SECOND, 163_846_000);
    let news = store.query("subscribed[a]=1.5&subscribed[b]=0&1300000000").answer();
    assert_eq!(news.body, quote(r#"{"s":1,"k":{"a":1795415403.163846}}"#));
    let quiet = store.query("subscribed[a]=1795415403.163846&subscribed[b]=&wait=0").answer();
    assert_eq!(quiet.body, quote(r#"{"s":0,"k":{"a":1795415403.163846,"b":0.100000}}"#));
    assert_eq!(store.names(), ["a.comet"], "subscribing creates nothing");
}

#[test]
fn every_topic_that_has_news_is_listed_in_order() {
    let store = Store::new().with("b", SECOND, 0).with("a", SECOND, 5_000).with("old", 9, 0);
    let answer = store.query("subscribed[a]=1.5&subscribed[old]=99.5&subscribed[b]=1.5").answer();
    assert_eq!(answer.body, r#"{"s":1,"k":{"a":1795415403.000005,"b":1795415403.000001}}"#);
}

#[test]
fn cursors_are_judged_by_their_kind() {
    let store = Store::new().with("a", SECOND - 1_000_000_000, 500_000_000);
    for (cursor, s) in [
        ("795415403.499999", '1'),
        ("795415403.5", '0'),
        ("795415403.500001", '0'),
        ("795415402", '1'),
        ("795415403", '0'),
        ("0", '0'),
        ("", '0'),
        ("9999999999", '0'),
        ("9999999999.5", '0'),
        ("0.1", '1'),
    ] {
        let answer = store.query(&format!("subscribed[a]={cursor}&wait=0")).answer();
        let stands = (s, "795415403.500000".to_owned());
        assert_eq!(answer.cursor("a"), stands, "{cursor:?}");
    }
}

#[test]
fn what_is_wrong_is_refused_at_once() {
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
    store.query(&format!("publish={}", "x".repeat(201))).answer().assert_problem(400);
    store.query(&format!("publish={}", "/".repeat(100))).answer().assert_problem(400);
    store.query(&"x".repeat(8193)).answer().assert_problem(414);
    assert_eq!(store.names(), [""; 0]);
    let text = store.query("").answer().body;
    assert_eq!(
        text,
        quote(
            r#"{"detail":"say what: publish=ID or subscribed[ID]=CURSOR","status":400,"title":"Bad Request"}"#
        )
    );
}

#[test]
fn publish_wins_and_may_name_several() {
    let store = Store::new();
    let answer = store.query("subscribed[c]=0&publish=a&publish=b&publish=a").answer();
    assert_eq!((answer.body.as_str(), store.names().len()), ("true", 2));
}

#[test]
fn unusual_ids_have_a_file_of_their_own() {
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
fn encoded_brackets_are_brackets() {
    let store = Store::new().with("a", SECOND, 5_000);
    assert_eq!(store.query("subscribed%5Ba%5D=1.5").answer().cursor("a").0, '1');
}

#[test]
fn methods() {
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
fn a_form_is_a_query() {
    let store = Store::new();
    assert_eq!(store.query("").form("publish=b").answer().body, "true");
    assert_eq!(store.query("publish=c").form("x=y").answer().body, "true");
    assert_eq!(store.query("").form("subscribed[b]=1.5").answer().cursor("b").0, '1');
    store.query("").form(&format!("x={}", "y".repeat(65_536))).answer().assert_problem(413);
    let json = store.query("publish=d").form("{}").variable("CONTENT_TYPE", "application/json");
    json.answer().assert_problem(415);
    let short = store.query("").form("publish=d").variable("CONTENT_LENGTH", "10");
    short.answer().assert_problem(400);
    assert_eq!(store.names().len(), 2);
}

#[test]
fn a_server_makes_arguments_mean_nothing() {
    let store = Store::new();
    for argument in ["--help", "--version", "-h", "x"] {
        let call = store.query("publish=a").argument(argument);
        assert_eq!(call.answer().body, "true");
        let call = Call::new().variable("GATEWAY_INTERFACE", "CGI/1.1").argument(argument);
        call.answer().assert_problem(400);
    }
}

#[test]
fn a_person_at_a_shell_is_told_how() {
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
fn the_exit_status_is_for_the_shell() {
    let store = Store::new();
    assert!(!store.query("subscribed[a]=x").answer().success);
    assert!(store.query("subscribed[a]=x").method("GET").answer().success);
}

// The store.

#[test]
fn a_store_that_cannot_be_used_is_503_and_one_line() {
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
            assert!(!answer.body.contains("nowhere"), "the client reads no path of ours");
        }
    }
}

#[test]
fn what_is_no_regular_file_is_left_alone() {
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
fn a_full_store_is_507() {
    let script = "mount -t tmpfs -o nr_inodes=1 tmpfs \"$1\" && exec \"$2\"";
    let store = Store::new();
    let mut call = store.query("publish=a");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&store.0).arg(COMET);
    command.envs(call.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    call.command = command;
    if is_root() {
        call.answer().assert_problem(507);
    } else {
        eprintln!("NOT RUN: a_full_store_is_507 needs root to mount a file system");
    }
}

#[test]
fn a_publish_is_later_than_the_last_event_whatever_the_clock_says() {
    let store = Store::new().with("a", 4_000_000_000, 999_999_000);
    assert_eq!(store.query("publish=a").answer().body, "true");
    assert_eq!(store.time("a"), (4_000_000_001, 1_000));
}

#[test]
fn a_file_of_another_user_who_lets_us_write_is_published_to() {
    if !is_root() {
        eprintln!("NOT RUN: a_file_of_another_user needs root to make one");
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

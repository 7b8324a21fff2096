//! The command line of the real binary, for shells and cron.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::binary::{Call, Store, Waiter};
use crate::support::dir::touch;
use crate::support::wait::eventually;

fn shell(store: &Store, arguments: &[&str]) -> Call {
    let call = Call::new().variable("NOVCOMET_STORE", &format!("file://{}", store.0.display()));
    arguments.iter().fold(call, |call, argument| call.argument(argument))
}

fn with_stdin(store: &Store, topic: &str, stdin: &[u8]) -> Output {
    let mut call = shell(store, &["publish", topic, "-"]);
    call.stdin = stdin.into();
    call.output()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

/// What a command prints that succeeds and says nothing else.
fn print(store: &Store, arguments: &[&str]) -> String {
    let output = shell(store, arguments).output();
    assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
    text(output.stdout)
}

/// The kept events of a topic, in JSON.
fn kept(store: &Store, topic: &str) -> Vec<Value> {
    let since = ["subscribe", "--since", "earliest", "--wait", "0", "--json", "--", topic];
    let lines = print(store, &since);
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asserts the exit status and that nothing is printed. Returns what is told.
fn refusal(output: Output, code: i32) -> String {
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]));
    text(output.stderr)
}

/// A refusal is told in one line.
fn assert_refused(output: Output, why: &str) {
    let line = refusal(output, 1);
    assert!(line.starts_with("comet.cgi: ") && line.contains(why), "{line}");
    assert_eq!(line.lines().count(), 1, "{line}");
}

/// A subscriber that waits, and its output.
fn waiting(call: Call) -> (Waiter, impl FnMut() -> String) {
    let mut waiter = call.waiting();
    let mut reader = BufReader::new(waiter.0.stdout.take().unwrap());
    let next = move || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line
    };
    (waiter, next)
}

// publish

#[test]
fn text_is_published_as_it_is() {
    let texts = ["a&b=c%41+d", "  two  blanks ", "", "é\n\n", "$(x) `y` 'z' \"", "-", "data=x"];
    let store = Store::new();
    for text in texts {
        let output = match text {
            "-" => with_stdin(&store, "a", b"-"),
            text => shell(&store, &["publish", "a", text]).output(),
        };
        assert_eq!(refusal(output, 0), "", "{text:?}");
    }
    let published: Vec<_> = kept(&store, "a").into_iter().map(|it| it["data"].clone()).collect();
    assert_eq!(published, texts);
}

#[test]
fn words_after_two_hyphens_are_no_options() {
    let store = Store::new();
    print(&store, &["publish", "--", "-t", "--help"]);
    print(&store, &["publish", "-", "--", "-1"]);
    assert_eq!(kept(&store, "-t")[0]["data"], "--help");
    assert_eq!(kept(&store, "-")[0]["data"], "-1");
}

#[test]
fn standard_input_is_published_as_it_is() {
    let store = Store::new();
    let texts = ["a&b=%41 +\r\n\n", "", "\0\u{1b}[31m\u{7f}", &"x".repeat(65_536)];
    for stdin in texts {
        assert_eq!(refusal(with_stdin(&store, "a", stdin.as_bytes()), 0), "");
    }
    let published: Vec<_> = kept(&store, "a").into_iter().map(|it| it["data"].clone()).collect();
    assert_eq!(published, texts);
}

#[test]
fn publish_without_text_is_an_event_without_message() {
    let store = Store::new();
    let (_waiter, mut line) = waiting(shell(&store, &["subscribe", "a", "--json"]));
    print(&store, &["publish", "a"]);
    let event: Value = serde_json::from_str(&line()).unwrap();
    assert_eq!((&event["topic"], event.get("data")), (&"a".into(), None));
}

#[test]
fn message_that_is_no_text_or_too_long_is_refused() {
    let store = Store::new();
    let bytes = || OsString::from_vec(b"a\xff".into());
    let long = "x".repeat(65_537);
    let mut call = shell(&store, &["publish", "a"]);
    call.command.arg(bytes());
    assert_refused(call.output(), "UTF-8");
    let mut call = shell(&store, &["publish"]);
    call.command.arg(bytes());
    assert_refused(call.output(), "UTF-8");
    assert_refused(with_stdin(&store, "a", b"a\xff"), "UTF-8");
    assert_refused(with_stdin(&store, "a", long.as_bytes()), "at most 65536 bytes");
    assert_refused(shell(&store, &["publish", "a", &long]).output(), "at most 65536 bytes");
    let call = shell(&store, &["publish", "a", "four"]).variable("NOVCOMET_MAX_DATA", "3");
    assert_refused(call.output(), "at most 3 bytes");
    assert_refused(shell(&store, &["publish", "a\nb"]).output(), "control");
    assert_refused(shell(&store, &["publish", ""]).output(), "topic");
    assert_eq!(store.names(), [""; 0]);
}

/// Only as much is read as a message may have, and one byte more.
#[test]
fn endless_input_is_refused() {
    let store = Store::new();
    let mut call = shell(&store, &["publish", "a", "-"]);
    call.command.stdin(File::open("/dev/zero").unwrap());
    let output = call.command.spawn().unwrap().wait_with_output().unwrap();
    assert_refused(output, "at most 65536 bytes");
}

#[test]
fn fault_of_the_server_is_told_in_one_line() {
    let store = Store::new();
    let call = |arguments: &[&str]| {
        shell(&store, arguments).variable("NOVCOMET_STORE", "file:///nowhere/at/all").output()
    };
    assert_refused(call(&["publish", "a"]), "/nowhere/at/all");
    assert_refused(call(&["subscribe", "a"]), "/nowhere/at/all");
    assert_refused(call(&["topics"]), "/nowhere/at/all");
    assert_refused(call(&["who", "a"]), "/nowhere/at/all");
    let wrong = shell(&store, &["publish", "a"]).variable("NOVCOMET_KEEP", "x").output();
    assert_refused(wrong, "NOVCOMET_KEEP=\"x\" is not");
}

// Wrong usage, and help.

#[test]
fn wrong_usage_is_told_with_the_right_one() {
    let store = Store::new();
    for (arguments, why) in [
        (&["publish"][..], "needs a topic"),
        (&["publish", "a", "b", "c"], "put it in quotes"),
        (&["publish", "a", "-5"], "unknown option \"-5\"; a text comes after --"),
        (&["publish", "a", "--json"], "unknown option \"--json\""),
        (&["subscribe"], "needs a topic"),
        (&["subscribe", "a", "--since"], "--since needs a value"),
        (&["subscribe", "a", "--since", "x"], "a cursor is a number"),
        (&["subscribe", "a", "--wait", "-1"], "a number of seconds"),
        (&["subscribe", "a", "--wait=nan"], "a number of seconds"),
        (&["subscribe", "a", "--json=1"], "unknown option \"--json=1\""),
        (&["topics", "a", "b"], "one prefix"),
        (&["who"], "needs a topic"),
        (&["who", "--url", "http://localhost/"], "needs a topic"),
        (&["who", "a", "--url"], "--url needs a value"),
        (&["who", "a", "--wait=1"], "unknown option \"--wait=1\""),
        (&["doctor", "a", "b"], "one URL"),
        (&["nonsense"], "unknown command \"nonsense\""),
        (&["publish=a"], "unknown command \"publish=a\""),
        (&["-h"], "unknown option \"-h\""),
    ] {
        let said = refusal(shell(&store, arguments).output(), 2);
        let (first, rest) = said.split_once('\n').unwrap();
        assert!(first.starts_with("comet.cgi: ") && first.contains(why), "{arguments:?}: {said}");
        assert!(rest.starts_with("usage: comet.cgi publish "), "{said}");
    }
    assert_eq!(store.names(), [""; 0]);
}

#[test]
fn each_command_has_help() {
    let store = Store::new();
    let help = print(&store, &["--help"]);
    for command in ["publish", "subscribe", "topics", "who", "doctor"] {
        assert_eq!(print(&store, &[command, "a", "--help"]), help);
        assert!(help.contains(&format!("comet.cgi {command} ")), "{help}");
    }
    assert_eq!(store.names(), [""; 0]);
}

// subscribe

#[test]
fn events_are_printed_as_they_come() {
    let store = Store::new();
    print(&store, &["publish", "a", "before"]);
    let (waiter, mut line) = waiting(shell(&store, &["subscribe", "b", "a", "a"]));
    print(&store, &["publish", "a", "one & %"]);
    assert_eq!(line(), "one & %\n");
    print(&store, &["publish", "b", "two"]);
    assert_eq!(line(), "two\n");
    touch(&store.file("a"));
    assert_eq!(line(), "\n", "an event without a message");
    waiter.signal("TERM");
    assert_eq!(line(), "");
    assert_eq!(waiter.take().wait().unwrap().code(), Some(0));
}

#[test]
fn interrupt_ends_a_subscriber() {
    let store = Store::new();
    // What runs in the background of a script ignores the signal, and so do its children.
    let call = shell(&store, &["subscribe", "a"]).by("env", &["--default-signal=INT"]);
    let (waiter, mut line) = waiting(call);
    waiter.signal("INT");
    assert_eq!((line().as_str(), waiter.take().wait().unwrap().code()), ("", None));
}

#[test]
fn each_event_in_json_is_a_line() {
    let store = Store::new();
    print(&store, &["publish", "a", "one\n\"two\""]);
    print(&store, &["publish", "a"]);
    print(&store, &["publish", "b/é", "three"]);
    let query = ["subscribe", "--json", "a", "b/é", "--since=earliest", "--wait=0"];
    let lines = print(&store, &query);
    let events: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let brief = |event: &Value| (event["topic"].clone(), event.get("data").cloned());
    let expected = [
        ("a".into(), Some("one\n\"two\"".into())),
        ("a".into(), None),
        ("b/é".into(), Some("three".into())),
    ];
    assert_eq!(events.iter().map(brief).collect::<Vec<_>>(), expected);
    let begin = r#"{"topic":"a","cursor":"#;
    let cursor = lines.strip_prefix(begin).unwrap().split(',').next().unwrap();
    let after = print(&store, &["subscribe", "a", "--since", cursor, "--wait", "0"]);
    assert_eq!(after, "\n", "after the cursor of the first");
    assert_eq!(print(&store, &["subscribe", "b/é", "--since=latest", "--wait=0"]), "three\n");
}

#[test]
fn gap_is_told_in_json() {
    let store = Store::new();
    for text in ["one", "two", "three"] {
        shell(&store, &["publish", "a", text]).variable("NOVCOMET_KEEP", "2").output();
    }
    let query = ["subscribe", "a", "--json", "--since", "1795415403.1", "--wait", "0"];
    let lines = text(shell(&store, &query).variable("NOVCOMET_KEEP", "2").output().stdout);
    let has_gap: Vec<_> = lines.lines().map(|line| line.contains("\"gap\":true")).collect();
    assert_eq!(has_gap, [true, false], "{lines}");
}

/// The limits of a server's polls and streams do not end it.
#[test]
fn subscriber_waits_as_long_as_it_is_told() {
    let store = Store::new();
    let begin = Instant::now();
    let call = shell(&store, &["subscribe", "a", "--wait", "1.5"]);
    let output = call.variable("NOVCOMET_STREAM", "0.1").variable("NOVCOMET_TRIES", "1").output();
    let took = begin.elapsed();
    assert_eq!(refusal(output, 0), "");
    assert!((1500..3000).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn subscriber_ends_with_its_reader() {
    let store = Store::new();
    let (waiter, line) = waiting(shell(&store, &["subscribe", "a"]));
    drop(line);
    let mut child = waiter.take();
    eventually("it ends", || child.try_wait().unwrap().is_some());
}

#[test]
fn output_that_cannot_be_written_is_told() {
    let store = Store::new();
    print(&store, &["publish", "a", "x"]);
    for arguments in [&["topics"][..], &["subscribe", "a", "--since=earliest"]] {
        let mut call = shell(&store, arguments);
        call.command.stdout(File::options().write(true).open("/dev/full").unwrap());
        let child: Child = call.command.stdin(Stdio::null()).spawn().unwrap();
        assert_refused(child.wait_with_output().unwrap(), "No space left");
    }
}

/// Anybody may have published them.
#[test]
fn terminal_gets_no_escape_sequences() {
    let store = Store::new();
    print(&store, &["publish", "a", "\u{1b}[31mred\u{9b}32m\ntwo"]);
    let raw = print(&store, &["subscribe", "a", "--since=earliest", "--wait=0"]);
    assert_eq!(raw, "\u{1b}[31mred\u{9b}32m\ntwo\n");
    for (json, expected) in [("", r"\u{1b}[31mred\u{9b}32m"), ("--json", r"red\u{9b}32m\ntwo")] {
        let command = format!("\"$0\" subscribe a --since=earliest --wait=0 {json}");
        // script(1) runs a command on a terminal of its own, by $SHELL.
        let line = format!("exec script -qec '{command}' /dev/null");
        let line = line.replace("$0", crate::support::binary::program().to_str().unwrap());
        let call = shell(&store, &[]).by("sh", &["-c", &line]).variable("SHELL", "/bin/sh");
        let shown = text(call.output().stdout);
        assert!(!shown.contains(['\u{1b}', '\u{9b}']) && shown.contains(expected), "{shown:?}");
    }
}

// topics

#[test]
fn topics_are_listed_by_prefix() {
    let store = Store::new();
    assert_eq!(print(&store, &["topics"]), "");
    let long = "n".repeat(300);
    for topic in ["news/b", "news/a", "a b", "é", long.as_str()] {
        print(&store, &["publish", topic, "x"]);
    }
    touch(&store.file("touched"));
    fs::write(store.0.join("no-topic"), "").unwrap();
    let all = format!("a b\nnews/a\nnews/b\n{long}\ntouched\né\n");
    assert_eq!(print(&store, &["topics"]), all);
    assert_eq!(print(&store, &["topics", "news/"]), "news/a\nnews/b\n");
    assert_eq!(print(&store, &["topics", "none"]), "");
    let call = shell(&store, &["topics"]).variable("NOVCOMET_STORE", "memcached://127.0.0.1:1");
    assert_refused(call.output(), "need a store of files");
}

// Rights.

#[test]
fn shell_needs_no_token() {
    let store = Store::new();
    for arguments in [
        &["publish", "a", "x"][..],
        &["subscribe", "a", "--since=earliest", "--wait=0"],
        &["topics"],
        &["who", "a"],
    ] {
        let call = shell(&store, arguments).variable("NOVCOMET_PUBLISH", "none");
        let call = call.variable("NOVCOMET_PRIVATE", "*").variable("NOVCOMET_SUBSCRIBE", "none");
        let output = call.variable("NOVCOMET_TOKEN_KEY", "/nowhere/key").output();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    assert_eq!(kept(&store, "a").len(), 1);
}

/// RFC 3875 §4.4: a server may pass a query as arguments.
#[test]
fn command_is_never_obeyed_under_a_server() {
    let store = Store::new();
    for arguments in [
        &["publish", "a", "x"][..],
        &["subscribe", "a"],
        &["topics"],
        &["who", "a"],
        &["doctor"],
        &["--help"],
    ] {
        for (name, value) in
            [("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET"), ("REQUEST_METHOD", "")]
        {
            let call = shell(&store, arguments).variable(name, value);
            call.answer().assert_problem(400);
        }
        let call = shell(&store, arguments).variable("QUERY_STRING", "publish=b");
        assert_eq!(call.answer().body, "true");
    }
    assert_eq!(store.names(), ["b.comet"]);
}

/// What waits at a shell takes no slot of the server's, and is not limited by them.
#[test]
fn subscriber_needs_no_slot() {
    let store = Store::new();
    let call = || shell(&store, &["subscribe", "a"]).variable("NOVCOMET_MAX_WAITERS", "1");
    let (_first, mut one) = waiting(call());
    let (_second, mut two) = waiting(call());
    print(&store, &["publish", "a", "x"]);
    assert_eq!((one(), two()), ("x\n".into(), "x\n".into()));
    let begin = Instant::now();
    let query = store.query("subscribed[a]=0&wait=0.3").method("GET");
    let query = query.variable("NOVCOMET_MAX_WAITERS", "1").answer();
    assert!(!query.head.contains("Retry-After"), "{query:?}");
    assert!(begin.elapsed() >= Duration::from_millis(300));
}

// Around it.

/// The block of README.md.
#[test]
fn commands_of_the_readme_work() {
    let readme = include_str!("../../README.md");
    let (_, rest) = readme.split_once("<!-- test: command -->\n\n").unwrap();
    let block = rest.lines().map_while(|line| line.strip_prefix("    "));
    let script = block.collect::<Vec<_>>().join("\n").replace("cgi-bin/comet.cgi", "\"$0\"");
    let store = Store::new();
    let output = shell(&store, &[]).by("sh", &["-ec", &script]).output();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let printed = text(output.stdout);
    assert!(printed.starts_with("disk\nnews\n") && printed.contains("Tea & biscuits: 100 %\n"));
    assert!(printed.contains("Filesystem"), "{printed}");
}

#[test]
fn shell_completes_commands_and_topics() {
    let store = Store::new();
    print(&store, &["publish", "news/a b", "x"]);
    let complete = |words: &str| {
        let script = format!(
            "source {}/install/completion; COMP_WORDS=(comet.cgi {words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _comet_cgi \"$0\"; \
             printf '%s,' \"${{COMPREPLY[@]}}\"",
            crate::support::SOURCE
        );
        text(shell(&store, &[]).by("bash", &["-c", &script]).output().stdout)
    };
    assert_eq!(complete("s"), "subscribe,");
    assert_eq!(complete("publish n"), "news/a\\ b,");
    assert_eq!(complete("topics ''"), "news/a\\ b,");
    assert_eq!(complete("subscribe a --s"), "--since,");
    assert_eq!(complete("who n"), "news/a\\ b,");
    assert_eq!(complete("who a --u"), "--url,");
    assert_eq!(complete("publish a ''"), ",");
}

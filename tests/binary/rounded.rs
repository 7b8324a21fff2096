//! Clients whose language prints a cursor with fewer or more digits than it came with.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::binary::{Store, batch};
use crate::support::host::{found, not_run};

/// Programs that read the cursor of the topic `a` from an answer and print it.
const LANGUAGES: [(&str, &[&str]); 9] = [
    ("php", &["-r", "echo json_decode($argv[1])->k->a;"]),
    ("php", &["-d", "precision=17", "-r", "echo json_decode($argv[1])->k->a;"]),
    ("perl", &["-e", "$ARGV[0] =~ /\"a\":([0-9.]+)/; print 0 + $1;"]),
    ("perl", &["-e", "$ARGV[0] =~ /\"a\":([0-9.]+)/; printf '%.9f', $1;"]),
    ("python3", &["-c", "import json, sys; print(json.loads(sys.argv[1])['k']['a'], end='')"]),
    ("ruby", &["-rjson", "-e", "print JSON.parse(ARGV[0])['k']['a']"]),
    ("jq", &["-nj", "--args", "$ARGS.positional[0] | fromjson | .k.a"]),
    ("awk", &["BEGIN { split(ARGV[1], part, /\"a\":|[,}]/); printf \"%s\", part[3] }"]),
    ("bash", &["-c", "[[ $1 =~ \"a\\\":\"([0-9.]+) ]]; printf %s \"${BASH_REMATCH[1]}\"", "bash"]),
];

fn messages(store: &Store, cursor: &str) -> Vec<Value> {
    let answer = store.query(&format!("subscribed[a]={cursor}&wait=0")).answer();
    let answer: Value = serde_json::from_str(&answer.body).unwrap();
    let messages = answer["m"]["a"].as_array().cloned().unwrap_or_default();
    // It is rounded to a time before the topic, so it may be from an earlier one. A gap has all
    // messages that are kept.
    let is_before = |first: &Value| cursor.parse::<f64>().unwrap() < first["id"].as_f64().unwrap();
    let has_gap = answer.get("gap").is_some();
    assert!(!has_gap || messages.first().is_some_and(is_before), "{cursor}: {answer}");
    messages
}

/// As a language prints it that has so many decimals.
fn rounded(id: &Value, decimals: usize) -> String {
    let text = format!("{:.decimals$}", id.as_f64().unwrap());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[test]
fn each_language_receives_each_message_once() {
    for (program, arguments) in LANGUAGES {
        let Some(program) = found(program) else {
            not_run("a cursor in another language", program);
            continue;
        };
        for text in ["one", "two", "three"] {
            let store = Store::new();
            let answer = store.query("").form(&format!("publish=a&data={text}")).answer().body;
            let printed = Command::new(&program).args(arguments).arg(&answer).output().unwrap();
            let cursor = String::from_utf8(printed.stdout).unwrap();
            assert_eq!(
                messages(&store, &cursor),
                [Value::Null; 0],
                "{program:?} {answer} {cursor}"
            );
            store.query("publish=a&data=next").answer();
            let next = messages(&store, &cursor);
            let next: Vec<_> = next.iter().map(|message| &message["data"]).collect();
            assert_eq!(next, ["next"], "{program:?} {answer} {cursor}");
        }
    }
}

/// An event without a message has its time in the file only.
#[test]
fn rounded_time_of_a_file_waits() {
    for nanoseconds in [759_168_000, 759_132_000, 759_150_000, 759_999_000, 999_999_000] {
        let store = Store::new().with("a", 1_795_415_403, nanoseconds);
        let exact = store.query("subscribed[a]=1795415403.5&wait=0").answer().cursor("a").1;
        for decimals in 1..=6 {
            let cursor = rounded(&json!(exact.parse::<f64>().unwrap()), decimals);
            if !cursor.contains('.') {
                continue;
            }
            let answer = store.query(&format!("subscribed[a]={cursor}&wait=0")).answer();
            // A client's own clock may have made a coarse one before the event.
            let decimals = cursor.split('.').nth(1).unwrap().len();
            let expected = if decimals < 4 && cursor < exact { '1' } else { '0' };
            assert_eq!(answer.cursor("a"), (expected, exact.clone()), "{cursor}: {answer:?}");
        }
    }
}

/// The messages of a batch are microseconds apart. Whichever a client has seen last, it receives
/// all that follow, after a pause if it may have them already.
#[test]
fn rounding_client_misses_nothing_of_a_burst() {
    let store = Store::new();
    let entries: Vec<_> = (0..40).map(|n| format!(r#"{{"publish":"a","data":"{n}"}}"#)).collect();
    store.query("").form(&batch(&format!("[{}]", entries.join(",")))).answer();
    let all = messages(&store, "earliest");
    let mut held = 0;
    for (seen, message) in all.iter().enumerate() {
        let cursor = rounded(&message["id"], 4);
        // A whole second has another meaning.
        if !cursor.contains('.') {
            continue;
        }
        let heard = messages(&store, &cursor);
        let missed = &all[seen + 1..];
        assert!(heard.ends_with(missed), "{cursor}: {heard:?} of {all:?}");
        held += usize::from(heard.len() > missed.len());
    }
    let (last, begun) = (rounded(&all[39]["id"], 4), Instant::now());
    if last.contains('.') && !messages(&store, &last).is_empty() {
        let answer = store.query(&format!("subscribed[a]={last}&wait=30")).answer();
        assert_eq!(answer.cursor("a").0, '1');
        assert!(begun.elapsed() >= Duration::from_secs(1), "a storm: {answer:?}");
    }
    assert!(held > 0, "no two of {all:?} have the same first four decimals");
}

/// As `date +%s.%3N` prints it, or a program that rounds very much.
#[test]
fn coarse_cursor_misses_nothing() {
    let store = Store::new();
    store.query("publish=a&data=one").answer();
    store.query("publish=a&data=two").answer();
    let all = messages(&store, "earliest");
    for decimals in 1..=3 {
        let cursor = rounded(&all[0]["id"], decimals);
        // A whole second has another meaning.
        if !cursor.contains('.') {
            continue;
        }
        let answer = store.query(&format!("subscribed[a]={cursor}&wait=0")).answer();
        assert!(answer.body.contains(r#""data":"two""#), "{cursor}: {answer:?}");
    }
}

/// JavaScript prints no zeros at the end. Such a cursor is exact.
#[test]
fn exact_cursor_with_few_decimals_waits_for_the_next_microsecond() {
    let lines =
        [r#"{"id":1795415403.759200,"data":"one"}"#, r#"{"id":1795415403.759201,"data":"two"}"#];
    let store = Store::new();
    std::fs::write(store.file("a"), lines.map(|line| format!("{line}\n")).concat()).unwrap();
    crate::support::dir::set_time(&store.file("a"), 1_795_415_403, 759_201_000);
    let query = "subscribed[a]=1795415403.7592&wait=0";
    let answer = store.query(query).variable("NOVCOMET_KEEP_AGE", "1e15").answer();
    assert!(!answer.body.contains("one") && answer.body.contains("two"), "{answer:?}");
}

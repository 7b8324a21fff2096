//! What the binary tells of those who wait.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout};

use serde_json::{Value, json};

use crate::support::binary::{Call, Store, Waiter};
use crate::support::host::{is_root, not_run};
use crate::support::tokens::{HS256, Keys, claims};
use crate::support::wait::eventually;

const PROTOCOL: &str = include_str!("../../docs/protocol.md");

/// A request through a server, with a token of `claims` for `name`.
fn call(store: &Store, keys: &Keys, query: &str, name: &str) -> Call {
    let call = store.query(query).method("GET").variable("GATEWAY_INTERFACE", "CGI/1.1");
    let call = call.variable("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
    let call = call.variable("NOVCOMET_MAX_WAITERS", "0");
    if name.is_empty() {
        return call;
    }
    let claims = claims(60, r#"{"publish":[],"subscribe":["r*"]}"#);
    let claims = claims.replacen('{', &format!("{{\"sub\":\"{name}\","), 1);
    let token = keys.sign(&[("HS256", "hs", HS256, claims)]).remove(0);
    call.variable("HTTP_AUTHORIZATION", &format!("Bearer {token}"))
}

fn who(store: &Store, keys: &Keys, query: &str, name: &str) -> Value {
    let answer = call(store, keys, query, name).answer();
    assert_eq!(answer.status(), 200, "{}", answer.body);
    serde_json::from_str::<Value>(&answer.body).unwrap()["who"].take()
}

fn number(store: &Store, keys: &Keys, topic: &str) -> u64 {
    who(store, keys, &format!("who[{topic}]=1"), "")[topic]["number"].as_u64().unwrap()
}

#[test]
fn subscribers_are_told_by_number_and_by_name() {
    let (store, keys) = (Store::new(), Keys::new());
    let wait = |query: &str, name: &str| call(&store, &keys, query, name).waiting();
    let waiting = [
        wait("subscribed[room]=0", "alice"),
        wait("subscribed[room]=0&stream=1", "bob"),
        wait("matching=r*&stream=1", "bob"),
        wait("subscribed[other]=0", "carol"),
    ];
    eventually("all wait together", || number(&store, &keys, "room") == 3);
    let example =
        r#"{"who":{"news":{"number":0,"names":[]},"room":{"number":3,"names":["alice","bob"]}}}"#;
    assert!(PROTOCOL.contains(&format!("    {example}\n")));
    let granted = call(&store, &keys, "who[room]=1&who[rest]=1", "dave").answer();
    assert_eq!(
        granted.body,
        example.replace("news", "rest").replace(
            "rest\":{\"number\":0,\"names\":[]},\"room",
            "rest\":{\"number\":1,\"names\":[\"bob\"]},\"room"
        )
    );
    let told = who(&store, &keys, "who[room]=1&who[other]=1", "dave");
    assert_eq!(told["other"], json!({"number": 1}), "the token does not grant it");
    let anyone = who(&store, &keys, "who[room]=1", "");
    assert_eq!(anyone["room"], json!({"number": 3}));
    drop(waiting);
    eventually("all have gone", || number(&store, &keys, "room") == 0);
    assert!(store.names().is_empty(), "asking makes no topic");
}

#[test]
fn private_topic_has_private_subscribers() {
    let (store, keys) = (Store::new(), Keys::new());
    let ask = |name: &str| {
        call(&store, &keys, "who[room]=1", name).variable("NOVCOMET_PRIVATE", "room").answer()
    };
    assert_eq!((ask("").status(), ask("alice").status()), (401, 200));
    call(&store, &keys, "who[a]=1", "")
        .variable("NOVCOMET_SUBSCRIBE", "none")
        .answer()
        .assert_problem(403);
    for query in ["who[]=1", "who[a", "who", "who[a][b]=1"] {
        call(&store, &keys, query, "").answer().assert_problem(400);
    }
    let alone = call(&store, &keys, "who[a]=1", "").variable("NOVCOMET_TOGETHER", "off").answer();
    alone.assert_problem(501);
}

#[test]
fn subscriber_can_name_itself_by_a_setting() {
    let (store, keys) = (Store::new(), Keys::new());
    let call = |query: &str, token: &str| {
        call(&store, &keys, query, token).variable("NOVCOMET_NAMES", "parameter")
    };
    let long = format!("subscribed[room]=0&name={}", "x".repeat(257));
    let waiting = [
        call("subscribed[room]=0&name=J%C3%BCrgen", "").waiting(),
        call("subscribed[room]=0&name=mallory", "alice").waiting(),
        call("subscribed[room]=0&name=a%0Ab", "").waiting(),
        call(&long, "").waiting(),
    ];
    let all = r#"{"who":{"room":{"number":4,"names":["Jürgen","alice"]}}}"#;
    eventually("all are told", || call("who[room]=1", "").answer().body == all);
    let others = who(&store, &keys, "who[room]=1", "");
    assert_eq!(others["room"], json!({"number": 0}), "those with other settings wait apart");
    drop(waiting);
}

/// The lines of a stream, as they come.
fn lines(waiter: Waiter) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = waiter.take();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

#[test]
fn arrivals_are_told_by_a_setting() {
    let (store, keys) = (Store::new(), Keys::new());
    let call = |query: &str, name: &str| {
        call(&store, &keys, query, name).variable("NOVCOMET_PRESENCE", "on")
    };
    let granted = keys.token(r#"{"publish":[],"subscribe":["who/*"]}"#);
    let bearer = format!("Bearer {granted}");
    let hearer = call("matching=who/*&stream=1", "").variable("HTTP_AUTHORIZATION", &bearer);
    let (mut hearer, heard) = lines(hearer.waiting());
    let (mut stranger, strange) = lines(call("matching=who/*&stream=1", "").waiting());
    let alice = call("subscribed[room]=0&subscribed[b]=0&stream=1", "alice").waiting();
    let poll = call("subscribed[room]=0", "bob").waiting();
    let nobody = call("subscribed[room]=0&stream=1", "").waiting();
    eventually("all wait together", || {
        call("who[room]=1", "").answer().body == r#"{"who":{"room":{"number":3}}}"#
    });
    drop((alice, nobody));
    let here = |topic: &str, name: &str, here: bool| {
        format!(r#"data: {{"here":{here},"name":{name},"topic":"{topic}"}}"#)
    };
    let mut expected = vec![
        here("b", r#""alice""#, true),
        here("room", r#""alice""#, true),
        here("room", "null", true),
        here("b", r#""alice""#, false),
        here("room", r#""alice""#, false),
        here("room", "null", false),
    ];
    let data = heard.map(Result::unwrap).filter(|line| line.starts_with("data: {"));
    let mut told: Vec<_> = data.take(expected.len()).collect();
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
    assert!(PROTOCOL.contains(&format!("    {}\n", here("room", r#""alice""#, true))));
    store.query("publish=who/end&data=end").answer();
    let before: Vec<_> =
        strange.map(Result::unwrap).take_while(|line| line != "data: end").collect();
    assert!(!before.iter().any(|line| line.contains("alice")), "{before:?}");
    for child in [&mut hearer, &mut stranger] {
        let _ = (child.kill(), child.wait());
    }
    drop(poll);
}

/// 200 come, and go by a kill or because their client goes. The number is right each time. With
/// the leader all others go too.
#[test]
fn number_is_right_amid_joins_leaves_and_kills() {
    let (store, keys) = (Store::new(), Keys::new());
    let mut waiting: Vec<Waiter> = Vec::new();
    let is_right = |waiting: &[Waiter]| number(&store, &keys, "room") == waiting.len() as u64;
    for round in 0..40 {
        for member in 0..5 {
            let stream = if member % 2 == 0 { "&stream=1" } else { "" };
            let query = format!("subscribed[room]=0{stream}");
            waiting.push(call(&store, &keys, &query, "").start());
        }
        eventually("those who came are there", || is_right(&waiting));
        let gone = waiting.swap_remove(round * 7 % waiting.len());
        let leads = gone.read_proc("comm").trim() == "comet: leader";
        if round % 2 == 0 {
            gone.signal("KILL");
        }
        drop(gone);
        if leads {
            waiting.clear();
        }
        eventually("those who went are gone", || is_right(&waiting));
    }
}

// At a shell.

/// What `comet.cgi who` prints, or the line that it refuses with.
fn shell(store: &Store, arguments: &[&str]) -> Result<String, String> {
    told_by(Call::new(), store, arguments)
}

fn told_by(call: Call, store: &Store, arguments: &[&str]) -> Result<String, String> {
    let call = call.variable("NOVCOMET_STORE", &format!("file://{}", store.0.display()));
    let call = arguments.iter().fold(call.argument("who"), |call, word| call.argument(word));
    let output = call.output();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.code() {
        Some(0) if output.stderr.is_empty() => Ok(text(output.stdout)),
        Some(1) if output.stdout.is_empty() => Err(text(output.stderr)),
        _ => panic!("{output:?}"),
    }
}

/// Servers with other settings have other leaders. Those of another store do not count.
#[test]
fn shell_is_told_by_all_servers_of_its_store() {
    let (store, other, keys) = (Store::new(), Store::new(), Keys::new());
    let wait = |query: &str, name: &str| call(&store, &keys, query, name).waiting();
    let waiting = [
        wait("subscribed[room]=0", "bob"),
        wait("subscribed[room]=0&stream=1", r"al\tice"),
        wait("subscribed[room]=0&stream=1", ""),
        wait("matching=r*&stream=1", "bob"),
        call(&store, &keys, "subscribed[room]=0", "carol").variable("NOVCOMET_POLL", "9").waiting(),
        call(&other, &keys, "subscribed[room]=0", "").waiting(),
    ];
    let numbers = "room\t5\nnobody\t0\nroom\t5\n";
    let ask = |words: &[&str]| shell(&store, words).unwrap();
    eventually("all wait", || ask(&["room", "nobody", "room"]) == numbers);
    let names = ask(&["--names", "room", "nobody"]);
    assert_eq!(names, "room\t5\tal\\tice\tbob\tcarol\nnobody\t0\n");
    let objects = ask(&["room", "nobody", "--json", "--names"]);
    let room = r#"{"topic":"room","number":5,"names":["al\tice","bob","carol"]}"#;
    assert_eq!(objects, format!("{room}\n{{\"topic\":\"nobody\",\"number\":0,\"names\":[]}}\n"));
    assert_eq!(shell(&other, &["room"]).unwrap(), "room\t1\n");
    drop(waiting);
    eventually("all have gone", || ask(&["room"]) == "room\t0\n");
    assert!(store.names().is_empty(), "asking makes no topic");
}

#[test]
fn shell_asks_for_any_number_of_topics() {
    let (store, keys) = (Store::new(), Keys::new());
    let last = "\"".repeat(1024);
    let encoded = "%22".repeat(1024);
    let query = format!("subscribed[{encoded}]=0");
    let _waiting = call(&store, &keys, &query, "").waiting();
    let topics: Vec<_> = (0..99).map(|number| format!("{number:\"<1024}")).collect();
    let mut words: Vec<_> = topics.iter().map(String::as_str).collect();
    words.push(&last);
    let told = || shell(&store, &words).unwrap();
    eventually("the last is told", || told().ends_with("\"\t1\n"));
    assert_eq!(told().matches("\t0\n").count(), 99);
}

/// A process of one user is not asked by another, and the number without it would be wrong.
#[test]
fn root_is_told_by_the_servers_of_all_users() {
    const ONE: u32 = 4321;
    const TWO: u32 = 4322;
    if !is_root() {
        return not_run("servers of two users", "root");
    }
    let store = Store::new();
    let wait = |user| {
        let call = store.query("subscribed[room]=0&stream=1").method("GET").user(user);
        call.variable("GATEWAY_INTERFACE", "CGI/1.1").waiting()
    };
    let ask = |user| told_by(Call::new().user(user), &store, &["room"]);
    let one = wait(ONE);
    eventually("its user is told", || ask(ONE) == Ok("room\t1\n".into()));
    let refusal = ask(TWO).unwrap_err();
    assert!(refusal.starts_with("comet.cgi: subscribers wait in a process of another user; "));
    let _two = wait(TWO);
    eventually("root is told", || ask(0) == Ok("room\t2\n".into()));
    assert_eq!(ask(ONE).unwrap_err(), refusal);
    drop(one);
    eventually("the other is told", || ask(TWO) == Ok("room\t1\n".into()));
}

/// A leader that is stopped says nothing, and the number is not known.
#[test]
fn stopped_leader_is_no_answer() {
    let (store, keys) = (Store::new(), Keys::new());
    let leader = call(&store, &keys, "subscribed[room]=0", "").waiting();
    eventually("it waits", || shell(&store, &["room"]) == Ok("room\t1\n".into()));
    leader.signal("STOP");
    let refusal = shell(&store, &["room"]).unwrap_err();
    assert!(refusal.contains("did not answer"), "{refusal}");
    leader.signal("CONT");
    assert_eq!(shell(&store, &["room"]).unwrap(), "room\t1\n");
}

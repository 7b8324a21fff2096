//! Sessions of Bayeux amid faults: processes are killed, a log is torn, the disk is full.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use serde_json::{Value, json};

use super::bayeux::{Client, call, delivered, handshake, pair, replies};
use super::full::Small;
use crate::support::binary::{Answer, Store, program};
use crate::support::process::kill_one;
use crate::support::wait::eventually;

/// How many messages a client hears, one or a few at a time.
const MESSAGES: u64 = 500;
const CLIENTS: usize = 4;

/// An answer that is still empty after all was published, so many times, stays so.
const IN_VAIN: usize = 3;

/// What the threads of a test know of each other.
#[derive(Default)]
struct Course {
    /// How many answers came whole.
    answers: AtomicU64,
    /// How many processes were killed.
    kills: AtomicU64,
    has_published: AtomicBool,
    are_done: AtomicBool,
}

/// The whole answer of a connect. All of them wait together.
fn answer(client: &Client, ack: Option<u64>, word: &str) -> Option<Answer> {
    let call = client.connect(ack).variable("NOVCOMET_BAYEUX_TIMEOUT", "2");
    let call = call.variable("GATEWAY_INTERFACE", "CGI/1.1").variable("QUERY_STRING", word);
    let output = call.output();
    let is_whole = serde_json::from_slice::<Value>(body_of(&output.stdout)?).is_ok();
    // The leader may be killed between an answer and its report of it, which is logged.
    is_whole.then(|| Answer { log: String::new(), ..Answer::parse(&output) })
}

fn body_of(output: &[u8]) -> Option<&[u8]> {
    let at = output.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(&output[at + 4..])
}

/// The numbers that a client hears, as it keeps only what it has received whole.
fn hear(client: &Client, word: &str, course: &Course) -> Vec<u64> {
    let (mut heard, mut ack, mut in_vain) = (Vec::new(), Some(1), 0);
    while heard.last() != Some(&(MESSAGES - 1)) && in_vain < IN_VAIN {
        let is_late = course.has_published.load(Ordering::Relaxed);
        let Some(answer) = answer(client, ack, word) else { continue };
        let (batch, told) = delivered(&answer);
        ack = batch;
        in_vain = if is_late && told.is_empty() { in_vain + 1 } else { 0 };
        let number = |data: Value| data.as_u64().unwrap_or_else(|| panic!("{}", answer.body));
        heard.extend(told.into_iter().map(|(_, data)| number(data)));
        course.answers.fetch_add(1, Ordering::Relaxed);
    }
    heard
}

/// Kills any process in which a client waits, or all of them do, as soon as one client has heard
/// something since.
fn kill(word: &str, course: &Course) {
    let mut seed = 7_u64;
    while !course.are_done.load(Ordering::Relaxed) {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let before = course.answers.load(Ordering::Relaxed);
        let any = |count: usize| usize::try_from(seed >> 33).unwrap() % count;
        if kill_one(&[program().to_owned()], word, any) {
            course.kills.fetch_add(1, Ordering::Relaxed);
        }
        eventually("a client hears", || {
            course.are_done.load(Ordering::Relaxed)
                || course.answers.load(Ordering::Relaxed) > before
        });
    }
}

/// Each message is published after a client has heard the one before, or could have.
fn publish_all(store: &Store, course: &Course) {
    let events = || course.answers.load(Ordering::Relaxed) + course.kills.load(Ordering::Relaxed);
    for number in 0..MESSAGES {
        let before = events();
        let answer = store.query(&format!("publish=/room/{}&data={number}", number % 3)).answer();
        assert_eq!(answer.status(), 200);
        eventually("a client hears or is killed", || events() > before);
    }
    course.has_published.store(true, Ordering::Relaxed);
}

/// What each client has heard, and how many processes were killed meanwhile.
fn hear_amid_kills(begin: fn(&Store) -> Client) -> (Vec<Vec<u64>>, u64) {
    let (store, course) = (Store::new(), Course::default());
    let word = format!("room={}", store.0.display());
    let clients: Vec<_> = (0..CLIENTS).map(|_| begin(&store)).collect();
    for client in &clients {
        assert_eq!(client.subscribe("/room/*")["successful"], true);
    }
    let heard = thread::scope(|scope| {
        let killer = scope.spawn(|| kill(&word, &course));
        let hearers: Vec<_> =
            clients.iter().map(|client| scope.spawn(|| hear(client, &word, &course))).collect();
        publish_all(&store, &course);
        let heard: Vec<_> = hearers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        course.are_done.store(true, Ordering::Relaxed);
        killer.join().unwrap();
        heard.into_iter().map(Result::unwrap).collect()
    });
    (heard, course.kills.into_inner())
}

#[test]
fn kills_lose_and_double_nothing_with_acknowledgements() {
    let (heard, kills) = hear_amid_kills(|store| Client::acking(store));
    assert!(kills > 20, "{kills}");
    for (number, heard) in heard.into_iter().enumerate() {
        assert!(heard.iter().copied().eq(0..MESSAGES), "client {number}: {heard:?}");
    }
}

/// A client that acknowledges nothing loses what was on its way.
#[test]
fn kills_double_nothing_without_acknowledgements() {
    let (heard, kills) = hear_amid_kills(|store| Client::begin(store));
    assert!(kills > 20, "{kills}");
    for (number, heard) in heard.into_iter().enumerate() {
        assert!(heard.windows(2).all(|pair| pair[0] < pair[1]), "client {number}: {heard:?}");
        assert!(!heard.is_empty());
    }
}

/// A file system may keep any part of a log. Its whole entries count. Without the first there is
/// no session.
#[test]
fn torn_log_is_a_session_with_less_or_none() {
    let store = Store::new();
    let client = Client::acking(&store);
    client.subscribe("/é/*");
    client.publish("/é/a", &json!("é"));
    client.poll(Some(1));
    client.say(json!([{"channel": "/meta/unsubscribe", "subscription": "/é/*"}]));
    let log = fs::read(client.file()).unwrap();
    let (first, second) = (log_end(&log, 1), log_end(&log, 2));
    let other = Client::begin(&store);
    let others = fs::read(other.file()).unwrap();
    for length in 0..=log.len() {
        fs::write(client.file(), &log[..length]).unwrap();
        let answer = client
            .call(json!([
                {"channel": "/meta/connect", "advice": {"timeout": 0}, "ext": {"ack": 2}},
                {"channel": "/meta/subscribe", "subscription": "/b"},
            ]))
            .answer();
        let all = replies(&answer);
        for reply in &all[..2] {
            let is_known = reply["successful"] == true;
            assert_eq!(is_known, length >= first, "{length}: {reply}");
            assert!(is_known || reply["error"] == "402::session_unknown", "{length}: {reply}");
        }
        assert!(length >= second || all.len() == 2, "{length}: {all:?}");
        let text = String::from_utf8_lossy(&fs::read(client.file()).unwrap()).into_owned();
        let is_whole = |line: &str| line.starts_with("{\"Follow") && line.contains("/b");
        assert_eq!(text.lines().any(is_whole), length >= first, "{length}: {text}");
    }
    assert_eq!(fs::read(other.file()).unwrap(), others);
}

/// Where the entry with this number ends, without its end of line.
fn log_end(log: &[u8], number: usize) -> usize {
    let ends = log.windows(2).enumerate().filter(|(_, two)| *two == b"}\n");
    ends.map(|(at, _)| at + 1).nth(number - 1).unwrap()
}

/// A log of somebody else, or one that others may write, is none.
#[test]
fn log_that_others_may_write_is_no_session() {
    let store = Store::new();
    let client = Client::begin(&store);
    for mode in [0o620, 0o602, 0o640, 0o604] {
        fs::set_permissions(client.file(), Permissions::from_mode(mode)).unwrap();
        assert_eq!(client.subscribe("/a")["error"], "402::session_unknown", "{mode:o}");
    }
    fs::set_permissions(client.file(), Permissions::from_mode(0o600)).unwrap();
    assert_eq!(client.subscribe("/a")["successful"], true);
}

/// How much of a disk the program leaves to others, in percent. Without that the kernel refuses
/// a write itself, perhaps in the middle of a line.
const FREE: [&str; 2] = ["5", "0"];

/// The replies and messages of a body by a store on a full disk, and whether all went well.
fn say_on(small: &Small, free: &str, messages: &Value) -> (bool, Vec<Value>) {
    let call = small.call("").variable("SCRIPT_NAME", "/bayeux").form(&messages.to_string());
    let answer = call
        .variable("NOVCOMET_KEEP_FREE", free)
        .variable("CONTENT_TYPE", "application/json")
        .answer();
    if answer.status() == 200 {
        return (answer.log.is_empty(), serde_json::from_str(&answer.body).unwrap());
    }
    answer.assert_problem(507);
    (false, Vec::new())
}

#[test]
fn full_disk_refuses_a_handshake_without_advice() {
    let Some(small) = Small::new(65_536) else { return };
    let (is_well, _) = say_on(&small, FREE[0], &handshake());
    assert!(is_well);
    let stuff = small.stuff();
    let names = Store::names_in(&small.path()).len();
    for free in FREE {
        let (is_well, all) = say_on(&small, free, &handshake());
        assert!(!is_well);
        assert!(all[0]["error"].as_str().unwrap().starts_with("507::"), "{all:?}");
        assert_eq!(all[0]["advice"], Value::Null);
        assert_eq!(Store::names_in(&small.path()).len(), names, "it leaves no file");
    }
    fs::remove_file(stuff).unwrap();
    let (is_well, all) = say_on(&small, FREE[0], &handshake());
    assert!(is_well && all[0]["successful"] == true, "{all:?}");
}

/// While the disk is full, a connect is answered as long as its log has room, and refused then.
#[test]
fn full_disk_loses_and_doubles_nothing() {
    let Some(small) = Small::new(131_072) else { return };
    for extra in 0..8 {
        let mut begin = handshake();
        begin[0]["ext"] = json!({"ack": true});
        let free = FREE[extra % 2];
        let id = say_on(&small, free, &begin).1[0]["clientId"].clone();
        let channel = format!("/{}", "x".repeat(1 + extra * 5));
        let subscribe =
            json!([{"channel": "/meta/subscribe", "clientId": id, "subscription": channel}]);
        assert!(say_on(&small, free, &subscribe).0);
        let publish = json!([{"channel": channel, "data": 0}]);
        assert!(say_on(&small, free, &publish).0);
        let (mut heard, mut ack, mut sent) = (Vec::new(), json!(0), 1);
        let mut connect = || {
            let connect = json!([{"channel": "/meta/connect", "clientId": id,
                "ext": {"ack": ack}, "advice": {"timeout": 0}}]);
            let (is_well, mut all) = say_on(&small, free, &connect);
            if all.is_empty() {
                return false;
            }
            let reply = all.remove(0);
            assert_eq!(reply["advice"]["reconnect"], "retry", "{reply}");
            assert_eq!(reply["successful"], json!(is_well), "{reply}");
            if is_well {
                heard.extend(all.into_iter().map(|one| one["data"].as_u64().unwrap()));
                ack = reply["ext"]["ack"].clone();
            }
            is_well
        };
        assert!(connect());
        let stuff = small.stuff();
        let mut refused = 0;
        while refused < 5 {
            let publish = json!([{"channel": channel, "data": sent}]);
            let (is_well, all) = say_on(&small, free, &publish);
            sent += u64::from(is_well && all[0]["successful"] == true);
            refused += u64::from(!connect());
        }
        fs::remove_file(stuff).unwrap();
        assert!(connect() && connect());
        assert!(heard.iter().copied().eq(0..sent), "{sent}: {heard:?}");
    }
}

#[test]
fn handover_keeps_the_place_of_each_client() {
    let store = Store::new();
    let clients: Vec<_> = (0..3).map(|_| Client::begin(&store)).collect();
    let held: Vec<_> = clients
        .iter()
        .map(|client| {
            client.subscribe("/a");
            let call = client.connect(None).variable("GATEWAY_INTERFACE", "CGI/1.1").start();
            eventually("it is held", || {
                fs::read_to_string(client.file()).unwrap().matches("Attend").count() == 2
            });
            call
        })
        .collect();
    store.query("publish=/a&data=1").answer();
    for waiter in held {
        assert_eq!(delivered(&waiter.answer()).1, [pair("/a", &json!(1))]);
    }
    for client in &clients {
        let call = client.call(json!([{"channel": "/meta/connect", "advice": {"timeout": 0}}]));
        assert_eq!(delivered(&call.answer()).1, [], "it has everything");
    }
    let unknown = call(&store, &json!([{"channel": "/meta/connect"}])).answer();
    assert_eq!(replies(&unknown)[0]["error"], "402::session_unknown");
}

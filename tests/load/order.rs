//! Subscribers by pattern receive each message of all topics once, in one order, from one
//! position. Publishers write to many topics at once. Processes of both kinds are killed at
//! random, and publishers are stopped for a while.
//!
//! `ORDER_MESSAGES` sets the number of messages of each publisher. `make soak` uses a large one.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::Read;
use std::process::{ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use novcomet::event::position::Position;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::support::binary::{Call, Store};
use crate::support::store::{Backend, Kind};
use crate::support::turn::MACHINE;

const PUBLISHERS: usize = 4;
const TOPICS: usize = 8;
/// One in this number of publishes, and of polls, is killed, and of publishes another one is
/// stopped, for at most some milliseconds.
const RISK: u64 = 9;
const MAX_STOP: u64 = 40;
/// The time within which every subscriber has the last message.
const PATIENCE: Duration = Duration::from_secs(60);
const END: &str = "end";
const KEEP: [(&str, &str); 3] = [
    ("NOVCOMET_KEEP", "1000000"),
    ("NOVCOMET_KEEP_BYTES", "1073741824"),
    ("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0"),
];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    m: BTreeMap<String, Vec<Message>>,
    p: String,
}

#[derive(Deserialize)]
struct Message {
    id: f64,
    data: String,
}

/// What a subscriber has received.
struct Subscriber {
    name: String,
    since: String,
    seen: BTreeSet<String>,
    ends: usize,
    last: f64,
}

impl Subscriber {
    fn new(name: &str) -> Self {
        let (name, since) = (name.to_owned(), "earliest".to_owned());
        Self { name, since, seen: BTreeSet::new(), ends: 0, last: 0.0 }
    }

    fn take(&mut self, answer: Answer) {
        let all = answer.m.into_values().flatten();
        let mut all: Vec<_> = all.collect();
        all.sort_by(|one, other| one.id.total_cmp(&other.id));
        for Message { id, data } in all {
            assert!(id >= self.last, "{}: {data} of {id} comes after {}", self.name, self.last);
            self.last = id;
            if data == END {
                self.ends += 1;
            } else {
                assert!(self.seen.insert(data.clone()), "{}: {data} comes twice", self.name);
            }
        }
        let position = |text: &str| Position::parse(text);
        let is_later = self.since == "earliest" || position(&answer.p) >= position(&self.since);
        assert!(is_later, "{}: {} comes after {}", self.name, answer.p, self.since);
        self.since = answer.p;
    }
}

/// A store, and its URL if it is no directory.
struct Place {
    store: Store,
    url: Option<String>,
}

impl Place {
    fn query(&self, query: &str) -> Call {
        let call = self.store.query(query);
        match &self.url {
            Some(url) => call.variable("NOVCOMET_STORE", url),
            None => call,
        }
    }
}

/// What happens to a publisher, and after how long.
enum Fate {
    Nothing,
    Killed(Duration),
    Stopped(Duration, Duration),
}

impl Fate {
    fn by_chance(random: &mut Random) -> Self {
        let after = Duration::from_micros(random.below(1500));
        match random.below(RISK) {
            0 => Self::Killed(after),
            1 => Self::Stopped(after, Duration::from_millis(random.below(MAX_STOP))),
            _ => Self::Nothing,
        }
    }
}

fn publish(store: &Place, topic: usize, text: &str, fate: &Fate) -> bool {
    let mut call = store.query(&format!("publish=room/{topic}&data={text}"));
    for (name, value) in KEEP {
        call = call.variable(name, value);
    }
    let mut child = call.command.stdin(Stdio::null()).spawn().unwrap();
    match *fate {
        Fate::Nothing => {}
        Fate::Killed(after) => {
            thread::sleep(after);
            let _ = child.kill();
        }
        Fate::Stopped(after, time) => {
            let pid = Pid::from_child(&child);
            thread::sleep(after);
            // It is not reaped before the wait, so the number is its own.
            kill_process(pid, Signal::STOP).unwrap();
            thread::sleep(time);
            kill_process(pid, Signal::CONT).unwrap();
        }
    }
    let output = child.wait_with_output().unwrap();
    output.status.success() && output.stdout.ends_with(b"true")
}

/// Publishes, and returns what was acknowledged.
fn publisher(store: &Place, number: usize, messages: usize) -> Vec<String> {
    let mut random = Random(number as u64 + 1);
    let mut acknowledged = Vec::new();
    for message in 0..messages {
        let topic = usize::try_from(random.below(TOPICS as u64)).unwrap();
        let text = format!("{number}-{message}");
        if publish(store, topic, &text, &Fate::by_chance(&mut random)) {
            acknowledged.push(text);
        }
    }
    acknowledged
}

/// Polls, or streams until it is killed, from the position where it stood.
fn subscribe(store: &Place, name: &str, is_stream: bool, failed: &AtomicBool) -> Subscriber {
    let mut subscriber = Subscriber::new(name);
    let mut random = Random(name.len() as u64);
    let until = Instant::now() + PATIENCE + Duration::from_secs(120);
    while subscriber.ends < TOPICS && !failed.load(Relaxed) {
        assert!(Instant::now() < until, "{name}: {} ends", subscriber.ends);
        let way = if is_stream { "&stream=json&wait=60" } else { "&wait=0.2" };
        let query = format!("matching=room/*&since={}{way}", subscriber.since);
        let mut call = store.query(&query).method("GET").variable("GATEWAY_INTERFACE", "CGI/1.1");
        for (name, value) in KEEP {
            call = call.variable(name, value);
        }
        let mut child = call.command.stdin(Stdio::null()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        // In a crowd another process may write the answer, so this one's end is not that of it.
        let mut text = Vec::new();
        if is_stream || random.below(RISK) == 0 {
            let time = Duration::from_millis(random.below(if is_stream { 400 } else { 30 }));
            read_for(&mut output, time, &mut text);
            let _ = child.kill();
        } else {
            output.read_to_end(&mut text).unwrap();
        }
        drop(output);
        child.wait().unwrap();
        let text = String::from_utf8(text).unwrap();
        let Some((_, body)) = text.split_once("\r\n\r\n") else { continue };
        if is_stream {
            // The last block may be cut.
            let whole = body.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
            for block in whole.split("\n\n") {
                let data = block.lines().find_map(|line| line.strip_prefix("data: "));
                if let Some(answer) = data.map(|data| serde_json::from_str(data).unwrap()) {
                    subscriber.take(answer);
                }
            }
        } else if let Ok(answer) = serde_json::from_str(body) {
            subscriber.take(answer);
        }
    }
    subscriber
}

/// Reads what comes within this time.
fn read_for(output: &mut ChildStdout, time: Duration, text: &mut Vec<u8>) {
    let begin = Instant::now();
    let mut some = [0; 4096];
    fcntl_setfl(&*output, OFlags::NONBLOCK).unwrap();
    while begin.elapsed() < time {
        match output.read(&mut some) {
            Ok(0) => break,
            Ok(count) => text.extend(&some[..count]),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Sets the flag when its thread fails.
struct Alarm<'a>(&'a AtomicBool);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Relaxed);
        }
    }
}

#[test]
fn each_message_of_all_topics_comes_once_and_in_order() {
    in_order(&Place { store: Store::new(), url: None });
}

#[test]
fn each_message_of_all_topics_in_redis_comes_once_and_in_order() {
    let redis = Backend::start(Kind::Redis);
    in_order(&Place { store: Store::new(), url: Some(redis.url()) });
}

fn in_order(store: &Place) {
    let _turn = MACHINE.alone();
    let messages = env::var("ORDER_MESSAGES").map_or(400, |count| count.parse().unwrap());
    let failed = &AtomicBool::new(false);
    thread::scope(|scope| {
        let subscribers: Vec<_> =
            [("poll", false), ("another", false), ("stream", true), ("a stream", true)]
                .into_iter()
                .map(|(name, is_stream)| {
                    scope.spawn(move || {
                        let _alarm = Alarm(failed);
                        subscribe(store, name, is_stream, failed)
                    })
                })
                .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| scope.spawn(move || publisher(store, number, messages)))
            .collect();
        let acknowledged = publishers.into_iter().flat_map(|one| one.join().unwrap());
        let acknowledged: BTreeSet<_> = acknowledged.collect();
        for topic in 0..TOPICS {
            assert!(publish(store, topic, END, &Fate::Nothing));
        }
        for subscriber in subscribers {
            let Subscriber { name, seen, .. } = subscriber.join().unwrap();
            let lost: Vec<_> = acknowledged.difference(&seen).take(9).collect();
            assert!(lost.is_empty(), "{name}: of {} are lost: {lost:?}", acknowledged.len());
        }
    });
}

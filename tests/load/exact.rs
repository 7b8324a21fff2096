//! Every subscriber receives each message once and in order. Publishers of several users
//! publish directly and through two servers. Subscribers poll and stream through both servers.
//! Processes of both kinds are killed at random.
//!
//! `EXACT_MESSAGES` and `EXACT_SUBSCRIBERS` (the number for each of the two ways) set the
//! sizes. `make soak` uses large ones.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use novcomet::event::{Cursor, Message};
use rustix::fs::Mode;
use rustix::process::{geteuid, umask};
use serde::Deserialize;

use crate::support::SOURCE;
use crate::support::process::kill_one;
use crate::support::server::{Exchange, Incoming, Kind, Server, Setup};
use crate::support::turn::MACHINE;

const TOPICS: [&str; 5] = ["a", "b b", "c/c", "é", "e"];
const ENCODED: [&str; 5] = ["a", "b%20b", "c%2Fc", "%C3%A9", "e"];
const PUBLISHERS: usize = 8;
/// The last publishers go through the servers.
const DIRECT: usize = 6;
/// The user of the first publisher.
const USER: u32 = 60_001;
/// One in this number of publishes is killed by its publisher.
const RISK: u64 = 25;
/// The average time between two kills of a server's processes.
const PACE: Duration = Duration::from_millis(15);
/// The longest time between two polls.
const PAUSE: Duration = Duration::from_millis(300);
/// The time within which every subscriber has the last message.
const PATIENCE: Duration = Duration::from_secs(120);
/// The last message of each topic.
const END: &str = "end";
/// Enough to keep all messages.
const KEEP: [(&str, &str); 2] =
    [("NOVCOMET_KEEP", "10000000"), ("NOVCOMET_KEEP_BYTES", "1073741824")];

/// The state that all threads share.
struct World {
    servers: [Server; 2],
    messages: usize,
    subscribers: usize,
    published: AtomicUsize,
    /// The time at which the last message was published.
    over: OnceLock<Instant>,
    calm: AtomicBool,
    /// A thread has found a fault, so the others can stop.
    failed: AtomicBool,
    counts: Counts,
}

/// Each thread holds it.
struct Alarm<'a>(&'a World);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.failed.fetch_or(thread::panicking(), Relaxed);
    }
}

#[derive(Debug, Default)]
struct Counts {
    publishers_killed: AtomicUsize,
    processes_killed: AtomicUsize,
    connections_cut: AtomicUsize,
    answers_broken: AtomicUsize,
}

/// The umask of this process before it was set.
struct Umask(Mode);

impl Umask {
    fn set(mask: Mode) -> Self {
        Self(umask(mask))
    }
}

impl Drop for Umask {
    fn drop(&mut self) {
        umask(self.0);
    }
}

#[test]
fn every_subscriber_gets_each_message_once() {
    // Event files that all users may write, as docs/limits.md describes.
    let _turn = MACHINE.alone();
    let _umask = Umask::set(Mode::empty());
    let world = World::new();
    let begin = Instant::now();
    let (sent, heard) = thread::scope(|scope| {
        let world = &world;
        let subscribers: Vec<_> = (0..2 * world.subscribers)
            .map(|number| scope.spawn(move || Subscriber::new(world, number).listen()))
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| scope.spawn(move || Publisher::new(world, number).publish_all()))
            .collect();
        let killer = scope.spawn(|| world.kill_at_random());
        let sent: Vec<_> = publishers.into_iter().map(|thread| thread.join().unwrap()).collect();
        world.calm.store(true, Relaxed);
        killer.join().unwrap();
        world.end();
        let heard: Vec<_> = subscribers.into_iter().map(|thread| thread.join().unwrap()).collect();
        (sent, heard)
    });
    let there = assert_exact(&sent, &heard);
    world.report(begin.elapsed(), &sent, there);
}

/// A number from the environment, or the default.
fn size(variable: &str, small: usize) -> usize {
    env::var(variable).map_or(small, |text| text.parse().unwrap())
}

impl World {
    fn new() -> Self {
        let sizes = format!("Include {SOURCE}/apache-conf/novcomet-mpm.conf");
        let keep = |setup: Setup| {
            KEEP.iter().fold(setup, |setup, (name, value)| setup.option(name, value))
        };
        let apache = keep(Server::setup(Kind::ApacheEvent).lines(&sizes)).start();
        let lighttpd = keep(Server::setup(Kind::Lighttpd).beside(&apache)).start();
        Self {
            servers: [apache, lighttpd],
            messages: size("EXACT_MESSAGES", 4_000),
            subscribers: size("EXACT_SUBSCRIBERS", 10),
            published: AtomicUsize::new(0),
            over: OnceLock::new(),
            calm: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            counts: Counts::default(),
        }
    }

    fn goes_on(&self) -> bool {
        !self.failed.load(Relaxed)
    }

    /// Kills processes of the servers. The few publishing processes are killed as often as the
    /// many subscribing ones.
    fn kill_at_random(&self) {
        let programs: Vec<PathBuf> = self.servers.iter().map(Server::program).collect();
        let mut random = Random::new(1);
        while !self.calm.load(Relaxed) && self.goes_on() {
            thread::sleep(random.time(2 * PACE));
            let word = if random.one_in(2) { "publish" } else { "subscribed" };
            let killed = kill_one(&programs, word, |count| random.below(count));
            self.counts.processes_killed.fetch_add(usize::from(killed), Relaxed);
        }
    }

    /// Publishes the last message of each topic.
    fn end(&self) {
        for topic in ENCODED {
            let target = format!("/comet.cgi?publish={topic}&data={END}");
            assert_eq!(self.servers[0].get(&target).body, "true");
        }
        self.over.set(Instant::now()).unwrap();
    }

    fn report(&self, took: Duration, sent: &[Vec<Sent>], there: usize) {
        let acknowledged = sent.iter().flatten().filter(|sent| sent.id.is_some()).count();
        let (messages, subscribers) = (self.messages, 2 * self.subscribers);
        let rate = f64::from(u32::try_from(messages).unwrap()) / took.as_secs_f64();
        let text = format!(
            "{messages} messages to {subscribers} subscribers in {took:.1?}, {rate:.0} a second; \
             {acknowledged} were acknowledged, {there} of the others are there; {:?}\n",
            self.counts,
        );
        // Writes to stderr directly, because the test harness captures printed text.
        io::stderr().write_all(text.as_bytes()).unwrap();
    }
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        Self((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap() % limit
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.next() % count == 0
    }

    fn time(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(f64::from(u32::try_from(self.next() % 1000).unwrap()) / 1000.0)
    }
}

// Publishers.

/// The publisher and the number of a message.
type Name = (usize, usize);

/// A message, as its publisher knows it.
struct Sent {
    name: Name,
    topic: usize,
    /// The cursor of the message, if it was acknowledged.
    id: Option<Cursor>,
}

struct Publisher<'a> {
    world: &'a World,
    number: usize,
    random: Random,
}

impl<'a> Publisher<'a> {
    fn new(world: &'a World, number: usize) -> Self {
        Self { world, number, random: Random::new(100 + number) }
    }

    fn publish_all(&mut self) -> Vec<Sent> {
        let _alarm = Alarm(self.world);
        let numbers = 0..self.world.messages / PUBLISHERS;
        numbers.take_while(|_| self.world.goes_on()).map(|number| self.publish(number)).collect()
    }

    fn publish(&mut self, number: usize) -> Sent {
        let name = (self.number, number);
        let topic = self.random.below(TOPICS.len());
        let answer = match self.number {
            0..DIRECT => self.directly(topic, &text(name)),
            other => self.by_server(other - DIRECT, topic, &text(name)),
        };
        self.world.published.fetch_add(1, Relaxed);
        Sent { name, topic, id: answer.and_then(|answer| id_of(&answer, topic)) }
    }

    fn directly(&mut self, topic: usize, text: &str) -> Option<String> {
        let mut child = self.start(topic, text);
        if self.random.one_in(RISK) {
            thread::sleep(self.random.time(Duration::from_millis(4)));
            child.kill().unwrap();
            self.world.counts.publishers_killed.fetch_add(1, Relaxed);
        }
        let output = child.wait_with_output().unwrap();
        let answer = String::from_utf8(output.stdout).unwrap();
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        // The publisher was killed, or it has an answer with its cursor. It was not refused.
        assert!(output.stderr.is_empty() && !answer.contains("problem"), "{answer}");
        body
    }

    fn start(&self, topic: usize, text: &str) -> Child {
        let server = &self.world.servers[0];
        let mut command = Command::new(server.program());
        command.env_clear().envs(KEEP).env("REQUEST_METHOD", "POST");
        command.env("NOVCOMET_STORE", format!("file://{}", server.store().display()));
        command.env("QUERY_STRING", format!("publish={}", ENCODED[topic]));
        command.env("CONTENT_TYPE", "text/plain").env("CONTENT_LENGTH", text.len().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if geteuid().is_root() {
            let user = USER + u32::try_from(self.number).unwrap();
            command.uid(user).gid(user);
        }
        let mut child = command.spawn().unwrap();
        // The process may have been killed before it read the request.
        let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
        child
    }

    fn by_server(&self, server: usize, topic: usize, text: &str) -> Option<String> {
        let port = self.world.servers[server].port();
        let request = format!("POST /comet.cgi?publish={}", ENCODED[topic]);
        let headers = ["Content-Type: text/plain"];
        whole_body(Exchange::send(port, &request, &headers, text.as_bytes()).incoming()?)
    }
}

/// The text of a message. Every fiftieth has several lines and pages.
fn text((publisher, number): Name) -> String {
    let long =
        if number % 50 == 7 { "\nlong \u{1f600} \"line\"".repeat(500) } else { String::new() };
    format!("{publisher} {number}{long}")
}

/// The name of a message. The text must be unchanged.
fn name_of(data: &str) -> Name {
    let first = data.lines().next().unwrap();
    let (publisher, number) = first.split_once(' ').unwrap();
    let name = (publisher.parse().unwrap(), number.parse().unwrap());
    assert!(data == text(name), "changed on its way: {data}");
    name
}

/// The body of an answer; `None` if the process was killed or the answer is incomplete.
fn whole_body(mut incoming: Incoming) -> Option<String> {
    let mut body = Vec::new();
    while let Some(part) = incoming.part() {
        body.extend(part);
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    assert!(!body.contains("detail"), "refused: {body}");
    Some(body).filter(|_| incoming.status == 200)
}

/// An answer to a poll, or to a publish by POST.
#[derive(Deserialize)]
struct News {
    k: BTreeMap<String, Cursor>,
    #[serde(default)]
    m: BTreeMap<String, Vec<Message>>,
    #[serde(default)]
    gap: Vec<String>,
}

fn id_of(answer: &str, topic: usize) -> Option<Cursor> {
    serde_json::from_str::<News>(answer).ok().map(|news| news.k[TOPICS[topic]])
}

// Subscribers.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Poll,
    Events,
    Json,
}

struct Subscriber<'a> {
    world: &'a World,
    number: usize,
    way: Way,
    random: Random,
    cursors: [Cursor; TOPICS.len()],
    last_event_id: Option<String>,
    heard: [Vec<(Cursor, Name)>; TOPICS.len()],
    has_ended: [bool; TOPICS.len()],
}

impl<'a> Subscriber<'a> {
    fn new(world: &'a World, number: usize) -> Self {
        let way = [Way::Poll, Way::Events, Way::Poll, Way::Json][number % 4];
        let random = Random::new(1000 + number);
        let (cursors, heard) = ([Cursor::SMALLEST; TOPICS.len()], Default::default());
        let has_ended = [false; TOPICS.len()];
        Self { world, number, way, random, cursors, last_event_id: None, heard, has_ended }
    }

    /// Reads until the last message of each topic; returns all received messages.
    fn listen(mut self) -> [Vec<(Cursor, Name)>; TOPICS.len()] {
        let _alarm = Alarm(self.world);
        if self.number % 5 == 4 {
            self.come_late();
        }
        while self.has_ended.contains(&false) && self.world.goes_on() {
            let late = self.world.over.get().is_some_and(|over| over.elapsed() > PATIENCE);
            assert!(
                !late,
                "{} {:?} never hears the end: {:?}",
                self.number, self.way, self.cursors
            );
            match self.way {
                // A page also pauses between two polls.
                Way::Poll => {
                    thread::sleep(self.random.time(PAUSE));
                    self.take_answer(self.send());
                }
                Way::Events | Way::Json => self.take_stream(self.send()),
            }
        }
        self.heard
    }

    /// Waits until half of all messages exist. The subscriber then replays them.
    fn come_late(&self) {
        while self.world.published.load(Relaxed) < self.world.messages / 2 && self.world.goes_on() {
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn request(&self) -> String {
        let of = |(topic, cursor)| format!("subscribed[{topic}]={cursor}&");
        let topics: String = ENCODED.iter().zip(&self.cursors).map(of).collect();
        let stream = match self.way {
            Way::Poll => "",
            Way::Events => "&stream=1",
            Way::Json => "&stream=json",
        };
        format!("GET /comet.cgi?{topics}wait=10{stream}")
    }

    fn send(&self) -> Exchange {
        let server = &self.world.servers[self.number / 2 % 2];
        let header = self.last_event_id.as_ref().map(|id| format!("Last-Event-ID: {id}"));
        let headers: Vec<&str> = header.iter().map(String::as_str).collect();
        Exchange::send(server.port(), &self.request(), &headers, b"")
    }

    /// Cuts a connection now and then, after this number of parts.
    fn patience(&mut self) -> usize {
        match self.random.one_in(4) {
            true => self.random.below(20),
            false => usize::MAX,
        }
    }

    fn cut(&self, exchange: impl Sized) {
        drop(exchange);
        self.world.counts.connections_cut.fetch_add(1, Relaxed);
    }

    fn take_answer(&mut self, exchange: Exchange) {
        if self.patience() == 0 {
            return self.cut(exchange);
        }
        let body = exchange.incoming().and_then(whole_body);
        match body.and_then(|body| serde_json::from_str(&body).ok()) {
            Some(news) => self.take_news(&news),
            None => drop(self.world.counts.answers_broken.fetch_add(1, Relaxed)),
        }
    }

    /// The complete blocks.
    fn take_stream(&mut self, exchange: Exchange) {
        let mut parts = self.patience();
        let Some(mut incoming) = exchange.incoming().filter(|incoming| incoming.status == 200)
        else {
            self.world.counts.answers_broken.fetch_add(1, Relaxed);
            return;
        };
        let mut text = Vec::new();
        while let Some(part) = incoming.part() {
            text.extend(part);
            while let Some(end) = text.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = text.drain(..end + 2).collect();
                self.take_block(std::str::from_utf8(&block).unwrap());
            }
            if parts == 0 || !self.has_ended.contains(&false) {
                return self.cut(incoming);
            }
            parts -= 1;
        }
    }

    fn take_block(&mut self, block: &str) {
        let field = |name: &str| {
            let of = |line: &str| {
                Some(line.strip_prefix(name)?.trim_start_matches([':', ' ']).to_owned())
            };
            block.lines().filter_map(of).collect::<Vec<_>>()
        };
        let (ids, data) = (field("id"), field("data").join("\n"));
        let Some(id) = ids.into_iter().next() else { return };
        match (self.way, field("event").pop()) {
            (Way::Json, _) => self.take_news(&serde_json::from_str(&data).unwrap()),
            (_, Some(event)) if !data.is_empty() => self.take_event(&event, &id, &data),
            _ => {}
        }
        self.last_event_id = Some(id);
    }

    fn take_event(&mut self, event: &str, id: &str, data: &str) {
        let topic = TOPICS.iter().position(|&topic| topic == event).unwrap_or_else(|| {
            panic!("a {event} of {data}");
        });
        let cursor = id.split('-').nth(topic).unwrap();
        let cursor = Cursor::from_micros(u64::from_str_radix(cursor, 36).unwrap());
        self.take(topic, cursor, data);
    }

    fn take_news(&mut self, news: &News) {
        assert!(news.gap.is_empty(), "a gap: {:?}", news.gap);
        for (number, topic) in TOPICS.into_iter().enumerate() {
            for Message { id, data, .. } in news.m.get(topic).into_iter().flatten() {
                self.take(number, *id, data);
            }
            if let Some(&cursor) = news.k.get(topic) {
                self.cursors[number] = cursor;
            }
        }
    }

    fn take(&mut self, topic: usize, id: Cursor, data: &str) {
        let heard = &mut self.heard[topic];
        assert!(heard.last().is_none_or(|&(last, _)| last < id), "twice, or out of order: {data}");
        assert!(!self.has_ended[topic], "after the end: {data}");
        match data {
            END => self.has_ended[topic] = true,
            data => heard.push((id, name_of(data))),
        }
    }
}

// The promises.

/// Returns the number of delivered messages that were not acknowledged.
fn assert_exact(sent: &[Vec<Sent>], heard: &[[Vec<(Cursor, Name)>; TOPICS.len()]]) -> usize {
    for (number, other) in heard.iter().enumerate() {
        assert!(*other == heard[0], "subscriber {number} has heard something else than the first");
    }
    let mut there: HashMap<Name, (usize, Cursor)> = HashMap::new();
    for (topic, messages) in heard[0].iter().enumerate() {
        assert_order(messages);
        for &(id, name) in messages {
            assert_eq!(there.insert(name, (topic, id)), None, "doubled: {name:?}");
        }
    }
    for Sent { name, topic, id } in sent.iter().flatten() {
        let found = there.remove(name);
        assert!(found.is_none_or(|found| found.0 == *topic), "{name:?} is in another topic");
        assert!(
            id.is_none() || found.map(|found| found.1) == *id,
            "{name:?}: {id:?}, not {found:?}"
        );
    }
    assert!(there.is_empty(), "never sent: {there:?}");
    let acknowledged = sent.iter().flatten().filter(|sent| sent.id.is_some()).count();
    heard[0].iter().map(Vec::len).sum::<usize>() - acknowledged
}

/// A publisher sends its messages one after the other.
fn assert_order(messages: &[(Cursor, Name)]) {
    let mut last = BTreeMap::new();
    for &(_, (publisher, number)) in messages {
        let before = last.insert(publisher, number);
        assert!(before.is_none_or(|before| before < number), "{publisher} {number}");
    }
}

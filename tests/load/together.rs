//! Subscribers that wait together, without a web server. Processes are killed, stopped and told
//! to end at random moments, and at each system call of joining and of handing over.
//!
//! `TOGETHER_ROUNDS` sets the number of rounds at random moments, and `TOGETHER_CALLS` that of
//! rounds at system calls. `make soak` uses large ones. `TOGETHER_SEED` repeats one round.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use novcomet::event::{Cursor, Message};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use novcomet::process::slots::prefix;

use crate::support::binary::{Store, Waiter, sleeps};
use crate::support::host::is_root;
use crate::support::process::bound_names;
use crate::support::turn::MACHINE;
use crate::support::wait::eventually;

/// How much later than its time a client may have its answer, on a busy machine.
const GRACE: Duration = Duration::from_secs(2);
/// The time within which every client has the last message.
const PATIENCE: Duration = Duration::from_secs(15);
/// The last message of each topic.
const END: &str = "end";
/// A message of this many quotation marks is more than a pipe holds: in JSON each takes two bytes.
const MUCH: usize = 65_000;
/// The topic of all clients. Each has one of its own, too.
const ALL: &str = "all";

fn size(name: &str, default: usize) -> usize {
    env::var(name).ok().and_then(|size| size.parse().ok()).unwrap_or(default)
}

/// Writes to stderr directly, because the test harness captures printed text.
fn say(text: &str) {
    io::stderr().write_all(text.as_bytes()).unwrap();
}

/// Numbers that look random.
struct Random(u64);

impl Random {
    fn new(seed: usize) -> Self {
        let mut random = Self((seed as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next()).unwrap() % limit
    }

    fn time(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(f64::from(u32::try_from(self.next() % 1000).unwrap()) / 1000.0)
    }
}

// Clients.

/// An answer to a poll, or the data of an event of a stream.
#[derive(Deserialize)]
struct News {
    k: BTreeMap<String, Cursor>,
    #[serde(default)]
    m: BTreeMap<String, Vec<Message>>,
    #[serde(default)]
    gap: Vec<String>,
}

/// One request, from its start to the end of its output.
struct Request {
    client: usize,
    /// Its number among the processes.
    process: usize,
    is_stream: bool,
    /// `None` once the output has ended, or the client has given up.
    output: Option<File>,
    received: Vec<u8>,
    /// How much of it the client has understood.
    understood: usize,
    begun: Instant,
    wait: Duration,
    is_complete: bool,
    /// Its client reads nothing for now.
    is_idle: bool,
}

/// A process of a request.
struct Process {
    child: Child,
    ended: Option<Ended>,
    is_stopped: bool,
}

/// The end of a process.
#[derive(Debug)]
struct Ended {
    name: String,
    status: ExitStatus,
    noticed: Instant,
}

struct Client {
    cursors: [Cursor; 2],
    heard: [usize; 2],
    has_ended: [bool; 2],
    /// The index of its request, while that lasts.
    request: Option<usize>,
}

/// A crowd of clients and their processes.
struct World {
    name: String,
    store: Store,
    variables: Vec<(&'static str, String)>,
    /// Standard input and output are one socket, as under `mod_cgid`.
    by_socket: bool,
    clients: Vec<Client>,
    requests: Vec<Request>,
    processes: Vec<Process>,
    /// The number of messages of each topic; the first is that of all.
    published: Vec<usize>,
    /// When a stopped process last went on, or was killed.
    resumed: Instant,
    /// How many requests got no slot.
    refused: usize,
    /// Signals come at system calls.
    is_exact: bool,
}

impl World {
    fn new(name: &str, clients: usize) -> Self {
        let client = |_| Client {
            cursors: [Cursor::SMALLEST; 2],
            heard: [0; 2],
            has_ended: [false; 2],
            request: None,
        };
        Self {
            name: name.to_owned(),
            store: Store::new(),
            variables: vec![
                ("NOVCOMET_MAX_WAITERS", "0".into()),
                ("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0".into()),
            ],
            by_socket: false,
            clients: (0..clients).map(client).collect(),
            requests: Vec::new(),
            processes: Vec::new(),
            published: vec![0; clients + 1],
            resumed: Instant::now(),
            refused: 0,
            is_exact: false,
        }
    }

    fn topic(number: usize) -> String {
        if number == 0 { ALL.into() } else { format!("t{}", number - 1) }
    }

    /// Publishes the next message to topic `number`: 0 is that of all, the others are those of
    /// the clients.
    fn publish(&mut self, number: usize) {
        let text = self.published[number].to_string();
        self.published[number] += 1;
        self.publish_text(number, &text);
    }

    fn publish_text(&self, number: usize, text: &str) {
        let call = self.store.query(&format!("publish={}", Self::topic(number)));
        let call = call.variable("CONTENT_TYPE", "text/plain").form(text);
        let body = call.answer().body;
        assert!(body.starts_with(r#"{"s":1,"k":"#), "{}: {body}", self.name);
    }

    /// A client asks, by a process that `by` starts.
    fn ask(&mut self, client: usize, is_stream: bool, wait: Duration, by: &[String]) {
        let [all, own] = self.clients[client].cursors;
        let stream = if is_stream { "&stream=json" } else { "" };
        let query = format!(
            "subscribed[{ALL}]={all}&subscribed[t{client}]={own}&wait={:.3}{stream}",
            wait.as_secs_f64()
        );
        let mut call = self.store.query(&query).method("GET");
        call = call.variable("GATEWAY_INTERFACE", "CGI/1.1").variable("REMOTE_ADDR", "192.0.2.1");
        for (name, value) in &self.variables {
            call = call.variable(name, value);
        }
        if let Some((program, arguments)) = by.split_first() {
            let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
            call = call.by(program, &arguments);
        }
        call.command.stdin(Stdio::null()).stderr(Stdio::null());
        let ours = self.by_socket.then(|| {
            let (ours, theirs) = UnixStream::pair().unwrap();
            call.command.stdin(OwnedFd::from(theirs.try_clone().unwrap()));
            call.command.stdout(OwnedFd::from(theirs));
            OwnedFd::from(ours)
        });
        let begun = Instant::now();
        let mut child = call.command.spawn().unwrap();
        // Our copies of the other end are closed with it.
        drop(call);
        let ours = ours.unwrap_or_else(|| child.stdout.take().unwrap().into());
        fcntl_setfl(&ours, OFlags::NONBLOCK).unwrap();
        self.clients[client].request = Some(self.requests.len());
        self.requests.push(Request {
            client,
            process: self.processes.len(),
            is_stream,
            output: Some(ours.into()),
            received: Vec::new(),
            understood: 0,
            begun,
            wait,
            is_complete: false,
            is_idle: false,
        });
        self.processes.push(Process { child, ended: None, is_stopped: false });
    }

    /// Reads what comes within this time.
    fn pump(&mut self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            self.read_all();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let requests = self.requests.iter().filter(|request| !request.is_idle);
            let outputs = requests.filter_map(|request| request.output.as_ref());
            let mut fds: Vec<_> =
                outputs.map(|output| PollFd::new(output, PollFlags::IN)).collect();
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
    }

    /// Reads until `condition` is true.
    fn await_that(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(
                Instant::now() < until,
                "{}: still not true: {what}: {}",
                self.name,
                self.state()
            );
            self.pump(Duration::from_millis(1));
        }
    }

    fn state(&self) -> String {
        let of = |request: &Request| {
            let Process { child, ended, is_stopped } = &self.processes[request.process];
            format!(
                "\nclient {} pid {} {:?} {ended:?} stopped {is_stopped} open {} stream {} complete {} age {:?} wait {:?} has {:?}",
                request.client,
                child.id(),
                comm(child.id()),
                request.output.is_some(),
                request.is_stream,
                request.is_complete,
                request.begun.elapsed(),
                request.wait,
                String::from_utf8_lossy(&request.received[request.understood..]),
            )
        };
        self.requests.iter().map(of).collect()
    }

    fn read_all(&mut self) {
        for index in 0..self.requests.len() {
            self.read(index);
        }
        self.reap();
        self.assert_punctual();
    }

    fn read(&mut self, index: usize) {
        let request = &mut self.requests[index];
        let Some(output) = request.output.as_mut().filter(|_| !request.is_idle) else { return };
        let mut buffer = vec![0; 65_536];
        let is_over = match output.read(&mut buffer) {
            Ok(0) => true,
            Ok(read) => {
                request.received.extend(&buffer[..read]);
                false
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            // Its process was killed with unread input.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => true,
            Err(error) => panic!("{error}"),
        };
        self.understand(index);
        if is_over {
            self.end(index);
        }
    }

    /// Takes what is whole.
    fn understand(&mut self, index: usize) {
        loop {
            let request = &mut self.requests[index];
            let rest = std::str::from_utf8(&request.received[request.understood..]).unwrap();
            assert!(!request.is_complete || rest.is_empty(), "{}: twice: {rest}", self.name);
            let Some(end) = rest
                .find("\r\n\r\n")
                .map(|end| end + 4)
                .or(Some(0).filter(|_| request.understood > 0))
            else {
                return;
            };
            let (head, body) = rest.split_at(end);
            if !head.is_empty() {
                assert!(head.starts_with("Status: 200 OK\r\n"), "{}: {rest}", self.name);
                self.refused += usize::from(head.contains("\r\nRetry-After: "));
            }
            let length = match request.is_stream {
                false => head
                    .lines()
                    .find_map(|line| line.strip_prefix("Content-Length: "))
                    .and_then(|length| length.parse().ok()),
                true => body.find("\n\n").map(|end| end + 2),
            };
            let Some(part) = length.and_then(|length| body.get(..length)) else { return };
            let part = part.to_owned();
            request.understood += head.len() + part.len();
            request.is_complete = !request.is_stream;
            let is_stream = request.is_stream;
            let data = if is_stream {
                part.lines().find_map(|line| line.strip_prefix("data: "))
            } else {
                Some(part.as_str())
            };
            if let Some(data) = data {
                self.take(index, data);
            }
            if !is_stream {
                let client = self.requests[index].client;
                self.clients[client].request = None;
                return;
            }
        }
    }

    fn take(&mut self, index: usize, data: &str) {
        let client = self.requests[index].client;
        let news: News = serde_json::from_str(data)
            .unwrap_or_else(|error| panic!("{}: {error}: {data}", self.name));
        assert!(news.gap.is_empty(), "{}: {data}", self.name);
        let topics = [ALL.to_owned(), format!("t{client}")];
        let is_ours = |topic: &String| topics.contains(topic);
        assert!(
            news.k.keys().chain(news.m.keys()).all(is_ours),
            "{}: not for t{client}: {data}",
            self.name
        );
        let known = &mut self.clients[client];
        for (number, topic) in topics.iter().enumerate() {
            for message in news.m.get(topic).into_iter().flatten() {
                assert!(!known.has_ended[number], "{}: after the end: {data}", self.name);
                if message.data == END {
                    known.has_ended[number] = true;
                } else {
                    let expected = known.heard[number].to_string();
                    assert_eq!(
                        message.data, expected,
                        "{}: {topic} of client {client}: {data}",
                        self.name
                    );
                    known.heard[number] += 1;
                }
            }
            if let Some(cursor) = news.k.get(topic) {
                known.cursors[number] = *cursor;
            }
        }
    }

    /// The output has ended. Only a kill may cut an answer.
    fn end(&mut self, index: usize) {
        let Request { client, process, is_stream, begun, .. } = self.requests[index];
        self.requests[index].output = None;
        if self.clients[client].request == Some(index) {
            self.clients[client].request = None;
        }
        let request = &self.requests[index];
        let is_whole = if is_stream {
            request.understood > 0 && request.understood == request.received.len()
        } else {
            request.is_complete
        };
        self.requests[index].is_complete = true;
        let until = Instant::now() + GRACE;
        while !is_whole && !self.may_be_cut(process, begun) {
            assert!(
                Instant::now() < until,
                "{}: cut: client {client}: {}",
                self.name,
                self.state()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether its process was killed, or told to end before it listened to that, or the leader
    /// was killed after the request had begun. A standby that takes over is the leader before it
    /// has the name.
    fn may_be_cut(&mut self, process: usize, begun: Instant) -> bool {
        self.reap();
        let is_exact = self.is_exact;
        self.processes.iter().enumerate().any(|(index, it)| match &it.ended {
            Some(Ended { name, status, noticed }) => {
                let led = name == "comet: leader" || is_exact && name == "comet: standby";
                status.signal() == Some(9) && (led && begun <= *noticed || index == process)
                    || status.signal() == Some(15) && index == process
            }
            None => false,
        })
    }

    /// Notes which processes have ended.
    fn reap(&mut self) {
        for process in &mut self.processes {
            if process.ended.is_none() {
                // The name of a process that has ended can be read until it is waited for.
                let name = comm(process.child.id());
                let Some(status) = process.child.try_wait().unwrap() else { continue };
                process.ended = Some(Ended { name, status, noticed: Instant::now() });
            }
        }
    }

    fn assert_punctual(&self) {
        if self.processes.iter().any(|process| process.is_stopped) {
            return;
        }
        for request in &self.requests {
            let late = (request.begun + request.wait).max(self.resumed) + GRACE;
            let is_open = request.output.is_some();
            assert!(
                !is_open || Instant::now() < late,
                "{}: late: client {}: {}",
                self.name,
                request.client,
                self.state()
            );
        }
    }

    /// Sends a signal to a process that has not ended.
    fn signal(&mut self, process: usize, signal: Signal) {
        let it = &mut self.processes[process];
        if it.ended.is_some() {
            return;
        }
        let _ = kill_process(Pid::from_child(&it.child), signal);
        if [Signal::KILL, Signal::CONT].contains(&signal) && it.is_stopped {
            it.is_stopped = false;
            self.resumed = Instant::now();
        }
        it.is_stopped |= signal == Signal::STOP;
    }

    /// The process of this name that came last.
    fn named(&self, name: &str) -> Option<usize> {
        let is_named =
            |process: &Process| process.ended.is_none() && comm(process.child.id()) == name;
        self.processes.iter().rposition(is_named)
    }

    /// Ends all faults, and awaits that every client has every message.
    fn calm(&mut self) {
        for process in 0..self.processes.len() {
            self.reap();
            self.signal(process, Signal::CONT);
        }
        self.resumed = Instant::now();
        for number in 0..self.published.len() {
            self.publish_text(number, END);
        }
        let until = Instant::now() + PATIENCE;
        while !self.clients.iter().all(|client| client.has_ended == [true; 2]) {
            assert!(
                Instant::now() < until,
                "{}: the end is not heard: {}",
                self.name,
                self.state()
            );
            for client in 0..self.clients.len() {
                let known = &self.clients[client];
                if known.request.is_none() && known.has_ended != [true; 2] {
                    self.ask(client, false, Duration::from_secs(60), &[]);
                }
            }
            self.pump(Duration::from_millis(3));
        }
        for (client, known) in self.clients.iter().enumerate() {
            let expected = [self.published[0], self.published[client + 1]];
            assert_eq!(known.heard, expected, "{}: client {client}", self.name);
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
    }
}

fn comm(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

// Faults at random moments.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Stop,
    Terminate,
    Any,
}

impl Fault {
    fn signal(self, random: &mut Random) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Stop => Signal::STOP,
            Self::Terminate => Signal::TERM,
            Self::Any => [Signal::KILL, Signal::STOP, Signal::TERM][random.below(3)],
        }
    }
}

/// Every client gets each message once and in order, whatever happens to the processes.
#[test]
fn random_faults_lose_no_message() {
    let _turn = MACHINE.alone();
    let begin = Instant::now();
    let any = usize::try_from(std::process::id()).unwrap() * 100_000;
    let is_one = env::var_os("TOGETHER_SEED").is_some();
    let (first, rounds) = (size("TOGETHER_SEED", any), size("TOGETHER_ROUNDS", 60));
    let seeds: Vec<_> = (first..first + if is_one { 1 } else { rounds }).collect();
    let (first, count) = (seeds[0], seeds.len());
    let mut sum = [0; 3];
    for seed in seeds {
        let counted = random_round(seed);
        for (sum, count) in sum.iter_mut().zip(counted) {
            *sum += count;
        }
    }
    let [requests, messages, faults] = sum;
    say(&format!(
        "{count} rounds from seed {first} in {:.1?}: {requests} requests, {messages} messages, {faults} faults\n",
        begin.elapsed()
    ));
}

fn random_round(seed: usize) -> [usize; 3] {
    let mut random = Random::new(seed);
    let fault = [Fault::Kill, Fault::Stop, Fault::Terminate, Fault::Any][seed % 4];
    let clients = 3 + random.below(4);
    let mut world = World::new(&format!("TOGETHER_SEED={seed} ({fault:?})"), clients);
    world.by_socket = random.below(3) == 0;
    let mut faults = 0;
    for _ in 0..40 {
        match random.below(10) {
            0..=4 => {
                let client = random.below(clients);
                if world.clients[client].request.is_none() {
                    let wait = Duration::from_millis(50) + random.time(Duration::from_millis(1500));
                    world.ask(client, random.below(3) == 0, wait, &[]);
                }
            }
            5..=7 => {
                let topic = if random.below(3) == 0 { 0 } else { 1 + random.below(clients) };
                world.publish(topic);
            }
            8 => {
                faults += 1;
                let name =
                    ["comet: leader", "comet: standby", "comet", "comet: member"][random.below(4)];
                if let Some(victim) = world.named(name) {
                    world.signal(victim, fault.signal(&mut random));
                }
            }
            _ => {
                // A stopped process goes on, or is killed.
                let stopped = world.processes.iter().position(|process| process.is_stopped);
                if let Some(stopped) = stopped {
                    if random.below(4) == 0 {
                        world.pump(random.time(Duration::from_millis(400)));
                    }
                    let kills = fault == Fault::Any && random.below(2) == 0;
                    world.signal(stopped, if kills { Signal::KILL } else { Signal::CONT });
                } else if random.below(3) == 0 {
                    world.give_up(&mut random);
                }
            }
        }
        world.pump(random.time(Duration::from_millis(4)));
    }
    world.calm();
    [world.requests.len(), world.published.iter().sum(), faults]
}

impl World {
    /// A client closes its connection, and will ask again.
    fn give_up(&mut self, random: &mut Random) {
        let client = random.below(self.clients.len());
        if let Some(index) = self.clients[client].request.take() {
            self.requests[index].output = None;
        }
    }
}

// Faults at each system call.

/// A signal at a system call of one of the processes.
struct Injection {
    /// The process: 0 leads first, 1 joins it, and 3 takes over.
    victim: usize,
    by_socket: bool,
    call: String,
    number: usize,
    signal: Signal,
}

const STRACE: [&str; 6] = ["strace", "-D", "-f", "-qqq", "-o", "/dev/null"];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Every client gets each message once and in order, though a process is killed, stopped or told
/// to end at a system call of joining, waiting or handing over.
#[test]
fn fault_at_each_call_loses_no_message() {
    let _turn = MACHINE.alone();
    let begin = Instant::now();
    let mut injections = Vec::new();
    for victim in [0, 1, 3] {
        for by_socket in [false, true] {
            for (call, number) in calls_of(victim, by_socket) {
                for signal in [Signal::KILL, Signal::STOP, Signal::TERM] {
                    let call = call.clone();
                    injections.push(Injection { victim, by_socket, call, number, signal });
                }
            }
        }
    }
    let (all, count) = (injections.len(), size("TOGETHER_CALLS", 36));
    let mut random = Random::new(size("TOGETHER_SEED", std::process::id().try_into().unwrap()));
    while injections.len() > count {
        injections.swap_remove(random.below(injections.len()));
    }
    for injection in &injections {
        scene_with(injection);
    }
    say(&format!(
        "{} of {all} signals at system calls in {:.1?}\n",
        injections.len(),
        begin.elapsed()
    ));
}

/// The system calls from the first for waiting together, each by its name and number.
fn calls_of(victim: usize, by_socket: bool) -> Vec<(String, usize)> {
    let mut world = World::new("no fault", 4);
    world.by_socket = by_socket;
    let trace = world.store.0.join("trace");
    scene(&mut world, victim, &words(&["strace", "-D", "-qqq", "-o", trace.to_str().unwrap()]));
    world.calm();
    let mut counts = BTreeMap::new();
    let trace = fs::read_to_string(&trace).unwrap();
    let calls = trace.lines().filter_map(|line| Some((line, line.split_once('(')?.0)));
    let calls = calls.filter(|(_, name)| !name.contains(' ')).map(|(line, name)| {
        let number = counts.entry(name).or_insert(0);
        *number += 1;
        (line.contains("novcomet/together"), name.to_owned(), *number)
    });
    let calls: Vec<_> = calls.skip_while(|(is_first, ..)| !is_first).collect();
    assert!(calls.len() > 10, "{trace}");
    calls.into_iter().map(|(_, name, number)| (name, number)).collect()
}

fn scene_with(injection: &Injection) {
    let Injection { victim, by_socket, call, number, signal } = injection;
    let name = [(Signal::KILL, "KILL"), (Signal::STOP, "STOP"), (Signal::TERM, "TERM")];
    let name = name.iter().find(|(known, _)| known == signal).unwrap().1;
    let fault = format!("inject={call}:signal={name}:when={number}");
    let trace = format!("trace={call}");
    let mut world = World::new(&format!("victim {victim}, socket {by_socket}, {fault}"), 4);
    (world.by_socket, world.is_exact) = (*by_socket, true);
    let by = [&STRACE[..], &["-e", &trace, "-e", &fault]].concat();
    scene(&mut world, *victim, &words(&by));
    if *signal == Signal::STOP {
        // Longer than anybody waits for another process.
        world.pump(Duration::from_millis(300));
    }
    world.calm();
}

/// One leads and three join; the first answer ends, and the last takes over; the first client
/// returns, and takes over from that.
fn scene(world: &mut World, victim: usize, by: &[String]) {
    let wait = Duration::from_secs(3);
    for client in 0..4 {
        let by = if client == victim { by } else { &[] };
        world.ask(client, client % 2 == 1, wait, by);
        world.await_join(client);
    }
    world.publish(1);
    world.publish(2);
    world.await_end(0);
    world.return_of(0, false, wait);
    world.publish(0);
    world.pump(Duration::from_millis(3));
    world.return_of(0, true, wait);
    world.return_of(2, true, wait);
    // The answer of the one that leads ends.
    let leader = world.processes[3].child.id();
    let _ = kill_process(Pid::from_raw(leader.try_into().unwrap()).unwrap(), Signal::TERM);
    world.publish(4);
    world.pump(Duration::from_millis(5));
    world.publish(3);
}

impl World {
    /// A client that has its answer asks again.
    fn return_of(&mut self, client: usize, is_stream: bool, wait: Duration) {
        if self.clients[client].request.is_none() {
            self.ask(client, is_stream, wait, &[]);
            self.await_join(self.processes.len() - 1);
        }
    }

    /// Whether a process has ended, or sleeps until something happens.
    fn sleeps(&self, process: usize) -> bool {
        let Process { child, ended, .. } = &self.processes[process];
        ended.is_some() || sleeps(child.id())
    }

    /// Awaits that a process waits with others. A time within which it would is enough.
    fn await_join(&mut self, process: usize) {
        let until = Instant::now() + Duration::from_millis(150);
        while Instant::now() < until {
            let it = &self.processes[process];
            if it.ended.is_some() || comm(it.child.id()).starts_with("comet: ") {
                return;
            }
            self.pump(Duration::from_millis(1));
        }
    }

    fn await_end(&mut self, request: usize) {
        let until = Instant::now() + Duration::from_millis(150);
        while Instant::now() < until && !self.requests[request].is_complete {
            self.pump(Duration::from_millis(1));
        }
    }
}

// One fault each.

/// Clients that all wait, by poll.
fn waiting(name: &str, count: usize) -> World {
    let mut world = World::new(name, count);
    world.all_wait();
    world
}

impl World {
    fn all_wait(&mut self) {
        for client in 0..self.clients.len() {
            self.ask(client, false, Duration::from_secs(60), &[]);
            self.await_that("it joins", |world| {
                comm(world.processes[client].child.id()).starts_with("comet: ")
            });
        }
    }

    /// The slots that are taken.
    fn slots(&self) -> usize {
        bound_names(&prefix(&format!("file://{}", self.store.0.display())))
    }
}

/// It waits by itself after 100 ms.
#[test]
fn stopped_leader_costs_newcomer_100_ms() {
    let _turn = MACHINE.shared();
    let mut world = waiting("stopped leader", 2);
    world.clients.append(&mut World::new("", 1).clients);
    world.published.push(0);
    world.signal(0, Signal::STOP);
    for time in [0, 300] {
        let begin = Instant::now();
        world.ask(2, false, Duration::from_millis(time), &[]);
        world.await_that("an answer", |world| world.clients[2].request.is_none());
        let took = begin.elapsed();
        assert!(took < Duration::from_millis(time) + GRACE, "{time}: {took:?}");
    }
    world.calm();
}

/// The leader may have time later: nobody waits alone for as long as that leader lives.
#[test]
fn newcomer_that_waits_alone_joins_later() {
    let _turn = MACHINE.shared();
    for is_stream in [false, true] {
        let mut world = waiting("a busy leader", 2);
        world.clients.append(&mut World::new("", 1).clients);
        world.published.push(0);
        world.signal(0, Signal::STOP);
        world.ask(2, is_stream, Duration::from_secs(60), &[]);
        let newcomer = world.processes[2].child.id();
        world.await_that("it has a watch of its own", |_| watches(newcomer));
        world.signal(0, Signal::CONT);
        world.await_that("it is the standby", |_| comm(newcomer) == "comet: standby");
        assert!(!watches(newcomer));
        world.publish(3);
        world.await_that("its message", |world| {
            let received = &world.requests[2].received;
            String::from_utf8_lossy(received).contains("\"data\"")
        });
        world.calm();
    }
}

/// Whether a process has an inotify instance.
fn watches(pid: u32) -> bool {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = links.filter_map(|link| fs::read_link(link.path()).ok());
    targets.any(|target| target.as_os_str() == "anon_inode:inotify")
}

#[test]
fn killed_standby_cuts_nobody() {
    let _turn = MACHINE.shared();
    let mut world = waiting("killed standby", 3);
    world.signal(2, Signal::KILL);
    world.await_that("the standby has ended", |world| world.named("comet: standby").is_none());
    world.publish(0);
    world.await_that("all answers", |world| {
        world.clients.iter().all(|client| client.request.is_none())
    });
    assert!(world.requests.iter().all(|request| !request.received.is_empty()));
    world.calm();
}

/// The leader's answer ends, or it is told to end, while its standby is stopped. The others are
/// told where they stand.
#[test]
fn stopped_standby_holds_no_output() {
    let _turn = MACHINE.shared();
    for is_terminated in [false, true] {
        let mut world = waiting("stopped standby", 4);
        world.signal(3, Signal::STOP);
        let begin = Instant::now();
        match is_terminated {
            true => world.signal(0, Signal::TERM),
            false => world.publish(1),
        }
        world.await_that("all but one end", |world| {
            world.requests[..3].iter().all(|request| request.output.is_none())
        });
        assert!(begin.elapsed() < GRACE, "{is_terminated}: {:?}", begin.elapsed());
        for request in &world.requests[1..] {
            assert!(String::from_utf8_lossy(&request.received).contains(r#"{"s":0,"k":"#));
        }
        world.calm();
    }
}

/// It is told so, and waits by itself.
#[test]
fn newcomer_to_a_full_leader_waits_alone() {
    let _turn = MACHINE.shared();
    let mut world = World::new("a full leader", 20);
    for client in 0..20 {
        world.ask(client, false, Duration::from_secs(60), &words(&["prlimit", "--nofile=75:75"]));
        world.await_that("it waits", |world| world.sleeps(client));
    }
    let processes = world.processes.iter().filter(|process| process.ended.is_none()).count();
    assert!((4..20).contains(&processes), "{processes}");
    let before = cpu(world.processes[0].child.id());
    thread::sleep(Duration::from_millis(200));
    assert!(cpu(world.processes[0].child.id()) < before + 20);
    world.publish(0);
    world.await_that("all answers", |world| {
        world.clients.iter().all(|client| client.request.is_none())
    });
    world.calm();
}

/// The leader tells a newcomer to come, and hands over before it hears more of it.
#[test]
fn newcomer_to_a_leader_that_hands_over_is_not_lost() {
    let _turn = MACHINE.shared();
    for _ in 0..10 {
        let mut world = World::new("a late newcomer", 3);
        for client in 0..2 {
            world.ask(client, false, Duration::from_secs(60), &[]);
            world.await_join(client);
        }
        world.signal(0, Signal::STOP);
        world.publish(1);
        world.ask(2, false, Duration::from_secs(60), &[]);
        world.await_that("it waits for the leader", |world| world.sleeps(2));
        world.signal(0, Signal::CONT);
        world.await_that("the leader's end", |world| world.processes[0].ended.is_some());
        world.publish(0);
        world.await_that("both answers", |world| {
            world.clients.iter().all(|client| client.request.is_none())
        });
        world.calm();
    }
}

/// One of them leads, the others join it.
#[test]
fn newcomers_of_one_moment_wait_together() {
    let _turn = MACHINE.shared();
    for _ in 0..10 {
        let mut world = World::new("one moment", 20);
        for client in 0..20 {
            world.ask(client, false, Duration::from_secs(60), &[]);
        }
        world.await_that("all but two end", |world| {
            world.processes.iter().filter(|process| process.ended.is_none()).count() == 2
        });
        world.publish(0);
        world.await_that("all answers", |world| {
            world.clients.iter().all(|client| client.request.is_none())
        });
        world.calm();
    }
}

/// As many names are bound as clients wait, also after the leader has changed.
#[test]
fn slots_are_exact_across_leaders() {
    let _turn = MACHINE.shared();
    let mut world = World::new("slots", 9);
    world.variables[0].1 = "4".into();
    for round in 0..12 {
        for client in 0..9 {
            if world.clients[client].request.is_none() {
                world.ask(client, false, Duration::from_secs(60), &[]);
            }
        }
        let is_over = |world: &World| {
            let open = world.requests.iter().filter(|request| request.output.is_some()).count();
            open == 4
        };
        world.await_that("four wait", is_over);
        world.await_that("they have all slots", |world| world.slots() == 4);
        assert!(world.refused >= 5 * (round + 1), "round {round}: {}", world.refused);
        // One of them ends, often the leader.
        let open = world.requests.iter().find(|request| request.output.is_some()).unwrap();
        let client = open.client;
        world.publish(client + 1);
        world.await_that("its end", |world| world.clients[client].request.is_none());
    }
    world.publish(0);
    world.await_that("the end of all", |world| {
        world.requests.iter().all(|request| request.output.is_none())
    });
    world.await_that("no slot is taken", |world| world.slots() == 0);
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn resident(pid: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// The processor time of a process, in milliseconds.
fn cpu(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    text.split(' ').next().unwrap().parse::<u64>().unwrap() / 1_000_000
}

/// The leader keeps nothing of those that have gone.
#[test]
fn leader_holds_nothing_of_2000_that_have_gone() {
    const BATCH: usize = 50;
    let _turn = MACHINE.shared();
    let mut world = waiting("2,000 joins", 1);
    let leader = world.processes[0].child.id();
    world.clients.append(&mut World::new("", BATCH).clients);
    world.published.resize(BATCH + 1, 0);
    let mut held = Vec::new();
    for _ in 0..40 {
        for client in 1..=BATCH {
            world.ask(client, client % 2 == 0, Duration::from_millis(20), &[]);
        }
        world.await_that("their ends", |world| {
            world.clients[1..].iter().all(|client| client.request.is_none())
        });
        world.requests.truncate(1);
        for process in world.processes.drain(1..) {
            drop(Waiter(process.child));
        }
        held.push((descriptors(leader), resident(leader)));
    }
    let (first, last) = (held[4], held[39]);
    say(&format!("descriptors and kB resident after 250 and 2,000 joins: {first:?}, {last:?}\n"));
    assert!(last.0 <= 10 && last.1 <= first.1 + 500, "{held:?}");
}

/// The name of the leader of this world.
fn leaders_name(world: &World) -> String {
    let links = fs::read_dir(format!("/proc/{}/fd", world.processes[0].child.id())).unwrap();
    let inode = |link: io::Result<fs::DirEntry>| {
        let link = fs::read_link(link.ok()?.path()).ok()?;
        Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
    };
    let inodes: Vec<_> = links.filter_map(inode).collect();
    let all = fs::read_to_string("/proc/net/unix").unwrap();
    let of_leader = |line: &&str| {
        inodes.iter().any(|inode| line.contains(&format!(" {inode} @novcomet/together/")))
    };
    all.lines().find(of_leader).unwrap().split_once('@').unwrap().1.to_owned()
}

/// Connects, sends this and stays until it is killed.
fn stranger(name: &str, message: &str, user: Option<u32>) -> Waiter {
    let script = r#"socket(S,1,5,0) or die; connect(S,pack("Sa*",1,"\0".$ARGV[0])) or die "$!";
        if (length $ARGV[1]) { send(S,$ARGV[1],0x4000); } $|=1; print "x"; sleep 60;"#;
    let mut command = Command::new("perl");
    command.args(["-e", script, name, message]).stdout(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut child = command.spawn().unwrap();
    let _ = child.stdout.as_mut().unwrap().read(&mut [0]).unwrap();
    Waiter(child)
}

/// Whatever has happened, the leader sleeps until the next event.
#[test]
fn leader_sleeps_after_each_event() {
    let _turn = MACHINE.alone();
    let mut world = waiting("an idle leader", 4);
    let leader = world.processes[0].child.id();
    let name = leaders_name(&world);
    let assert_idle = |what: &str| {
        let before = cpu(leader);
        thread::sleep(Duration::from_millis(200));
        let took = cpu(leader) - before;
        assert!(took < 20, "after {what}: {took} ms");
    };
    assert_idle("joins");
    let mut strangers = Vec::new();
    for message in ["", "?", "u", "w", "w\u{1}{}", "w\u{1}nonsense", "t", "k", "x"] {
        strangers.push(stranger(&name, message, None));
        assert_idle(message);
        if is_root() {
            strangers.push(stranger(&name, message, Some(60_001)));
            assert_idle("another user");
        }
    }
    drop(strangers);
    assert_idle("strangers");
    world.signal(3, Signal::TERM);
    world.await_that("the standby's end", |world| world.clients[3].request.is_none());
    assert_idle("SIGTERM to the standby");
    // One reads nothing, and one has gone before it has read all.
    for client in [1, 2] {
        let request = world.clients[client].request.unwrap();
        world.requests[request].is_idle = true;
        world.publish_text(client + 1, &"\"".repeat(MUCH));
    }
    assert_idle("a slow client");
    world.requests[2].output = None;
    assert_idle("slow and gone clients");
    world.requests.clear();
    assert_eq!(comm(leader), "comet: leader");
}

/// A client that reads nothing delays nobody. It gets all when it reads, also from the next leader, or
/// is cut after 10 s.
#[test]
fn slow_reader_delays_nobody() {
    let _turn = MACHINE.shared();
    let mut world = World::new("slow readers", 4);
    world.variables[0].1 = "9".into();
    world.all_wait();
    let text = "\"".repeat(MUCH);
    for client in [1, 2] {
        world.requests[client].is_idle = true;
        world.publish_text(client + 1, &text);
    }
    world.await_that("they wait no longer", |world| world.slots() == 2);
    let begin = Instant::now();
    world.publish(4);
    world.await_that("a quick client's answer", |world| world.clients[3].request.is_none());
    world.ask(3, false, Duration::from_secs(60), &[]);
    world.await_that("it joins", |world| world.named("comet: standby") == Some(4));
    world.publish(1);
    world.await_that("the leader's answer", |world| world.clients[0].request.is_none());
    world.await_that("the next leads", |world| world.named("comet: leader") == Some(4));
    assert!(begin.elapsed() < PATIENCE / 3, "{:?}", begin.elapsed());
    let mut received = Vec::new();
    let mut output = world.requests[1].output.take().unwrap();
    await_reading(&mut output, &mut received);
    let received = String::from_utf8(received).unwrap();
    let (_, body) = received.split_once("\r\n\r\n").unwrap();
    let news: News = serde_json::from_str(body).unwrap();
    assert_eq!(news.m["t1"][0].data, text);
    let output = world.requests[2].output.take().unwrap();
    let mut fds = [PollFd::new(&output, PollFlags::empty())];
    let _ = poll(&mut fds, Timespec::try_from(2 * PATIENCE).ok().as_ref());
    assert_eq!(fds[0].revents(), PollFlags::HUP, "it is cut");
    let took = begin.elapsed().as_secs_f64();
    assert!((9.5..13.0).contains(&took), "{took}");
    world.requests.clear();
}

/// Reads to the end.
fn await_reading(output: &mut File, received: &mut Vec<u8>) {
    eventually("the output ends", || match output.read_to_end(received) {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    });
}

/// `TOGETHER_CROWD` sets the size.
#[test]
fn crowd_is_handed_over_whole() {
    let _turn = MACHINE.alone();
    let count = size("TOGETHER_CROWD", 500);
    let mut world = World::new("a crowd", count);
    for client in 0..count {
        world.ask(client, client % 2 == 1, Duration::from_secs(300), &[]);
        if client == 0 {
            world.await_that("it leads", |world| world.named("comet: leader").is_some());
        }
        if client % 32 == 0 || client == count - 1 {
            world.await_that("all join", |world| {
                world.processes.iter().filter(|process| process.ended.is_none()).count() <= 2
            });
        }
    }
    world.await_that("the last has its name", |world| world.named("comet: standby").is_some());
    let standby = world.named("comet: standby").unwrap();
    let pid = world.processes[standby].child.id();
    let leader = world.processes[world.named("comet: leader").unwrap()].child.id();
    // The kernel's records of the leader's last moments are gone with it.
    let begin = Instant::now();
    let _ = kill_process(Pid::from_raw(leader.try_into().unwrap()).unwrap(), Signal::TERM);
    while comm(pid) != "comet: leader" {
        assert!(begin.elapsed() < PATIENCE);
        thread::sleep(Duration::from_micros(100));
    }
    let handed = begin.elapsed();
    world.publish(0);
    world.await_that("all hear of it", |world| {
        world.clients[1..].iter().all(|client| client.heard[0] == 1)
    });
    say(&format!(
        "{count} handed over in {handed:.1?}, and all answered after {:.1?}\n",
        begin.elapsed()
    ));
}

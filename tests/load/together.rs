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
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use novcomet::event::{Cursor, Message};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::support::binary::Store;
use crate::support::turn::MACHINE;

/// How much later than its time a client may have its answer, on a busy machine.
const GRACE: Duration = Duration::from_secs(2);
/// The time within which every client has the last message.
const PATIENCE: Duration = Duration::from_secs(15);
/// The last message of each topic.
const END: &str = "end";
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
    is_refused: bool,
    is_complete: bool,
}

/// A process of a request.
struct Process {
    child: Child,
    /// Its name and its status, when it has ended.
    ended: Option<(String, ExitStatus)>,
    is_stopped: bool,
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
        let query = format!("publish={}&data={text}", Self::topic(number));
        assert_eq!(self.store.query(&query).answer().body, "true", "{}", self.name);
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
        let (ours, theirs): (OwnedFd, OwnedFd) = if self.by_socket {
            let (ours, theirs) = UnixStream::pair().unwrap();
            call.command.stdin(Stdio::from(OwnedFd::from(theirs.try_clone().unwrap())));
            (ours.into(), theirs.into())
        } else {
            let (ours, theirs) = io::pipe().unwrap();
            call.command.stdin(Stdio::null());
            (ours.into(), theirs.into())
        };
        fcntl_setfl(&ours, OFlags::NONBLOCK).unwrap();
        call.command.stdout(Stdio::from(theirs)).stderr(Stdio::null());
        let begun = Instant::now();
        let child = call.command.spawn().unwrap();
        // Its own copies of the other end are closed with it.
        drop(call);
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
            is_refused: false,
            is_complete: false,
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
            let outputs = self.requests.iter().filter_map(|request| request.output.as_ref());
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
        self.assert_punctual();
    }

    fn read(&mut self, index: usize) {
        let request = &mut self.requests[index];
        let Some(output) = &mut request.output else { return };
        let mut buffer = [0; 65_536];
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
                request.is_refused = head.contains("\r\nRetry-After: ");
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

    /// Whether its process was killed, or told to end before it listened to that, or a process
    /// that may have led was killed.
    fn may_be_cut(&mut self, process: usize, _begun: Instant) -> bool {
        self.reap();
        self.processes.iter().enumerate().any(|(index, it)| match &it.ended {
            Some((name, status)) => {
                let led =
                    name == "comet: leader" || name == "comet: standby" || name == "comet: member";
                status.signal() == Some(9) && (led || index == process)
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
                process.ended = Some((name, status));
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
    let seeds = match env::var("TOGETHER_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let first = usize::try_from(std::process::id()).unwrap() * 100_000;
            (0..size("TOGETHER_ROUNDS", 60)).map(|round| first + round).collect()
        }
    };
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

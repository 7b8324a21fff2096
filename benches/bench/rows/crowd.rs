//! One publish to many subscribers.

use std::fmt::Display;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use super::wake::touch;
use crate::arrivals;
use crate::figures::{Samples, Time, head, line, point, ratio};
use crate::peers::{Peer, await_nchan, mod_php, nchan, pushpin};
use crate::support::server::{Kind, Server};
use crate::worlds::{Talk, bare_server, in_c, more_descriptors, roomy};

const CROWDS: [usize; 5] = [1, 10, 100, 1_000, 2_000];
const ROUNDS: usize = 5;

/// The requests to wait by a poll or by a stream, and to publish.
pub struct Targets {
    pub poll: &'static str,
    pub stream: &'static str,
    pub publish: &'static str,
}

pub const OURS: Targets = Targets {
    poll: "/comet.cgi?subscribed[a]=0",
    stream: "/comet.cgi?subscribed[a]=0&stream=1",
    publish: "/comet.cgi?publish=a&data=hello",
};
pub const NCHAN: Targets =
    Targets { poll: "/poll?id=a", stream: "/stream?id=a", publish: "POST /pub?id=a hello" };
const PUSHPIN: Targets = Targets {
    poll: "/response",
    stream: "/stream",
    publish: "POST /publish/ {\"items\":[{\"channel\":\"test\",\"formats\":\
        {\"http-stream\":{\"content\":\"hello\\n\"},\"http-response\":{\"body\":\"hello\\n\"}}}]}",
};

/// The programs that are compared.
struct Contenders {
    ours: [Server; 2],
    nchan: Peer,
    pushpin: Peer,
}

pub fn row() {
    more_descriptors();
    let start = |kind| roomy(kind).option("NOVCOMET_SLEEP", "600").option("NOVCOMET_TRIES", "1");
    let contenders = Contenders {
        ours: [Kind::ApacheEvent, Kind::Lighttpd].map(|kind| start(kind).start()),
        nchan: nchan(),
        pushpin: pushpin(),
    };
    for (way, name) in [(false, "poll"), (true, "stream")] {
        let title = format!("one publish to … by {name}");
        head(&[&title, "Apache", "lighttpd", "nchan", "Pushpin", "Apache/nchan", "lighttpd/nchan"]);
        for crowd in CROWDS {
            of_a_size(&contenders, crowd, way, name);
        }
        println!();
    }
    println!("(median, its middle half, and the last; {ROUNDS} rounds in turn)\n");
    floor();
    php();
}

/// The part of lighttpd and the kernel in any CGI: a C program in place of ours.
fn floor() {
    let (_built, wait_c) = in_c("wait");
    let server = bare_server(roomy(Kind::Lighttpd), &wait_c);
    let event = server.event_file("a");
    head(&["one touch to … of a C CGI under lighttpd", "median, its middle half", "last"]);
    for crowd in CROWDS {
        let mut rounds = Rounds::default();
        for _ in 0..ROUNDS {
            let waiting = wait(&OURS, server.port(), crowd, false);
            // These processes wait for a signal, which `await_waiters` does not detect.
            server.await_processes(crowd);
            thread::sleep(Duration::from_millis(500));
            rounds.add(arrivals::of(waiting, || touch(&event)));
            server.await_nobody();
        }
        let (samples, last) = rounds.done();
        assert_eq!(samples.len(), ROUNDS * crowd);
        line(&[&crowd, &samples, &Time(last.median())]);
        point("crowd-floor", crowd, &[samples.median()]);
    }
    println!();
}

fn of_a_size(contenders: &Contenders, crowd: usize, is_stream: bool, name: &str) {
    let mut all: [Rounds; 4] = Default::default();
    for _ in 0..ROUNDS {
        for (server, rounds) in contenders.ours.iter().zip(&mut all) {
            rounds.add(ours(server, crowd, is_stream));
        }
        let (nchan, pushpin) = (&contenders.nchan, &contenders.pushpin);
        all[2].add(theirs(&NCHAN, nchan, crowd, is_stream, || await_nchan(nchan, crowd)));
        // Pushpin does not report its number of subscribers.
        let pause = Duration::from_millis(1_500) + Duration::from_millis(3) * clamped(crowd);
        let settled = || thread::sleep(pause);
        all[3].add(theirs(&PUSHPIN, pushpin, crowd, is_stream, settled));
    }
    let all = all.map(Rounds::done);
    let [apache, lighttpd, nchan, pushpin] = &all;
    let to_nchan = |(ours, _): &(Samples, _)| format!("{:.1}", ratio(ours, &nchan.0));
    let cell = |(samples, last): &(Samples, Samples)| {
        let missing = ROUNDS * crowd - samples.len();
        let lost = if missing == 0 { String::new() } else { format!(", {missing} not at all") };
        format!("{samples}, {}{lost}", Time(last.median()))
    };
    let cells: [&dyn Display; 7] = [
        &crowd,
        &cell(apache),
        &cell(lighttpd),
        &cell(nchan),
        &cell(pushpin),
        &to_nchan(apache),
        &to_nchan(lighttpd),
    ];
    line(&cells);
    let medians: Vec<_> = all.iter().map(|(samples, _)| samples.median()).collect();
    point(&format!("crowd-{name}"), crowd, &medians);
}

/// The time of every subscriber in every round, and the last of each round.
#[derive(Default)]
struct Rounds {
    all: Vec<Duration>,
    last: Vec<Duration>,
}

impl Rounds {
    fn add(&mut self, times: Vec<Duration>) {
        self.last.extend(times.iter().max());
        self.all.extend(times);
    }

    fn done(self) -> (Samples, Samples) {
        (Samples::new(self.all), Samples::new(self.last))
    }
}

pub fn ours(server: &Server, crowd: usize, is_stream: bool) -> Vec<Duration> {
    ours_by(server, &OURS, crowd, is_stream)
}

pub fn ours_by(server: &Server, targets: &Targets, crowd: usize, is_stream: bool) -> Vec<Duration> {
    let waiting = wait(targets, server.port(), crowd, is_stream);
    server.await_waiters(crowd);
    let times = arrivals::of(waiting, || published(server.port(), targets.publish));
    assert_eq!(times.len(), crowd, "an event is lost");
    // Apache does not report that the client of a stream has disconnected.
    server.terminate_waiters();
    server.await_nobody();
    times
}

pub fn theirs(
    targets: &Targets,
    peer: &Peer,
    crowd: usize,
    is_stream: bool,
    settled: impl Fn(),
) -> Vec<Duration> {
    let waiting = wait(targets, peer.port, crowd, is_stream);
    settled();
    arrivals::of(waiting, || published(peer.control, targets.publish))
}

fn wait(targets: &Targets, port: u16, crowd: usize, is_stream: bool) -> Vec<TcpStream> {
    let target = if is_stream { targets.stream } else { targets.poll };
    (0..crowd).map(|_| Talk::send(port, target).0).collect()
}

pub fn published(port: u16, target: &str) {
    Talk::send(port, target).reply();
}

fn clamped(crowd: usize) -> u32 {
    u32::try_from(crowd).unwrap_or(u32::MAX)
}

/// One process per subscriber, which sleeps and reads in turn.
fn php() {
    let peer = mod_php(256);
    head(&["the PHP of 2011, one publish to …", "median, its middle half", "last"]);
    for crowd in [1, 10, 100] {
        let target = format!("/comet.php?subscribed[a{crowd}]=0");
        let waiting = (0..crowd).map(|_| Talk::send(peer.port, &target).0).collect();
        thread::sleep(Duration::from_millis(3_100));
        let publish = || published(peer.port, &format!("/comet.php?publish=a{crowd}"));
        let samples = Samples::new(arrivals::of(waiting, publish));
        line(&[&crowd, &samples, &Time(samples.last())]);
    }
}

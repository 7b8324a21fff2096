//! One publish and many who wait for it.

use std::io::{ErrorKind, Read};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::figures::{Samples, Time, head, line};
use crate::support::{Kind, SOURCE, Server};
use crate::worlds::{Talk, mod_php, nchan};

const CROWDS: [usize; 5] = [1, 10, 100, 1_000, 2_000];
const ROUNDS: usize = 3;

pub fn row() {
    let pid = std::process::id().to_string();
    let status = Command::new("prlimit").args(["--pid", &pid, "--nofile=16384:16384"]).status();
    assert!(status.unwrap().success());
    head(&[
        "one publish to",
        "poll: ours, Apache",
        "ours, lighttpd",
        "nchan",
        "stream: ours, Apache",
        "ours, lighttpd",
        "nchan",
    ]);
    for crowd in CROWDS {
        let mut cells = vec![format!("{crowd}")];
        for way in ["", "&stream=1"] {
            for kind in [Kind::ApacheEvent, Kind::Lighttpd] {
                cells.push(ours(kind, crowd, way));
            }
            cells.push(theirs(crowd, if way.is_empty() { "poll" } else { "stream" }));
        }
        let cells: Vec<&dyn std::fmt::Display> = cells.iter().map(|cell| cell as _).collect();
        line(&cells);
    }
    println!("\n(median / last; the best of {ROUNDS} rounds by the median)\n");
    php();
}

fn ours(kind: Kind, crowd: usize, way: &str) -> String {
    let sizes = match kind {
        Kind::Lighttpd => String::new(),
        _ => format!("Include {SOURCE}/apache-conf/novcomet-mpm.conf"),
    };
    let setup = Server::setup(kind).option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0").lines(&sizes);
    let server = setup.option("NOVCOMET_SLEEP", "600").option("NOVCOMET_TRIES", "1").start();
    best((0..ROUNDS).map(|_| {
        let target = format!("/comet.cgi?subscribed[a]=0{way}");
        let waiting = (0..crowd).map(|_| Talk::send(server.port(), &target)).collect();
        server.await_waiters(crowd);
        let samples =
            one_publish(waiting, || Talk::send(server.port(), "/comet.cgi?publish=a&data=x"));
        server.await_waiters(0);
        samples
    }))
}

fn theirs(crowd: usize, way: &str) -> String {
    let peer = nchan();
    best((0..ROUNDS).map(|round| {
        let target = format!("/{way}?id={way}{round}");
        let waiting = (0..crowd).map(|_| Talk::send(peer.port, &target)).collect();
        std::thread::sleep(Duration::from_millis(500));
        one_publish(waiting, || Talk::send(peer.port, &format!("POST /pub?id={way}{round}")))
    }))
}

fn best(rounds: impl Iterator<Item = Samples>) -> String {
    let best = rounds.min_by_key(Samples::median).expect("a round");
    format!("{} / {}", Time(best.median()), Time(best.last()))
}

/// When each of `waiting` has something of the event.
fn one_publish(waiting: Vec<Talk>, publish: impl Fn() -> Talk) -> Samples {
    let mut waiting: Vec<_> = waiting.into_iter().map(|talk| (talk, String::new())).collect();
    for (talk, text) in &mut waiting {
        talk.0.set_nonblocking(true).unwrap();
        take(talk, text);
        text.clear();
    }
    let begin = Instant::now();
    let published = publish();
    let mut times = Vec::new();
    let mut done = Vec::new();
    while !waiting.is_empty() {
        let mut fds: Vec<_> =
            waiting.iter().map(|(talk, _)| PollFd::new(&talk.0, PollFlags::IN)).collect();
        poll(&mut fds, None).unwrap();
        let now = begin.elapsed();
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        for index in (0..ready.len()).rev().filter(|&index| ready[index]) {
            let (talk, text) = &mut waiting[index];
            take(talk, text);
            // An answer, or an event of a stream.
            if text.contains("HTTP/1.1 200") || text.contains("data:") {
                times.push(now);
                done.push(waiting.swap_remove(index));
            }
        }
    }
    published.reply();
    Samples::new(times)
}

/// What has come so far.
fn take(talk: &mut Talk, text: &mut String) {
    let mut bytes = [0; 4096];
    loop {
        match talk.0.read(&mut bytes) {
            Ok(0) => return,
            Ok(read) => text.push_str(&String::from_utf8_lossy(&bytes[..read])),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A process each, which sleeps and looks.
fn php() {
    let peer = mod_php(256);
    for crowd in [1, 10, 100] {
        let target = format!("/comet.php?subscribed[a{crowd}]=0");
        let waiting = (0..crowd).map(|_| Talk::send(peer.port, &target)).collect();
        std::thread::sleep(Duration::from_millis(3_100));
        let publish = || Talk::send(peer.port, &format!("/comet.php?publish=a{crowd}"));
        let samples = one_publish(waiting, publish);
        println!(
            "The PHP of 2011, {crowd}: {} / {}\n",
            Time(samples.median()),
            Time(samples.last())
        );
    }
}

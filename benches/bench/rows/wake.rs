//! From a publish to the answer of a waiting subscriber.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens, inotify};

use super::start::ours;
use crate::figures::{Samples, Time, head, line, ratio};
use crate::peers::{Peer, await_nchan, mod_php, nchan};
use crate::support::server::{Kind, Server};
use crate::worlds::{Scratch, Talk, bare_server, in_c};

const ROUNDS: usize = 300;
/// The PHP sleeps two seconds at a time, so each publish comes at another moment of them.
const SLOW_ROUNDS: u64 = 10;

pub fn row() {
    head(&["publish → answer, one waiter", "ours", "peer", "ratio"]);
    let (_built, bare) = in_c("bare");
    for kind in [Kind::ApacheEvent, Kind::Lighttpd] {
        let (server, bare) = (Server::start(kind), bare_server(Server::setup(kind), &bare));
        through(&format!("{kind:?}; two bare C CGI runs"), &server, || twice(&bare));
        by_touch(kind, &server);
    }
    let server = Server::start(Kind::Lighttpd);
    let peer = nchan();
    through("Lighttpd; nchan", &server, || by_nchan(&peer));
    let php = mod_php(64);
    let theirs = Samples::new((0..SLOW_ROUNDS).map(|round| by_php(&php, round)).collect());
    line(&[&"the PHP of 2011 under mod_php", &"", &theirs, &""]);
    println!();
    bare_touch();
}

/// NovComet and the peer in turn.
fn through(name: &str, server: &Server, theirs: impl Fn() -> Duration) {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        a.push(publish(server));
        b.push(theirs());
    }
    let (a, b) = (Samples::new(a), Samples::new(b));
    line(&[&name, &a, &b, &format!("{:.2}", ratio(&a, &b))]);
}

fn waiter(server: &Server) -> Talk {
    let waiter = Talk::send(server.port(), "/comet.cgi?subscribed[a]=0");
    server.await_waiters(1);
    waiter
}

fn publish(server: &Server) -> Duration {
    let waiter = waiter(server);
    let begin = Instant::now();
    let published = Talk::send(server.port(), "/comet.cgi?publish=a");
    assert!(waiter.reply().contains(r#"{"s":1,"#));
    let took = begin.elapsed();
    published.reply();
    server.await_waiters(0);
    took
}

fn by_touch(kind: Kind, server: &Server) {
    let samples = (0..ROUNDS).map(|_| {
        let waiter = waiter(server);
        let begin = Instant::now();
        touch(&server.event_file("a"));
        assert!(waiter.reply().contains(r#"{"s":1,"#));
        begin.elapsed()
    });
    let samples = Samples::new(samples.collect());
    line(&[&format!("{kind:?}, by touch"), &samples, &"", &""]);
}

pub fn touch(path: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let file = File::options().write(true).create(true).truncate(false).open(path).unwrap();
    futimens(&file, &Timestamps { last_access: now, last_modification: now }).unwrap();
}

/// The lower bound of every CGI: one run to publish and one to answer.
fn twice(bare: &Server) -> Duration {
    let begin = Instant::now();
    for _ in 0..2 {
        assert!(Talk::send(bare.port(), "/comet.cgi").reply().contains("true"));
    }
    begin.elapsed()
}

fn by_nchan(peer: &Peer) -> Duration {
    let waiter = Talk::send(peer.port, "/poll?id=a");
    await_nchan(peer, 1);
    let begin = Instant::now();
    let published = Talk::send(peer.port, "POST /pub?id=a");
    waiter.reply();
    let took = begin.elapsed();
    published.reply();
    took
}

fn by_php(peer: &Peer, round: u64) -> Duration {
    let waiter = Talk::send(peer.port, "/comet.php?subscribed[a]=0");
    // It takes an event in the second before its start for news.
    std::thread::sleep(Duration::from_millis(2_100 + round * 2_000 / SLOW_ROUNDS));
    let begin = Instant::now();
    Talk::send(peer.port, "/comet.php?publish=a").reply();
    waiter.reply();
    begin.elapsed()
}

/// Without a server: from `touch` to the bytes of the answer, beside the kernel's own wake-up
/// of a process that waits for inotify.
fn bare_touch() {
    let store = Scratch::new();
    let path = store.0.join("a.comet");
    File::create(&path).unwrap();
    let (mut ours, mut kernels) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(answer_after_touch(&store.0, &path));
        kernels.push(kernels_wake(&path));
    }
    let (ours, kernels) = (Samples::new(ours), Samples::new(kernels));
    let more = ours.median().saturating_sub(kernels.median());
    head(&["touch → answer, no server", "ours", "inotify alone", "more"]);
    line(&[&"one waiter", &ours, &kernels, &Time(more)]);
}

fn answer_after_touch(store: &Path, path: &Path) -> Duration {
    let mut command = ours(store, "subscribed[a]=0");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    await_sleep(&child);
    let begin = Instant::now();
    touch(path);
    let mut answer = String::new();
    child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
    let took = begin.elapsed();
    assert!(answer.contains(r#"{"s":1,"#));
    let _ = child.wait();
    took
}

/// Waits until the process is in ppoll(2).
fn await_sleep(child: &Child) {
    let path = format!("/proc/{}/wchan", child.id());
    while !fs::read_to_string(&path).is_ok_and(|place| place.contains("poll")) {
        std::thread::yield_now();
    }
}

fn kernels_wake(path: &Path) -> Duration {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&watch, path, inotify::WatchFlags::ATTRIB).unwrap();
    let waiting = std::thread::spawn(move || {
        rustix::io::read(&watch, &mut [0; 512]).unwrap();
        Instant::now()
    });
    std::thread::sleep(Duration::from_millis(1));
    let begin = Instant::now();
    touch(path);
    waiting.join().unwrap().saturating_duration_since(begin)
}

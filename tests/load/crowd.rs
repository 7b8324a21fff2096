//! 2,000 subscribers, by poll and by stream, and one publish. The requests go through lighttpd,
//! and through Apache's event MPM with the shipped sizes. The kernel's settings are the
//! defaults: 128 inotify instances per user are fewer than the subscribers.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::SOURCE;
use crate::support::server::{Exchange, Kind, Server, Setup, Stream};
use crate::support::turn::MACHINE;

const CROWD: usize = 2_000;

#[test]
fn apache_event() {
    let sizes = format!("Include {SOURCE}/apache-conf/novcomet-mpm.conf");
    one_publish_answers_everyone(Server::setup(Kind::ApacheEvent).lines(&sizes));
}

#[test]
fn lighttpd() {
    one_publish_answers_everyone(Server::setup(Kind::Lighttpd));
}

fn one_publish_answers_everyone(setup: Setup) {
    // The measured times would mean nothing if other servers used the machine.
    let _turn = MACHINE.alone();
    let _descriptors = Descriptors::allow(CROWD as u64 + 200);
    // There is no periodic read, so only the event itself can wake a subscriber.
    let setup = setup.option("NOVCOMET_TRIES", "1").option("NOVCOMET_SLEEP", "600");
    // All clients have the address 127.0.0.1.
    let server = setup.option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0").start();
    one_round(&server, "an event file that appears");
    one_round(&server, "an event file that is there");
    one_stream_each(&server);
    assert_eq!(server.complaints(), [""; 0]);
}

/// Event streams, which all stay open.
fn one_stream_each(server: &Server) {
    let target = "GET /comet.cgi?subscribed[other]=0&subscribed[crowd]=0&stream=1";
    let crowd: Vec<_> = (0..CROWD).map(|_| server.send(target)).collect();
    let mut crowd: Vec<_> = crowd.into_iter().map(Stream::of).collect();
    assert!(crowd.iter_mut().all(|stream| stream.next().is_some()), "a beginning");
    server.await_waiters(CROWD);

    let published = Instant::now();
    let publish = server.send("GET /comet.cgi?publish=crowd");
    // The streams are read one after the other, because a heartbeat may come before the event.
    // The time of an event is that of its arrival at the latest.
    let arrive = |stream: &mut Stream| (stream.event(), published.elapsed());
    let (events, times): (Vec<_>, Vec<_>) = crowd.iter_mut().map(arrive).unzip();
    assert_eq!(publish.reply().body, "true");

    let first = events[0].as_ref().expect("an open stream");
    assert_eq!(first.field("event").as_deref(), Some("crowd"));
    assert!(events.iter().all(|event| *event == events[0]), "one event, one id: {first:?}");
    report(server.kind(), "streams", &times);
    drop(crowd);
    // The server notices a disconnect at its second write.
    while server.waiters() > 0 {
        server.get("/comet.cgi?publish=crowd");
    }
}

fn one_round(server: &Server, of: &str) {
    let target = "GET /comet.cgi?subscribed[other]=0&subscribed[crowd]=0";
    let crowd: Vec<_> = (0..CROWD).map(|_| server.send(target)).collect();
    server.await_waiters(CROWD);

    let published = Instant::now();
    let publish = server.send("GET /comet.cgi?publish=crowd");
    let times = answer_times(crowd.iter().collect(), published);
    assert_eq!(publish.reply().body, "true");

    let bodies: Vec<_> = crowd.into_iter().map(|exchange| exchange.reply().body).collect();
    assert!(bodies[0].starts_with(r#"{"s":1,"k":{"crowd":"#), "{}", bodies[0]);
    let other = bodies.iter().find(|&body| *body != bodies[0]);
    assert_eq!(other, None, "one event, one cursor: {}", bodies[0]);
    report(server.kind(), of, &times);
}

/// The times of the first bytes of all answers since `begin`, in order.
fn answer_times(mut waiting: Vec<&Exchange>, begin: Instant) -> Vec<Duration> {
    let mut times = Vec::new();
    while !waiting.is_empty() {
        let of = |exchange| PollFd::new(exchange, PollFlags::IN);
        let mut fds: Vec<_> = waiting.iter().copied().map(of).collect();
        poll(&mut fds, None).unwrap();
        let now = begin.elapsed();
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        waiting.retain(|_| !ready.next().unwrap());
        times.resize(CROWD - waiting.len(), now);
    }
    times
}

/// Writes to stderr directly, because the test harness captures printed text.
fn report(kind: Kind, of: &str, times: &[Duration]) {
    let (median, last) = (times[CROWD / 2], times[CROWD - 1]);
    let line = format!("{kind:?}, {of}: {CROWD} answered, median {median:.0?}, last {last:.0?}\n");
    io::stderr().write_all(line.as_bytes()).unwrap();
}

/// The soft limit of this process before it was raised; 1024 on most systems.
struct Descriptors(Rlimit);

impl Descriptors {
    fn allow(count: u64) -> Self {
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(count), ..before }).unwrap();
        Self(before)
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.0).unwrap();
    }
}

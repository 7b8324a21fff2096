//! Usual events of a server's day: reloads, aborted requests, and many held subscribers.
//!
//! `FAULTS_ABORTED` and `FAULTS_HELD` set the numbers. `make soak` uses large ones.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::SOURCE;
use crate::support::server::{Exchange, Kind, Server, Setup, stories};
use crate::support::turn::MACHINE;
use crate::support::wait::eventually;

stories! {
    reload_loses_no_event
    stop_ends_all_waiters
    aborted_requests_leave_no_process
}

const WAITERS: usize = 200;
/// The line that the shipped configuration of lighttpd recommends.
const SOON: &str = r#"server.feature-flags += ( "server.graceful-shutdown-timeout" => 1 )"#;
/// The time within which lighttpd serves again after a reload, with that line.
const BACK: Duration = Duration::from_secs(6);

fn size(name: &str, default: usize) -> usize {
    env::var(name).ok().and_then(|size| size.parse().ok()).unwrap_or(default)
}

/// The shipped sizes, for clients that all have one address.
fn roomy(kind: Kind) -> Setup {
    let setup = Server::setup(kind).option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0");
    match kind {
        Kind::Lighttpd => setup.lines(SOON),
        _ => setup.lines(&format!("Include {SOURCE}/apache-conf/novcomet-mpm.conf")),
    }
}

fn reload_loses_no_event(kind: Kind) {
    let _turn = MACHINE.shared();
    let server = roomy(kind).start();
    let target = "GET /comet.cgi?subscribed[a]=0.1";
    let waiters: Vec<_> = (0..WAITERS).map(|_| server.send(target)).collect();
    server.await_waiters(WAITERS);
    // A waiter has received the event or its connection was closed. It would return with its
    // cursor.
    let ends = thread::spawn(|| waiters.into_iter().all(Exchange::ends));
    let reload = Instant::now();
    server.signal("USR1");
    let reply = server.until_answered("GET /comet.cgi?publish=a");
    assert_eq!(reply.body, "true");
    if kind == Kind::Lighttpd {
        assert!(reload.elapsed() < BACK, "{:?}", reload.elapsed());
    }
    assert!(ends.join().unwrap());
    let late = server.until_answered(target);
    assert!(late.body.starts_with(r#"{"s":1,"k":{"a":"#), "{late:?}");
    server.await_nobody();
}

/// Every poll is answered and every stream ends, and no process remains.
fn stop_ends_all_waiters(kind: Kind) {
    let _turn = MACHINE.shared();
    let mut server = roomy(kind).start();
    let way = |number: usize| if number % 2 == 0 { "" } else { "&stream=1" };
    let target = |number| format!("GET /comet.cgi?subscribed[a]=0.1{}", way(number));
    let waiters: Vec<_> = (0..WAITERS).map(|number| server.send(&target(number))).collect();
    server.await_waiters(WAITERS);
    let took = server.stop();
    assert!(took < BACK, "{took:?}");
    server.await_nobody();
    assert!(waiters.into_iter().all(Exchange::ends));
}

fn aborted_requests_leave_no_process(kind: Kind) {
    let _turn = MACHINE.shared();
    let server = roomy(kind).option("NOVCOMET_SLEEP", "1").option("NOVCOMET_TRIES", "1").start();
    let aborted = size("FAULTS_ABORTED", 300);
    for number in 0..aborted {
        let way = if number % 2 == 0 { "" } else { "&stream=1&wait=1" };
        drop(server.send(&format!("GET /comet.cgi?subscribed[a]=0{way}")));
        // At most as many at once as the server has room for.
        if number % 100 == 99 {
            server.await_nobody();
        }
    }
    server.await_nobody();
    assert_eq!(server.get("/comet.cgi?publish=a").body, "true");
    assert_eq!(server.complaints(), [""; 0]);
}

// Without a server.

/// The processes are killed when this value is dropped.
struct Crowd(Vec<Child>);

impl Crowd {
    fn start(store: &str, count: usize) -> Self {
        let start = |_| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_comet"));
            command.env_clear().env("NOVCOMET_STORE", store).env("NOVCOMET_SLEEP", "3600");
            command.env("QUERY_STRING", "subscribed[a]=0.1").process_group(0);
            command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap()
        };
        Self((0..count).map(start).collect())
    }

    fn read(&self, file: &str) -> Vec<String> {
        let of = |child: &Child| fs::read_to_string(format!("/proc/{}/{file}", child.id()));
        self.0.iter().filter_map(|child| of(child).ok()).collect()
    }

    /// The processor time of all of them, in milliseconds.
    fn cpu(&self) -> u64 {
        let first = |text: &String| text.split(' ').next()?.parse::<u64>().ok();
        self.read("schedstat").iter().filter_map(first).sum::<u64>() / 1_000_000
    }

    /// The median of their proportional set sizes, in kB.
    fn pss(&self) -> u64 {
        let pss = |text: &String| {
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            line.trim().strip_suffix(" kB")?.parse().ok()
        };
        let mut all: Vec<u64> = self.read("smaps_rollup").iter().filter_map(pss).collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(0)
    }

    fn await_sleep(&self) {
        let asleep = |text: &String| text.contains("poll");
        eventually("each process of the crowd sleeps", || {
            self.read("wchan").iter().filter(|text| asleep(text)).count() == self.0.len()
        });
    }

    fn await_end(mut self) {
        for child in self.0.drain(..) {
            assert!(child.wait_with_output().unwrap().status.success());
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Far more waiters than a user has inotify instances.
#[test]
fn held_subscribers_are_idle_until_event() {
    let _turn = MACHINE.shared();
    let server = Server::start(Kind::Lighttpd);
    let store = format!("file://{}", server.store().display());
    let crowd = Crowd::start(&store, size("FAULTS_HELD", 500));
    crowd.await_sleep();
    let (begin, before) = (Instant::now(), crowd.cpu());
    thread::sleep(Duration::from_secs(1));
    let (span, cpu) = (begin.elapsed(), crowd.cpu() - before);
    let line = format!(
        "{} waiters held: PSS {} kB each (median), {cpu} ms of processor time in {span:.0?}\n",
        crowd.0.len(),
        crowd.pss(),
    );
    io::stderr().write_all(line.as_bytes()).unwrap();
    let publish = Instant::now();
    assert_eq!(server.get("/comet.cgi?publish=a").body, "true");
    crowd.await_end();
    let line = format!("all woken and gone after {:.0?}\n", publish.elapsed());
    io::stderr().write_all(line.as_bytes()).unwrap();
}

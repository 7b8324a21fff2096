//! What those cost who wait and hear nothing.

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::start::ours;
use crate::figures::{head, line};
use crate::support::{Kind, SOURCE, Server};
use crate::worlds::{Scratch, Talk};

const IDLE: usize = 1_000;
const SPAN: Duration = Duration::from_secs(60);
const BUSY_SPAN: Duration = Duration::from_secs(10);

/// Processes that wait, killed when it is dropped.
struct Waiters(Vec<Child>);

impl Waiters {
    fn start(store: &Scratch, count: usize) -> Self {
        let start = |number: usize| {
            let mut command = ours(&store.0, &format!("subscribed[idle{}]=0", number % 10));
            command.env("NOVCOMET_SLEEP", "40").env("NOVCOMET_TRIES", "10");
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
        };
        let waiters = Self((0..count).map(start).collect());
        waiters.await_sleep();
        waiters
    }

    fn await_sleep(&self) {
        for child in &self.0 {
            let path = format!("/proc/{}/wchan", child.id());
            while !fs::read_to_string(&path).is_ok_and(|place| place.contains("poll")) {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Processor time of all of them so far, in seconds.
    #[allow(clippy::cast_precision_loss)]
    fn cpu(&self) -> f64 {
        let nanoseconds = |child: &Child| {
            let schedstat = fs::read_to_string(format!("/proc/{}/schedstat", child.id()));
            let first = schedstat.unwrap().split(' ').next().map(str::parse::<u64>);
            first.unwrap().unwrap() as f64
        };
        self.0.iter().map(nanoseconds).sum::<f64>() / 1e9
    }

    /// The median of their proportional set sizes, in kB.
    fn pss(&self) -> u64 {
        let mut all: Vec<_> = self.0.iter().map(|child| pss(child.id())).collect();
        all.sort_unstable();
        all[all.len() / 2]
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn pss(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap_or(0))
}

pub fn busy_neighbour() {
    let store = Scratch::new("idle");
    let waiters = Waiters::start(&store, IDLE);
    let quiet = share_of_a_core(&waiters, SPAN, || thread::sleep(Duration::from_millis(100)));
    let publish = || {
        let mut command = ours(&store.0, "publish=busy");
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
        thread::sleep(Duration::from_millis(50));
    };
    let busy = share_of_a_core(&waiters, BUSY_SPAN, publish);
    head(&["1,000 idle waiters of one user, share of a core in all", ""]);
    line(&[&"nothing happens", &format!("{quiet:.3} %")]);
    line(&[&"some 20 publishes a second to another topic", &format!("{busy:.2} %")]);
}

fn share_of_a_core(waiters: &Waiters, span: Duration, meanwhile: impl Fn()) -> f64 {
    let (begin, before) = (Instant::now(), waiters.cpu());
    while begin.elapsed() < span {
        meanwhile();
    }
    (waiters.cpu() - before) / begin.elapsed().as_secs_f64() * 100.0
}

/// Memory that the machine has left (`MemAvailable`), in kB.
fn available() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
}

pub fn memory() {
    head(&["memory of a waiter", "PSS", "all that the machine loses"]);
    for kind in [Kind::ApacheEvent, Kind::Lighttpd] {
        let sizes = match kind {
            Kind::Lighttpd => String::new(),
            _ => format!("Include {SOURCE}/apache-conf/novcomet-mpm.conf"),
        };
        let server = Server::setup(kind)
            .option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0")
            .lines(&sizes)
            .start();
        let before = available();
        let target = "/comet.cgi?subscribed[a]=0";
        let waiting: Vec<_> = (0..IDLE).map(|_| Talk::send(server.port(), target)).collect();
        server.await_waiters(IDLE);
        let lost = before.saturating_sub(available()) / IDLE as u64;
        line(&[&format!("{kind:?}"), &"", &format!("{lost} kB")]);
        drop(waiting);
    }
    let store = Scratch::new("memory");
    let (before, waiters) = (available(), Waiters::start(&store, IDLE));
    let lost = before.saturating_sub(available()) / IDLE as u64;
    line(&[&"direct", &format!("{} kB", waiters.pss()), &format!("{lost} kB")]);
}

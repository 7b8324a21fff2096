//! The cost of subscribers that receive nothing.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use super::start::ours;
use super::wake::touch;
use crate::figures::{head, line};
use crate::peers::mod_php;
use crate::waiters::{Usage, Waiters};
use crate::worlds::{Scratch, Talk, more_descriptors};

const IDLE: usize = 1_000;
const SPAN: Duration = Duration::from_secs(60);
const BUSY_SPAN: Duration = Duration::from_secs(20);
/// The time between two publishes to the busy topic.
const PAUSE: Duration = Duration::from_millis(50);

pub fn row() {
    more_descriptors();
    head(&["1,000 subscribers of other topics, all of one user", "a core in all", "wake-ups"]);
    let quiet = || thread::sleep(Duration::from_secs(1));
    for (name, sleep) in [("a look every 2 s", "2"), ("a look every 10 minutes", "600")] {
        of_ours(&format!("nothing happens, {name}"), sleep, 10, SPAN, &|_| quiet());
    }
    for topics in [10, IDLE] {
        let name = format!("20 publishes a second to another topic; they wait for {topics}");
        of_ours(&name, "600", topics, BUSY_SPAN, &publish);
    }
    of_ours("20 of touch(1) to another topic; they wait for 10", "600", 10, BUSY_SPAN, &|store| {
        touch(&store.0.join("busy.comet"));
        thread::sleep(PAUSE);
    });
    {
        let _more = Instances::raise();
        let name = "20 publishes a second; fs.inotify.max_user_instances = 4096";
        of_ours(name, "600", 10, BUSY_SPAN, &publish);
    }
    let peer = mod_php(IDLE + 8);
    let target = |number| format!("/comet.php?subscribed[a{}]=0", number % 10);
    let waiting: Vec<_> = (0..IDLE).map(|number| Talk::send(peer.port, &target(number))).collect();
    // Apache starts its processes by the dozen.
    while peer.pids().len() < IDLE {
        thread::sleep(Duration::from_secs(1));
    }
    // Their wait ends after 40 s.
    show("the PHP of 2011, a look every 2 s", &peer.pids(), SPAN / 4, quiet);
    drop(waiting);
}

fn publish(store: &Scratch) {
    let mut command = ours(&store.0, "publish=busy&data=x");
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    thread::sleep(PAUSE);
}

/// Allows as many inotify instances per user as there are waiters, until it is dropped.
struct Instances(String);

impl Instances {
    const SETTING: &str = "/proc/sys/fs/inotify/max_user_instances";

    fn raise() -> Self {
        let before = fs::read_to_string(Self::SETTING).unwrap();
        if let Err(error) = fs::write(Self::SETTING, "4096") {
            println!("(the next is as the last, for {}: {error})", Self::SETTING);
        }
        Self(before)
    }
}

impl Drop for Instances {
    fn drop(&mut self) {
        let _ = fs::write(Self::SETTING, &self.0);
    }
}

fn of_ours(name: &str, sleep: &str, topics: usize, span: Duration, meanwhile: &dyn Fn(&Scratch)) {
    let store = Scratch::new();
    let topics: Vec<_> = (0..topics).map(|number| format!("idle{number}")).collect();
    let waiters = Waiters::start(&store, IDLE, &topics, sleep);
    show(name, &waiters.pids(), span, || meanwhile(&store));
}

fn show(name: &str, pids: &[u32], span: Duration, meanwhile: impl Fn()) {
    let (begin, before) = (Instant::now(), Usage::of(pids));
    while begin.elapsed() < span {
        meanwhile();
    }
    let (after, seconds) = (Usage::of(pids), begin.elapsed().as_secs_f64());
    let share = (after.cpu - before.cpu) / seconds * 100.0;
    #[allow(clippy::cast_precision_loss)]
    let wakes = (after.sleeps - before.sleeps) as f64 / seconds;
    line(&[&name, &format!("{share:.2} %"), &format!("{wakes:.0} a second")]);
}

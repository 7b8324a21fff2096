//! Subscribers without a server: waiting processes.

use std::fs;
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::Duration;

use crate::rows::start::ours;
use crate::worlds::Scratch;

/// The processes are killed when this value is dropped.
pub struct Waiters(Vec<Child>);

impl Waiters {
    /// Starts this number of processes, on these topics in turn. Each reads every `sleep`
    /// seconds.
    pub fn start(store: &Scratch, count: usize, topics: &[String], sleep: &str) -> Self {
        let start = |number: usize| {
            let query = format!("subscribed[{}]=0", topics[number % topics.len()]);
            let mut command = ours(&store.0, &query);
            command.env("NOVCOMET_SLEEP", sleep).env("NOVCOMET_TRIES", "1000");
            command.env("NOVCOMET_MAX_WAITERS", "0").env("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0");
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

    pub fn pids(&self) -> Vec<u32> {
        self.0.iter().map(Child::id).collect()
    }

    /// Their output from now on.
    pub fn outputs(&mut self) -> Vec<ChildStdout> {
        self.0.iter_mut().filter_map(|child| child.stdout.take()).collect()
    }
}

impl Drop for Waiters {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

/// The resources that some processes have used so far.
#[derive(Clone, Copy)]
pub struct Usage {
    /// Processor time, in seconds.
    pub cpu: f64,
    /// The number of times that they gave up a processor to sleep.
    pub sleeps: u64,
}

impl Usage {
    pub fn of(pids: &[u32]) -> Self {
        let all = pids.iter().map(|pid| (nanoseconds(*pid), sleeps(*pid)));
        let (cpu, sleeps) = all.fold((0, 0), |(a, b), (cpu, sleeps)| (a + cpu, b + sleeps));
        Self { cpu: Duration::from_nanos(cpu).as_secs_f64(), sleeps }
    }
}

fn nanoseconds(pid: u32) -> u64 {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    schedstat.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn sleeps(pid: u32) -> u64 {
    number(&format!("/proc/{pid}/status"), "voluntary_ctxt_switches:")
}

/// The proportional set size of a process, in kB.
pub fn pss(pid: u32) -> u64 {
    number(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

/// The available memory of the machine, in kB. It is read after ended processes are gone and
/// the kernel has released its caches, which needs root.
pub fn available() -> u64 {
    for cache in fs::read_dir("/sys/kernel/slab").into_iter().flatten().flatten() {
        let _ = fs::write(cache.path().join("shrink"), "1");
    }
    let mut look = Vec::new();
    loop {
        look.push(number("/proc/meminfo", "MemAvailable:"));
        match look[..] {
            [.., a, b, c, d] if [a, b, c].iter().all(|it| it.abs_diff(d) < SETTLED) => return d,
            _ => thread::sleep(Duration::from_millis(250)),
        }
    }
}

/// The usual variation, in kB.
const SETTLED: u64 = 500;

/// A number with a name in a file of /proc; 0 if it is not there.
fn number(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let found = text.lines().find_map(|line| line.strip_prefix(name));
    let number = found.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.unwrap_or(0)
}

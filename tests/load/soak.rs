//! Load and random faults for `SOAK_SECONDS` (`make soak`). The resources that the servers hold
//! after a round must not grow from round to round.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use crate::support::process::{kill_one, process_tree};
use crate::support::server::{Exchange, Kind, Server};
use crate::support::turn::MACHINE;

const WAITERS: usize = 40;
const MESSAGES: usize = 40;
/// The first rounds fill pools and caches, which then stay.
const WARM_UP: usize = 3;
const ROUNDS: usize = 9;

/// The resources that the servers hold after a round, when no request waits.
#[derive(Debug, Clone, Copy)]
struct Held {
    processes: usize,
    descriptors: usize,
    /// Resident memory, in kB.
    memory: usize,
    files: usize,
}

#[test]
fn load_and_faults_leave_nothing_behind() {
    let _turn = MACHINE.alone();
    let seconds = env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let span = Duration::from_secs(seconds.unwrap_or(0));
    for kind in [Kind::ApacheEvent, Kind::Lighttpd] {
        let server = start(kind);
        let begin = Instant::now();
        let mut rounds = Vec::new();
        while rounds.len() < WARM_UP + ROUNDS || begin.elapsed() < span {
            round(&server, rounds.len());
            rounds.push(held(&server));
        }
        report(kind, begin.elapsed(), &rounds[WARM_UP..]);
        assert_level(&rounds[WARM_UP..]);
    }
}

fn start(kind: Kind) -> Server {
    let setup = Server::setup(kind).option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0");
    let setup = setup.option("NOVCOMET_KEEP_BYTES", "2000");
    match kind {
        Kind::Lighttpd => setup.start(),
        // The number of processes is fixed. Otherwise it would follow the load.
        _ => setup
            .lines("ServerLimit 2\nStartServers 2\nThreadsPerChild 64\nMaxRequestWorkers 128")
            .lines("MinSpareThreads 1\nMaxSpareThreads 128")
            .start(),
    }
}

/// Some requests wait, some are aborted, and some are killed. Messages are published meanwhile.
fn round(server: &Server, number: usize) {
    let wait = |index: usize| {
        let way = if index % 2 == 0 { "" } else { "&stream=1&wait=1" };
        server.send(&format!("GET /comet.cgi?subscribed[a]=0&subscribed[b]=0{way}"))
    };
    let mut waiters: Vec<_> = (0..WAITERS).map(wait).collect();
    waiters.drain(..WAITERS / 4);
    for index in 0..MESSAGES {
        let topic = ["a", "b"][index % 2];
        drop(server.get(&format!("/comet.cgi?publish={topic}&data={number}-{index}")));
        if index % 8 == 0 {
            kill_one(&[server.program()], "subscribed", |count| index % count);
        }
    }
    assert!(waiters.into_iter().all(Exchange::ends));
    drop(server.get("/comet.cgi?publish=a"));
    server.await_nobody();
}

fn held(server: &Server) -> Held {
    let tree = process_tree(server.pid());
    let status = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident = |pid: &u32| {
        let status = status(pid);
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or(0)
    };
    let descriptors =
        |pid: &u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    Held {
        processes: tree.len(),
        descriptors: tree.iter().map(descriptors).sum(),
        memory: tree.iter().map(resident).sum(),
        files: fs::read_dir(server.store()).unwrap().count(),
    }
}

/// The smallest values of the first third and of the last third.
fn ends(rounds: &[Held], of: impl Fn(&Held) -> usize) -> (usize, usize) {
    let third = rounds.len() / 3;
    let least = |part: &[Held]| part.iter().map(&of).min().unwrap();
    (least(&rounds[..third]), least(&rounds[rounds.len() - third..]))
}

fn assert_level(rounds: &[Held]) {
    for (name, of, slack) in [
        ("processes", (|held| held.processes) as fn(&Held) -> usize, 0),
        ("descriptors", |held| held.descriptors, 4),
        ("files", |held| held.files, 2),
        ("memory", |held| held.memory, 2_000),
    ] {
        let (first, last) = ends(rounds, of);
        assert!(last <= first + slack, "{name} grew from {first} to {last}: {rounds:?}");
    }
}

fn report(kind: Kind, span: Duration, rounds: &[Held]) {
    let line = format!(
        "{kind:?}, {} rounds in {span:.0?} (least of the first and of the last third): \
         processes {:?}, descriptors {:?}, kB resident {:?}, files {:?}\n",
        rounds.len(),
        ends(rounds, |held| held.processes),
        ends(rounds, |held| held.descriptors),
        ends(rounds, |held| held.memory),
        ends(rounds, |held| held.files),
    );
    io::stderr().write_all(line.as_bytes()).unwrap();
}

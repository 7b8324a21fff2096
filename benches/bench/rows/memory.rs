//! What a waiter takes of the machine's memory.

use std::thread;
use std::time::Duration;

use crate::figures::{head, line};
use crate::peers::{Peer, mod_php, nchan};
use crate::support::{Kind, process_tree};
use crate::waiters::{Waiters, available, pss};
use crate::worlds::{Scratch, Talk, more_descriptors, roomy};

const WAITERS: usize = 1_000;

pub fn row() {
    more_descriptors();
    head(&["memory of a waiter", "PSS of its process", "all that the machine loses"]);
    for kind in [Kind::ApacheEvent, Kind::Lighttpd] {
        through(kind);
    }
    let store = Scratch::new("memory");
    let before = available();
    let waiters = Waiters::start(&store, WAITERS, &["a".to_owned()], "600");
    show("ours, no server", &waiters.pids(), before);
    drop(waiters);
    let (php, nchan) = (mod_php(WAITERS + 8), nchan());
    held("the PHP of 2011, mod_php", &php, "/comet.php?subscribed[a]=0", WAITERS);
    held("nchan (no process of its own)", &nchan, "/poll?id=a", 2);
}

fn through(kind: Kind) {
    let server = roomy(kind).start();
    let before = available();
    let target = "/comet.cgi?subscribed[a]=0";
    let _waiting: Vec<_> = (0..WAITERS).map(|_| Talk::send(server.port(), target)).collect();
    server.await_waiters(WAITERS);
    let cgis: Vec<_> = process_tree(server.pid()).into_iter().filter(|pid| is_ours(*pid)).collect();
    show(&format!("ours, {kind:?}"), &cgis, before);
}

fn is_ours(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim() == "comet.cgi")
}

/// Once `processes` are there to hold them.
fn held(name: &str, peer: &Peer, target: &str, processes: usize) {
    let before = available();
    let _waiting: Vec<_> = (0..WAITERS).map(|_| Talk::send(peer.port, target)).collect();
    while peer.pids().len() < processes {
        thread::sleep(Duration::from_millis(200));
    }
    thread::sleep(Duration::from_secs(2));
    let pids = if processes < WAITERS { Vec::new() } else { peer.pids() };
    show(name, &pids, before);
}

fn show(name: &str, pids: &[u32], before: u64) {
    let lost = before.saturating_sub(available()) / WAITERS as u64;
    let mut all: Vec<_> = pids.iter().map(|pid| pss(*pid)).collect();
    all.sort_unstable();
    let median = all.get(all.len() / 2).map_or(String::new(), |pss| format!("{pss} kB"));
    line(&[&name, &median, &format!("{lost} kB")]);
}

//! The memory that a waiter uses.

use std::thread;
use std::time::Duration;

use crate::figures::{head, line};
use crate::peers::mod_php;
use crate::support::process::process_tree;
use crate::support::server::Kind;
use crate::waiters::{Waiters, pss};
use crate::worlds::{Scratch, Talk, more_descriptors, roomy};

const WAITERS: usize = 1_000;

pub fn row() {
    more_descriptors();
    head(&["1,000 waiting subscribers", "PSS of a process, median"]);
    for kind in [Kind::ApacheEvent, Kind::Lighttpd] {
        through(kind);
    }
    let store = Scratch::new();
    let waiters = Waiters::start(&store, WAITERS, &["a".to_owned()], "600");
    show("ours, no server", &waiters.pids());
    drop(waiters);
    php();
}

fn through(kind: Kind) {
    let server = roomy(kind).start();
    let target = "/comet.cgi?subscribed[a]=0";
    let _waiting: Vec<_> = (0..WAITERS).map(|_| Talk::send(server.port(), target)).collect();
    server.await_waiters(WAITERS);
    let cgis: Vec<_> = process_tree(server.pid()).into_iter().filter(|pid| is_ours(*pid)).collect();
    show(&format!("ours, {kind:?}"), &cgis);
}

fn is_ours(pid: u32) -> bool {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
    name.is_ok_and(|name| name.trim() == "comet.cgi")
}

/// One worker of prefork per waiter.
fn php() {
    let peer = mod_php(WAITERS + 8);
    let target = "/comet.php?subscribed[a]=0";
    let _waiting: Vec<_> = (0..WAITERS).map(|_| Talk::send(peer.port, target)).collect();
    while peer.pids().len() < WAITERS {
        thread::sleep(Duration::from_millis(200));
    }
    thread::sleep(Duration::from_secs(2));
    show("the PHP of 2011, mod_php", &peer.pids());
}

fn show(name: &str, pids: &[u32]) {
    let mut all: Vec<_> = pids.iter().map(|pid| pss(*pid)).collect();
    all.sort_unstable();
    line(&[&name, &format!("{} kB", all[all.len() / 2])]);
}

//! The connections of Redis that 1,000 subscribers take who come as fast as they can, at once
//! and after some seconds.

use std::thread;
use std::time::{Duration, Instant};

use super::together::{MORE, waiting};
use crate::figures::{head, line};
use crate::support::server::Kind;
use crate::support::store::{Backend, Kind as StoreKind};
use crate::worlds::{more_descriptors, roomy};

/// When they are counted, in seconds after the last has come.
const TIMES: [u64; 4] = [0, 5, 15, 30];

pub fn row() {
    more_descriptors();
    head(&["1,000 subscribers over Redis: its clients", "at once", "after 5 s", "15 s", "30 s"]);
    for together in ["auto", "off"] {
        let redis = Backend::start_on_port(StoreKind::Redis, &[]);
        let setup = roomy(Kind::Lighttpd).lines(MORE).store(&redis.url());
        let server = setup.option("NOVCOMET_TOGETHER", together).start();
        let held = waiting(&server, 1_000);
        let begin = Instant::now();
        let counts = TIMES.map(|time| {
            thread::sleep(Duration::from_secs(time).saturating_sub(begin.elapsed()));
            clients(&redis)
        });
        line(&[&together, &counts[0], &counts[1], &counts[2], &counts[3]]);
        drop(held);
        server.terminate_waiters();
        server.await_nobody();
    }
    println!();
}

/// One of them asks, and does not count.
fn clients(redis: &Backend) -> usize {
    let answer = redis.redis(&["INFO", "clients"]);
    let count = answer.lines().find_map(|line| line.strip_prefix("connected_clients:"));
    count.unwrap().trim().parse::<usize>().unwrap() - 1
}

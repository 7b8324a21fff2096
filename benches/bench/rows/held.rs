//! Many held subscribers at once.

use std::process::Stdio;

use super::crowd::published;
use super::start::ours;
use crate::arrivals;
use crate::figures::{Samples, Time, head, line, point};
use crate::support::server::Kind;
use crate::waiters::{Waiters, available, pss};
use crate::worlds::{Scratch, Talk, more_descriptors, roomy};

const CROWDS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const THROUGH_LIGHTTPD: usize = 5_000;

pub fn row() {
    more_descriptors();
    head(&["waiters without a server, one publish", "median", "the last", "PSS", "all memory"]);
    for crowd in CROWDS {
        let store = Scratch::new();
        let before = available();
        let mut waiters = Waiters::start(&store, crowd, &["a".to_owned()], "600");
        let taken = before.saturating_sub(available());
        let pss = pss(waiters.pids()[crowd / 2]);
        let samples = Samples::new(arrivals::of(waiters.outputs(), || {
            let mut publish = ours(&store.0, "publish=a&data=hello");
            assert!(publish.stdout(Stdio::null()).status().unwrap().success());
        }));
        assert_eq!(samples.len(), crowd, "an event is lost");
        let (median, last) = (samples.median(), samples.last());
        let memory = format!("{} MB", taken / 1000);
        line(&[&crowd, &Time(median), &Time(last), &format!("{pss} kB"), &memory]);
        point("held", crowd, &[median, last]);
    }
    println!();
    through_lighttpd();
}

fn through_lighttpd() {
    let more = "server.max-fds := 20000\nserver.listen-backlog := 4096\n\
        setenv.set-environment += ( \"NOVCOMET_MAX_WAITERS\" => \"6000\" )";
    let server = roomy(Kind::Lighttpd).option("NOVCOMET_SLEEP", "600").lines(more).start();
    let before = available();
    let target = "/comet.cgi?subscribed[a]=0";
    let waiting: Vec<_> =
        (0..THROUGH_LIGHTTPD).map(|_| Talk::send(server.port(), target).0).collect();
    server.await_waiters(THROUGH_LIGHTTPD);
    let each = before.saturating_sub(available()) / THROUGH_LIGHTTPD as u64;
    let publish = || published(server.port(), "/comet.cgi?publish=a&data=hello");
    let samples = Samples::new(arrivals::of(waiting, publish));
    assert_eq!(samples.len(), THROUGH_LIGHTTPD, "an event is lost");
    head(&["waiters through lighttpd, one publish", "median", "the last", "memory of each"]);
    let (median, last) = (Time(samples.median()), Time(samples.last()));
    line(&[&THROUGH_LIGHTTPD, &median, &last, &format!("{each} kB")]);
}

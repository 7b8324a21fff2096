//! Subscribers that wait in one process, beside those that have one each and nchan's: the time
//! of one publish, the memory, and the processor.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::crowd::{NCHAN, ours, published, theirs};
use crate::figures::{Samples, Time, head, line, ratio};
use crate::peers::{await_nchan, nchan};
use crate::support::process::running;
use crate::support::server::{Kind, Server};
use crate::waiters::{Usage, available};
use crate::worlds::{Talk, more_descriptors, roomy};

const ROUNDS: usize = 3;
const SPAN: Duration = Duration::from_secs(10);
/// The time between two publishes to the busy topic.
const PAUSE: Duration = Duration::from_millis(50);
pub const MORE: &str = "server.max-fds := 60000\nserver.listen-backlog := 4096\n";

pub fn row() {
    more_descriptors();
    wakes();
    costs();
}

fn start(kind: Kind, together: &str) -> Server {
    let lines = if kind == Kind::Lighttpd { MORE } else { "" };
    let setup = roomy(kind).lines(lines).option("NOVCOMET_TOGETHER", together);
    let most = if kind == Kind::Lighttpd { "20000" } else { "2000" };
    let setup = setup.option("NOVCOMET_MAX_WAITERS", most).option("NOVCOMET_TRIES", "300");
    setup.start()
}

/// Each row compares within its rounds: A B C A B C …
fn wakes() {
    let peer = nchan();
    let kinds = [(Kind::Lighttpd, "auto"), (Kind::Lighttpd, "off"), (Kind::ApacheEvent, "auto")];
    let servers = kinds.map(|(kind, together)| start(kind, together));
    for (is_stream, way) in [(false, "poll"), (true, "stream")] {
        let title = format!("one publish to … by {way}, median (last)");
        head(&[
            &title,
            "lighttpd",
            "a process each",
            "Apache",
            "nchan",
            "lighttpd/nchan",
            "Apache/nchan",
        ]);
        for crowd in [1, 1_000, 5_000] {
            let mut all: [Vec<Duration>; 4] = Default::default();
            for _ in 0..ROUNDS {
                for (number, server) in servers.iter().enumerate() {
                    if crowd <= 2_000 || number == 0 {
                        all[number].extend(ours(server, crowd, is_stream));
                    }
                }
                let settled = || await_nchan(&peer, crowd);
                all[3].extend(theirs(&NCHAN, &peer, crowd, is_stream, settled));
            }
            compare(crowd, all);
        }
        println!();
    }
}

/// Crowds that a server was not asked for have a dash.
fn compare(crowd: usize, times: [Vec<Duration>; 4]) {
    let all = times.map(|times| (!times.is_empty()).then(|| Samples::new(times)));
    let dash = || "–".to_owned();
    let cell = |samples: &Option<Samples>| {
        let text = |all: &Samples| format!("{} ({})", Time(all.median()), Time(all.last()));
        samples.as_ref().map_or_else(dash, text)
    };
    let [one, each, apache, nchan] = &all;
    let to_nchan = |samples: &Option<Samples>| {
        let both = samples.as_ref().zip(nchan.as_ref());
        both.map_or_else(dash, |(ours, theirs)| format!("{:.1}", ratio(ours, theirs)))
    };
    line(&[
        &crowd,
        &cell(one),
        &cell(each),
        &cell(apache),
        &cell(nchan),
        &to_nchan(one),
        &to_nchan(apache),
    ]);
}

pub fn waiting(server: &Server, crowd: usize) -> Vec<TcpStream> {
    let target = |number| format!("/comet.cgi?subscribed[a{}]=0&wait=500", number % 10);
    let all = (0..crowd).map(|number| Talk::send(server.port(), &target(number)).0).collect();
    server.await_waiters(crowd);
    all
}

/// All memory that the machine has less, and the processor of all our processes.
fn costs() {
    let title = "while they wait";
    head(&[title, "", "memory of each", "idle, of a core", "beside 20 publishes a second"]);
    for (kind, together, crowd) in [
        (Kind::Lighttpd, "auto", 1_000),
        (Kind::Lighttpd, "auto", 5_000),
        (Kind::Lighttpd, "off", 1_000),
        (Kind::ApacheEvent, "auto", 1_000),
        (Kind::ApacheEvent, "off", 1_000),
    ] {
        let server = start(kind, together);
        let before = available();
        let held = waiting(&server, crowd);
        let each = before.saturating_sub(available()) / crowd as u64;
        let idle = busy(&server, &|| thread::sleep(Duration::from_secs(1)));
        let beside = busy(&server, &|| {
            published(server.port(), "/comet.cgi?publish=busy&data=x");
            thread::sleep(PAUSE);
        });
        let name = format!("{crowd} through {kind:?}");
        let memory = format!("{each} kB");
        let share = |share: f64| format!("{:.2} %", share * 100.0);
        line(&[&name, &together, &memory, &share(idle), &share(beside)]);
        drop(held);
        server.terminate_waiters();
        server.await_nobody();
    }
    println!();
}

/// The share of a core that the waiting processes take.
pub fn busy(server: &Server, meanwhile: &dyn Fn()) -> f64 {
    let pids = running(&server.program());
    let (before, begin) = (Usage::of(&pids), Instant::now());
    while begin.elapsed() < SPAN {
        meanwhile();
    }
    (Usage::of(&pids).cpu - before.cpu) / begin.elapsed().as_secs_f64()
}

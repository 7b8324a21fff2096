//! Subscribers by pattern and of the hub of Mercure beside subscribers to a topic, in a store
//! of 10,000 topics: one publish to 1,000, the processor, and the time of a publish.

use std::fs::File;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::crowd::{OURS, Targets, ours_by, published};
use super::together::{MORE, busy};
use crate::figures::{Samples, head, line, ratio};
use crate::support::server::{Exchange, Kind, Server};
use crate::support::tokens::Keys;
use crate::worlds::{Talk, more_descriptors, roomy};

const TOPICS: usize = 10_000;
const CROWD: usize = 1_000;
const ROUNDS: usize = 3;
const PUBLISHES: usize = 300;
/// The time between two publishes.
const PAUSE: Duration = Duration::from_millis(50);

const BY_PATTERN: Targets = Targets {
    poll: "/comet.cgi?matching=a*",
    stream: "/comet.cgi?matching=a*&stream=1",
    publish: OURS.publish,
};
const OF_HUB: Targets = Targets {
    poll: "/.well-known/mercure?topic=a",
    stream: "/.well-known/mercure?topic=a",
    publish: OURS.publish,
};

pub fn row() {
    more_descriptors();
    let keys = Keys::new();
    keys.give_to_the_server("hs");
    let setup = roomy(Kind::Lighttpd).lines(MORE).option("NOVCOMET_MAX_WAITERS", "20000");
    let setup = setup.option("NOVCOMET_TRIES", "300").option("NOVCOMET_MAX_TOPICS", "20000");
    let setup = setup.option("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
    let server = setup.option("NOVCOMET_MERCURE_ANONYMOUS", "on").start();
    for number in 0..TOPICS {
        File::create(server.event_file(&format!("w{number}"))).unwrap();
    }
    wakes(&server);
    costs(&server);
    publishes(&server, &keys.token(r#"{"publish":["*"],"subscribe":["*"]}"#));
}

fn wakes(server: &Server) {
    let mut all: [Vec<Duration>; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (times, targets) in all.iter_mut().zip([&OURS, &BY_PATTERN, &OF_HUB]) {
            times.extend(ours_by(server, targets, CROWD, true));
        }
    }
    let [topic, pattern, hub] = all.map(Samples::new);
    head(&["one publish to 1,000 streams", "by topic", "by pattern", "of the hub", "ratios"]);
    let ratios = format!("{:.2}, {:.2}", ratio(&pattern, &topic), ratio(&hub, &topic));
    line(&[&"median, its middle half", &topic, &pattern, &hub, &ratios]);
    println!();
}

/// The share of a core that 1,000 take who subscribe to all of 10,000 topics.
fn costs(server: &Server) {
    let target = "/comet.cgi?matching=w*&wait=500&stream=1";
    let held: Vec<TcpStream> = (0..CROWD).map(|_| Talk::send(server.port(), target).0).collect();
    server.await_waiters(CROWD);
    // The leader and the standby: what ends meanwhile would count as a saving.
    server.await_processes(2);
    let idle = busy(server, &|| thread::sleep(Duration::from_secs(1)));
    let beside = busy(server, &|| {
        // Nobody subscribes to this topic.
        published(server.port(), "/comet.cgi?publish=busy&data=hello");
        thread::sleep(PAUSE);
    });
    head(&[
        "1,000 by pattern, 10,000 topics: share of a core",
        "idle",
        "beside 20 publishes a second",
    ]);
    let share = |share: f64| format!("{:.2} %", share * 100.0);
    line(&[&"", &share(idle), &share(beside)]);
    println!();
    drop(held);
    server.terminate_waiters();
    server.await_nobody();
}

/// In turn: our own publish by POST, and that of Mercure.
fn publishes(server: &Server, token: &str) {
    let bearer = format!("Authorization: Bearer {token}");
    let headers = ["Content-Type: application/x-www-form-urlencoded", bearer.as_str()];
    let time = |target: &str, form: &str| {
        let begin = Instant::now();
        let request = format!("POST {target}");
        let reply = Exchange::send(server.port(), &request, &headers, form.as_bytes()).reply();
        assert_eq!(reply.status, 200, "{reply:?}");
        begin.elapsed()
    };
    let (mut own, mut hub) = (Vec::new(), Vec::new());
    for _ in 0..PUBLISHES {
        own.push(time("/comet.cgi", "publish=p&data=hello"));
        hub.push(time("/.well-known/mercure", "topic=p&data=hello"));
    }
    let [own, hub] = [own, hub].map(Samples::new);
    head(&["a publish through lighttpd", "our own", "Mercure", "ratio"]);
    line(&[&"median, its middle half", &own, &hub, &format!("{:.2}", ratio(&hub, &own))]);
    println!();
}

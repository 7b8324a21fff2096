//! One publish to subscribers that Pushpin holds, and to the same number that wait here.

use std::net::TcpStream;
use std::time::Duration;

use super::crowd::{OURS, ours, published};
use crate::arrivals;
use crate::figures::{Samples, Time, head, line, ratio};
use crate::support::pushpin::Pushpin;
use crate::support::server::Kind;
use crate::support::wait::comes_true;
use crate::worlds::{Talk, more_descriptors, roomy};

const CROWDS: [usize; 4] = [1, 100, 500, 2_000];
const LARGEST: usize = 5_000;
const ROUNDS: usize = 3;

pub fn row() {
    more_descriptors();
    let server = |kind| roomy(kind).option("NOVCOMET_SLEEP", "600").option("NOVCOMET_TRIES", "1");
    let direct = server(Kind::Lighttpd).start();
    for is_stream in [true, false] {
        let name = if is_stream { "stream" } else { "poll" };
        head(&[&format!("one publish to … by {name}"), "lighttpd", "Pushpin, lighttpd", "ratio"]);
        for crowd in CROWDS {
            let mut all: [Vec<Duration>; 2] = Default::default();
            for _ in 0..ROUNDS {
                all[0].extend(ours(&direct, crowd, is_stream));
                all[1].extend(held(crowd, is_stream));
            }
            let [direct, held] = all.map(Samples::new);
            let ratio = format!("{:.1}", ratio(&held, &direct));
            line(&[&crowd, &cell(&direct, crowd), &cell(&held, crowd), &ratio]);
        }
        println!();
    }
    let held = Samples::new(held(LARGEST, true));
    head(&["one publish to … by stream", "Pushpin, lighttpd"]);
    line(&[&LARGEST, &format!("{held}, {}", Time(held.last()))]);
}

fn cell(samples: &Samples, crowd: usize) -> String {
    let missing = ROUNDS * crowd - samples.len();
    let lost = if missing == 0 { String::new() } else { format!(", {missing} not at all") };
    format!("{samples}, {}{lost}", Time(samples.last()))
}

/// Each crowd has a proxy of its own, which knows nothing of the one before.
fn held(crowd: usize, is_stream: bool) -> Vec<Duration> {
    let mut pushpin = Pushpin::new();
    let server = roomy(Kind::Lighttpd)
        .option("NOVCOMET_GRIP", &pushpin.control())
        .option("NOVCOMET_GRIP_KEY", &pushpin.key())
        .option("NOVCOMET_SLEEP", "600")
        .option("NOVCOMET_TRIES", "1")
        .start();
    pushpin.start(server.port());
    let waiting = wait(&pushpin, crowd, is_stream);
    arrivals::of(waiting, || published(server.port(), OURS.publish))
}

/// Pushpin refuses more than some hundred new requests at a time. It asks for the first ones
/// again within some seconds.
fn wait(pushpin: &Pushpin, crowd: usize, is_stream: bool) -> Vec<TcpStream> {
    let target = if is_stream { OURS.stream } else { OURS.poll };
    let open = |number: usize| {
        let talk = Talk::send(pushpin.port, target);
        if number % 25 == 24 {
            comes_true(|| pushpin.held() > number);
        }
        talk.0
    };
    let waiting = (0..crowd).map(open).collect();
    std::thread::sleep(Duration::from_secs(4));
    waiting
}

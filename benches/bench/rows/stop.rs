//! The time of a stop and of a graceful restart while 200 subscribers wait, together and each
//! in its own process.

use std::time::{Duration, Instant};

use crate::figures::{head, line};
use crate::support::server::{Exchange, Kind, Server};
use crate::worlds::{more_descriptors, roomy};

const WAITERS: usize = 200;
const ROUNDS: usize = 3;
/// The line that the shipped configuration of lighttpd recommends.
const SOON: &str = r#"server.feature-flags += ( "server.graceful-shutdown-timeout" => 1 )"#;

pub fn row() {
    more_descriptors();
    head(&["200 wait", "", "stop", "restart → answer", "restart → all have ended"]);
    for kind in [Kind::ApacheEvent, Kind::ApachePrefork, Kind::Lighttpd] {
        for together in ["off", "auto"] {
            let stops = (0..ROUNDS).map(|_| stop(kind, together)).collect();
            // Workers of prefork serve on until their last request has ended by itself.
            let rounds = if kind == Kind::ApachePrefork { 0 } else { ROUNDS };
            let (answers, ends) = (0..rounds).map(|_| restart(kind, together)).unzip();
            let cells = [stops, answers, ends].map(median);
            line(&[&format!("{kind:?}"), &together, &cells[0], &cells[1], &cells[2]]);
        }
    }
}

fn crowd(kind: Kind, together: &str) -> (Server, Vec<Exchange>) {
    let lines = if kind == Kind::Lighttpd { SOON } else { "" };
    let server = roomy(kind).lines(lines).option("NOVCOMET_TOGETHER", together).start();
    let way = |number: usize| if number % 2 == 0 { "" } else { "&stream=1" };
    let target = |number| format!("GET /comet.cgi?subscribed[a]=0.1{}", way(number));
    let crowd = (0..WAITERS).map(|number| server.send(&target(number))).collect();
    server.await_waiters(WAITERS);
    (server, crowd)
}

fn stop(kind: Kind, together: &str) -> Duration {
    let (mut server, crowd) = crowd(kind, together);
    let took = server.stop();
    assert!(crowd.into_iter().all(Exchange::ends));
    took
}

fn restart(kind: Kind, together: &str) -> (Duration, Duration) {
    let (server, crowd) = crowd(kind, together);
    let begin = Instant::now();
    server.signal("USR1");
    let ends = std::thread::spawn(move || {
        assert!(crowd.into_iter().all(Exchange::ends));
        begin.elapsed()
    });
    server.until_answered("GET /comet.cgi?publish=b");
    let answer = begin.elapsed();
    (answer, ends.join().expect("all answers end"))
}

fn median(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    times.get(times.len() / 2).map_or("–".to_owned(), |time| format!("{time:.0?}"))
}

//! Publishes per second.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use super::start::ours;
use crate::figures::{head, line};
use crate::peers::mod_php;
use crate::support::server::{Kind, Server};
use crate::worlds::{Scratch, Talk, bare_server, in_c};

const CLIENTS: usize = 4;
const WRITERS: usize = 8;
const SPAN: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;

pub fn row() {
    let (_built, bare) = in_c("bare");
    let message = format!("/comet.cgi?publish=m&data={}", "x".repeat(1024));
    head(&["publishes a second, 4 clients", "ours, signal", "ours, 1 KB", "C CGI", "signal / C"]);
    for kind in [Kind::ApacheEvent, Kind::Lighttpd] {
        let (server, bare) = (Server::start(kind), bare_server(Server::setup(kind), &bare));
        let mut rates = [0.0; 3];
        for _ in 0..ROUNDS {
            let targets = [
                (server.port(), "/comet.cgi?publish=a"),
                (server.port(), &message),
                (bare.port(), "/comet.cgi"),
            ];
            for (rate, (port, target)) in rates.iter_mut().zip(targets) {
                let now = requests(port, target);
                *rate = f64::max(*rate, now);
            }
        }
        let [signal, message, bare] = rates;
        let cells: [&dyn Display; 5] = [
            &format!("{kind:?}"),
            &format!("{signal:.0}"),
            &format!("{message:.0}"),
            &format!("{bare:.0}"),
            &format!("{:.2}", signal / bare),
        ];
        line(&cells);
    }
    let php = mod_php(64);
    let rate = requests(php.port, "/comet.php?publish=a");
    line(&[&"the PHP of 2011, mod_php", &format!("{rate:.0}"), &"", &"", &""]);
    println!();
    direct();
}

fn requests(port: u16, target: &str) -> f64 {
    per_second(CLIENTS, || {
        assert!(Talk::send(port, target).reply().contains("200 OK"));
    })
}

/// Without a server: eight processes at a time publish to one topic.
fn direct() {
    let store = Scratch::new();
    let message = format!("publish=m&data={}", "x".repeat(1024));
    head(&["publishes a second, 8 writers, one topic, no server", ""]);
    for (name, query) in [("signal", "publish=a"), ("message of 1 KB", &*message)] {
        let rate = per_second(WRITERS, || {
            let mut command = ours(&store.0, query);
            assert!(command.stdout(std::process::Stdio::null()).status().unwrap().success());
        });
        line(&[&name, &format!("{rate:.0}")]);
    }
}

#[allow(clippy::cast_precision_loss)]
fn per_second(threads: usize, work: impl Fn() + Sync) -> f64 {
    let begin = Instant::now();
    let count: usize = thread::scope(|scope| {
        let repeat = || {
            let mut count = 0;
            while begin.elapsed() < SPAN {
                work();
                count += 1;
            }
            count
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(repeat)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    count as f64 / begin.elapsed().as_secs_f64()
}

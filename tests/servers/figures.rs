//! The figures and the health through real servers, under load and amid kills.

use std::thread;

use crate::support::exposition::{check, value};
use crate::support::process::kill_one;
use crate::support::server::{Kind, Server, stories};
use crate::support::wait::eventually;

stories! {
    sums_are_right_under_load
    sums_are_right_amid_kills
    load_balancer_asks_for_the_health
}

fn server(kind: Kind) -> Server {
    let server = Server::setup(kind).option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0").start();
    scrape(&server);
    server
}

fn scrape(server: &Server) -> String {
    let reply = server.get("/novcomet/metrics");
    assert_eq!(reply.status, 200, "{reply:?}");
    let kind = reply.header("Content-Type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{reply:?}");
    check(&reply.body);
    reply.body
}

/// Publishes `each` messages to `all` from each of four clients at once. Returns how many
/// were acknowledged.
fn publish(server: &Server, each: usize, query: &str) -> u64 {
    thread::scope(|scope| {
        let client = || {
            let target = format!("/comet.cgi?publish=all&{query}");
            let is_published = |_: &usize| server.get(&target).body == "true";
            (0..each).filter(is_published).count() as u64
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    })
}

fn sums_are_right_under_load(kind: Kind) {
    const CROWD: usize = 20;
    let server = server(kind);
    let crowd: Vec<_> = (0..CROWD)
        .map(|_| server.send("GET /comet.cgi?subscribed[end]=0&subscribed[all]=1.5"))
        .collect();
    let waiters = |text: &str| value(text, "novcomet_waiters{transport=\"poll\"}");
    eventually("all wait together", || waiters(&scrape(&server)) == CROWD as u64);
    assert_eq!(value(&scrape(&server), "novcomet_slots_used"), CROWD as u64);
    server.publish("end", "x");
    for one in crowd {
        assert_eq!(one.reply().status, 200);
    }
    assert_eq!(publish(&server, 25, "data=x"), 100);
    assert_eq!(server.get("/comet.cgi?publish=").status, 400);
    let text = scrape(&server);
    assert_eq!(value(&text, "novcomet_publishes_total"), 101);
    assert_eq!(value(&text, "novcomet_deliveries_total"), CROWD as u64);
    assert_eq!(value(&text, "novcomet_wake_seconds_count"), CROWD as u64);
    assert_eq!(value(&text, "novcomet_refusals_total{status=\"400\"}"), 1);
    assert_eq!(value(&text, "novcomet_topics"), 2);
    let slots = || value(&scrape(&server), "novcomet_slots_used");
    eventually("their slots are free", || slots() == 0);
    assert_eq!(server.complaints(), [""; 0]);
}

/// The server's processes are killed while they publish.
fn sums_are_right_amid_kills(kind: Kind) {
    const EACH: usize = 60;
    let server = server(kind);
    let acknowledged = thread::scope(|scope| {
        let publishers = scope.spawn(|| publish(&server, EACH, "data=x&kill"));
        let programs = [server.program()];
        while !publishers.is_finished() {
            kill_one(&programs, "kill", |count| count - 1);
        }
        publishers.join().unwrap()
    });
    let counted = value(&scrape(&server), "novcomet_publishes_total");
    let info = server.get("/comet.cgi?info[all]=1").body;
    let stored = info.split_once("\"messages\":").unwrap().1.split(',').next().unwrap();
    let (stored, attempts): (u64, _) = (stored.parse().unwrap(), 4 * EACH as u64);
    let all = (acknowledged, counted, stored, attempts);
    assert!(acknowledged <= counted && counted <= stored && stored <= attempts, "{all:?}");
    assert!(acknowledged > 0, "{all:?}");
}

fn load_balancer_asks_for_the_health(kind: Kind) {
    let server = Server::start(kind);
    let reply = server.get("/novcomet/health");
    assert_eq!((reply.status, reply.body.as_str()), (200, r#"{"status":"pass"}"#));
    assert_eq!(server.send("HEAD /novcomet/health").reply().status, 200);
    let full = Server::setup(kind).option("NOVCOMET_KEEP_FREE", "100").start();
    let reply = full.get("/novcomet/health");
    assert_eq!(reply.status, 503);
    assert!(reply.body.contains("507") || reply.body.contains("NOVCOMET_KEEP_FREE"), "{reply:?}");
}

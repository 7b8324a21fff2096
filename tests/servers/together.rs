//! Subscribers of one server wait in one process. DESIGN.md has the protocol between the
//! processes.

use std::fs;

use crate::support::process;
use crate::support::server::{Exchange, Kind, Server, stories};

stories! {
    crowd_waits_in_two_processes
    each_client_gets_its_own_answer
    crowd_outlives_its_first_subscriber
    leader_without_standby_answers_all
    killed_leader_ends_its_answers
    stop_answers_every_subscriber
    setting_switches_it_off
}

const CROWD: usize = 40;

fn server(kind: Kind) -> Server {
    Server::setup(kind).option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0").start()
}

fn subscribers(server: &Server, numbers: std::ops::Range<usize>) -> Vec<Exchange> {
    let subscribe =
        |number| server.subscriber(&format!("subscribed[all]=0&subscribed[t{number}]=0"));
    numbers.map(subscribe).collect()
}

/// Whether the process of a subscriber that waits in another ends at once. `mod_cgid` kills by
/// number, so it stays where numbers are few.
fn processes_end(kind: Kind) -> bool {
    let most = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    kind != Kind::ApacheEvent || most.trim().parse::<u32>().unwrap() >= 1 << 20
}

/// The processes, and the names that they have given themselves.
fn processes(server: &Server) -> Vec<(u32, String)> {
    let name = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let pids = process::running(&server.program());
    pids.into_iter().map(|pid| (pid, name(pid).trim_end().to_owned())).collect()
}

fn pid_of(server: &Server, name: &str) -> u32 {
    let found = processes(server);
    found.iter().find(|(_, known)| known == name).unwrap_or_else(|| panic!("{found:?}")).0
}

fn named(server: &Server, name: &str) -> usize {
    processes(server).iter().filter(|(_, known)| known == name).count()
}

fn crowd_waits_in_two_processes(kind: Kind) {
    let server = server(kind);
    let crowd = subscribers(&server, 0..CROWD);
    let members = if processes_end(kind) { 0 } else { CROWD - 2 };
    assert_eq!(named(&server, "comet: leader"), 1);
    assert_eq!(named(&server, "comet: standby"), 1);
    assert_eq!(named(&server, "comet: member"), members);
    assert_eq!(processes(&server).len(), 2 + members);
    server.publish("all", "x");
    for exchange in crowd {
        let body = exchange.reply().body;
        assert!(body.contains(r#""m":{"all":[{"#), "{body}");
    }
    server.await_nobody();
    assert_eq!(server.complaints(), [""; 0]);
}

fn each_client_gets_its_own_answer(kind: Kind) {
    let server = server(kind);
    let crowd = subscribers(&server, 0..CROWD);
    for number in 0..CROWD {
        server.publish(&format!("t{number}"), &format!("for {number}"));
    }
    for (number, exchange) in crowd.into_iter().enumerate() {
        let body = exchange.reply().body;
        assert!(body.contains(&format!(r#""m":{{"t{number}":[{{"#)), "{number}: {body}");
        assert!(body.contains(&format!(r#""data":"for {number}"}}"#)), "{number}: {body}");
    }
    server.await_nobody();
    assert_eq!(server.complaints(), [""; 0]);
}

/// The first is the leader. When its answer ends, the last takes over.
fn crowd_outlives_its_first_subscriber(kind: Kind) {
    let server = server(kind);
    let mut crowd = subscribers(&server, 0..CROWD);
    let (leader, standby) = (pid_of(&server, "comet: leader"), pid_of(&server, "comet: standby"));
    server.publish("t0", "first");
    assert!(crowd.remove(0).reply().body.contains("first"));
    server.await_processes(if processes_end(kind) { 1 } else { CROWD - 1 });
    assert_eq!(pid_of(&server, "comet: leader"), standby);
    assert_ne!(leader, standby);
    assert_eq!(server.waiters(), CROWD - 1);
    crowd.extend(subscribers(&server, CROWD..CROWD + 1));
    assert_eq!(named(&server, "comet: standby"), 1);
    server.publish("all", "x");
    for exchange in crowd {
        assert!(exchange.reply().body.contains(r#""data":"x"}"#));
    }
    server.await_nobody();
    assert_eq!(server.complaints(), [""; 0]);
}

/// The leader and the standby have their answers at once, and nobody comes.
fn leader_without_standby_answers_all(kind: Kind) {
    if !processes_end(kind) {
        // Each of them is a standby.
        return;
    }
    let server = server(kind);
    let mut crowd = subscribers(&server, 0..3);
    server.publish("t2", "last");
    assert!(crowd.pop().unwrap().reply().body.contains("last"));
    server.await_processes(1);
    server.publish("t0", "first");
    assert!(crowd.remove(0).reply().body.contains("first"));
    let body = crowd.remove(0).reply().body;
    assert!(body.starts_with(r#"{"s":0,"k":{"#) && body.contains(r#""t1":"#), "{body}");
    server.await_nobody();
    assert_eq!(server.complaints(), [""; 0]);
}

fn killed_leader_ends_its_answers(kind: Kind) {
    let server = server(kind);
    let crowd = subscribers(&server, 0..CROWD);
    process::signal("KILL", &[pid_of(&server, "comet: leader")]);
    for exchange in crowd {
        exchange.ends();
    }
    server.await_nobody();
    // mod_cgi reads no more of the log of a request that has failed.
    if kind != Kind::ApachePrefork {
        let log = server.complaints();
        let lines = log.iter().filter(|line| line.contains("wait together was killed"));
        assert_eq!(lines.count(), 1, "{log:?}");
    }
    let next = server.subscriber("subscribed[all]=0");
    server.publish("all", "x");
    assert!(next.reply().body.contains(r#""data":"x"}"#));
}

fn stop_answers_every_subscriber(kind: Kind) {
    let server = server(kind);
    let crowd = subscribers(&server, 0..CROWD);
    server.terminate_waiters();
    for exchange in crowd {
        let body = exchange.reply().body;
        assert!(body.starts_with(r#"{"s":0,"k":{"#), "{body}");
    }
    server.await_nobody();
    assert_eq!(server.complaints(), [""; 0]);
}

fn setting_switches_it_off(kind: Kind) {
    let server = Server::setup(kind).option("NOVCOMET_TOGETHER", "off").start();
    let crowd = subscribers(&server, 0..3);
    assert_eq!(processes(&server).len(), 3);
    server.publish("all", "x");
    for exchange in crowd {
        assert!(exchange.reply().body.contains(r#""data":"x"}"#));
    }
}

//! Subscribers of one server wait in one process. DESIGN.md has the protocol between the
//! processes.

use std::fs;
use std::time::Duration;

use novcomet::process::peer::{Listener, Peer, Received};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::support::binary::Store;
use crate::support::host::{is_root, not_run};
use crate::support::process;
use crate::support::server::{Exchange, Kind, Server, stories};
use crate::support::tokens::{HS256, Keys, claims};
use crate::support::wait::eventually;

stories! {
    crowd_waits_in_two_processes
    each_client_gets_its_own_answer
    crowd_outlives_its_first_subscriber
    leader_without_standby_answers_all
    answer_at_once_leaves_the_standby
    killed_leader_ends_its_answers
    stop_answers_every_subscriber
    expiry_and_format_are_each_subscribers_own
    hand_over_keeps_patterns_and_what_is_private
    client_that_has_left_frees_its_slot
    other_user_can_neither_join_nor_lead
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
    server.await_waiters(CROWD - 1);
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

/// A subscriber by pattern with a position joins before the first look.
fn answer_at_once_leaves_the_standby(kind: Kind) {
    if !processes_end(kind) {
        // Each of them is a standby.
        return;
    }
    let server = server(kind);
    let crowd = subscribers(&server, 0..2);
    let standby = pid_of(&server, "comet: standby");
    server.publish("news/a", "kept");
    for _ in 0..5 {
        let body = server.get("/comet.cgi?matching=news/*&since=earliest").body;
        assert!(body.contains(r#""data":"kept""#), "{body}");
        server.await_processes(2);
        assert_eq!(pid_of(&server, "comet: standby"), standby);
    }
    let refused = server.get("/comet.cgi?matching=news/*&since=zzzzzzzzzzzz");
    assert_eq!(refused.status, 400, "{}", refused.body);
    server.publish("all", "x");
    for exchange in crowd {
        assert!(exchange.reply().body.contains(r#""data":"x"}"#));
    }
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

fn expiry_and_format_are_each_subscribers_own(kind: Kind) {
    let keys = Keys::new();
    keys.give_to_the_server("hs");
    let server = Server::setup(kind)
        .option("NOVCOMET_PRIVATE", "secret")
        .option("NOVCOMET_TOKEN_KEY", &keys.path("hs"))
        .start();
    let draft = |seconds| ("HS256", "hs", HS256, claims(seconds, r#"{"subscribe":["secret"]}"#));
    let tokens = keys.sign(&[draft(8), draft(60)]);
    let subscribe = |token: &str, format| {
        let header = format!("Authorization: Bearer {token}");
        let mut stream =
            server.stream(&format!("subscribed[secret]=0&stream={format}"), &[&header]);
        stream.next();
        stream
    };
    let mut lines = subscribe(&tokens[0], "1");
    let mut json = subscribe(&tokens[1], "json");
    let poll = server.subscriber("subscribed[public]=0");
    assert_eq!(named(&server, "comet: leader"), 1);
    server.publish("secret", "one");
    assert_eq!(lines.event().unwrap().field("data").as_deref(), Some("one"));
    assert!(json.event().unwrap().field("data").unwrap().contains(r#""data":"one"}"#));
    assert_eq!(lines.event(), None, "its token has expired");
    server.publish("secret", "two");
    assert!(json.event().unwrap().field("data").unwrap().contains(r#""data":"two"}"#));
    server.publish("public", "three");
    let reply = poll.reply();
    assert!(reply.body.contains(r#""m":{"public":[{"#), "{reply:?}");
    assert_eq!(reply.header("Content-Type"), Some("application/json; charset=utf-8"));
}

/// Before and after it, each pattern shows only what the token of its subscriber grants.
fn hand_over_keeps_patterns_and_what_is_private(kind: Kind) {
    let keys = Keys::new();
    keys.give_to_the_server("hs");
    let server = Server::setup(kind)
        .option("NOVCOMET_PRIVATE", "secret/*")
        .option("NOVCOMET_TOKEN_KEY", &keys.path("hs"))
        .start();
    let first = server.subscriber("subscribed[first]=0");
    let token = keys.token(r#"{"subscribe":["secret/a"]}"#);
    let header = format!("Authorization: Bearer {token}");
    let follow = |headers: &[&str]| {
        let mut stream = server.stream("matching=**&stream=json", headers);
        stream.next();
        stream
    };
    let (mut granted, mut anyone) = (follow(&[&header]), follow(&[]));
    server.await_waiters(3);
    let leader = pid_of(&server, "comet: leader");
    let mut first = Some(first);
    for round in 0..2 {
        server.publish("secret/a", &format!("hidden {round}"));
        server.publish("secret/b", &format!("nobody's {round}"));
        server.publish("open", &format!("shown {round}"));
        let is_last = |data: &str| data.contains(&format!("shown {round}"));
        for (stream, is_granted) in [(&mut granted, true), (&mut anyone, false)] {
            let mut all = String::new();
            while !is_last(&all) {
                all += &stream.event().unwrap().field("data").unwrap_or_default();
            }
            assert_eq!(all.contains(&format!("hidden {round}")), is_granted, "{round}: {all}");
            assert!(!all.contains("nobody's"), "{all}");
            assert_eq!(all.matches("shown").count(), 1, "{all}");
        }
        if round == 0 {
            server.publish("first", "over");
            // Its event is theirs too.
            for stream in [&mut granted, &mut anyone] {
                assert!(stream.event().unwrap().field("data").unwrap().contains("over"));
            }
            assert!(first.take().unwrap().reply().body.contains("over"));
            let leads = || processes(&server).into_iter().find(|it| it.1 == "comet: leader");
            eventually("another leads", || leads().is_some_and(|(pid, _)| pid != leader));
        }
    }
}

/// No server tells the leader, because the process of the subscriber has ended.
fn client_that_has_left_frees_its_slot(kind: Kind) {
    let server = server(kind);
    let mut crowd = subscribers(&server, 0..5);
    drop(crowd.remove(2));
    server.await_waiters(4);
    server.publish("all", "x");
    for exchange in crowd {
        assert!(exchange.reply().body.contains(r#""data":"x"}"#));
    }
    server.await_nobody();
}

/// The name that a leader listens at, by the inodes of its sockets.
fn name_of(pid: u32) -> String {
    let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets: Vec<_> = links.map(|link| link.display().to_string()).collect();
    let names = fs::read_to_string("/proc/net/unix").unwrap();
    let of_it = |line: &str| {
        let inode = line.split_ascii_whitespace().nth(6)?;
        let (_, name) = line.split_once("@novcomet/together/")?;
        let is_its = sockets.contains(&format!("socket:[{inode}]"));
        is_its.then(|| format!("novcomet/together/{name}"))
    };
    names.lines().find_map(of_it).expect("it listens")
}

/// The tests run as root, and the server's programs as another user.
fn other_user_can_neither_join_nor_lead(kind: Kind) {
    if !is_root() {
        return not_run("another user beside a crowd", "root");
    }
    let server = server(kind);
    let crowd = subscribers(&server, 0..2);
    let name = name_of(pid_of(&server, "comet: leader"));
    assert_eq!(Peer::connect(&name).unwrap_err(), Errno::ACCESS, "we do not trust it");
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
    let stranger = Peer::from(socket);
    let minute = Duration::from_secs(60);
    assert!(matches!(stranger.receive_within(&mut Vec::new(), minute), Received::End));
    server.publish("all", "x");
    for exchange in crowd {
        assert!(exchange.reply().body.contains(r#""data":"x"}"#));
    }
    server.await_nobody();
    let _squatted = Listener::bind(&name).unwrap();
    let crowd = subscribers(&server, 0..3);
    assert_eq!(named(&server, "comet.cgi"), 3, "each waits alone");
    server.publish("all", "y");
    for exchange in crowd {
        assert!(exchange.reply().body.contains(r#""data":"y"}"#));
    }
    assert_eq!(server.complaints(), [""; 0]);
}

#[test]
fn nonsense_from_a_process_harms_nobody() {
    let store = Store::new();
    let subscribe = || store.query("subscribed[a]=0").method("GET").waiting();
    let leader = subscribe();
    let name = name_of(leader.0.id());
    let mut silent = Vec::new();
    let minute = Duration::from_secs(60);
    for round in 0..200 {
        let peer = Peer::connect(&name).unwrap();
        let ready = peer.receive_within(&mut Vec::new(), minute);
        assert!(matches!(ready, Received::Message(said, _) if said == b"r"), "{round}");
        let null = fs::File::open("/dev/null").unwrap();
        let sent: [(&[u8], bool); 7] = [
            (b"z", false),
            (b"w", true),
            (b"w\0{}", true),
            (b"w\0[[[[[[", false),
            (b"u", true),
            (b"k", false),
            (b"", false),
        ];
        let (message, with_descriptor) = sent[round % sent.len()];
        let descriptors =
            if with_descriptor { vec![std::os::fd::AsFd::as_fd(&null)] } else { vec![] };
        // An empty message and none are the same.
        let _ = peer.send(message, &descriptors);
        if round % 3 == 0 {
            silent.push(peer);
        }
    }
    let second = subscribe();
    assert!(store.query("publish=a&data=x").answer().body == "true");
    for waiter in [leader, second] {
        let answer = waiter.take().wait_with_output().unwrap();
        let text = String::from_utf8(answer.stdout).unwrap();
        assert!(text.contains(r#""data":"x"}"#), "{text}");
        assert_eq!(answer.stderr, b"");
    }
}

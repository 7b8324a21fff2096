//! Behind a real Pushpin, which holds the connections. `GRIP_CROWD`, `GRIP_POLLS` and
//! `GRIP_ROUNDS` make it larger.

use std::env;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::dir::create_by_kernel;
use crate::support::host::not_run;
use crate::support::pushpin::Pushpin;
use crate::support::server::{Exchange, Kind, Server, Stream, stories};
use crate::support::tokens::Keys;
use crate::support::wait::eventually;

stories! {
    each_kind_of_subscriber_is_told
    touch_is_told_while_somebody_waits_here
    streams_get_their_own_messages
    crowd_of_streams_is_told_of_one_publish
    crowd_of_polls_is_told_of_one_publish
    restarts_lose_nothing
    polls_lose_nothing_between_look_and_hold
    streams_lose_nothing_between_look_and_hold
    no_connection_of_a_proxy_is_kept
}

fn size(name: &str, default: usize) -> usize {
    env::var(name).ok().and_then(|size| size.parse().ok()).unwrap_or(default)
}

/// A server, and a proxy in front of it, if there is one.
fn behind_pushpin(kind: Kind, options: &[(&str, &str)]) -> Option<(Server, Pushpin)> {
    if !Pushpin::is_there() {
        not_run("a story behind a proxy", "Pushpin");
        return None;
    }
    let mut pushpin = Pushpin::new();
    let setup = Server::setup(kind)
        .option("NOVCOMET_GRIP", &pushpin.control())
        .option("NOVCOMET_GRIP_KEY", &pushpin.key())
        .option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0");
    let setup = options.iter().fold(setup, |setup, (name, value)| setup.option(name, value));
    let server = setup.start();
    pushpin.start(server.port());
    Some((server, pushpin))
}

fn send(pushpin: &Pushpin, target: &str) -> Exchange {
    Exchange::send(pushpin.port, &format!("GET {target}"), &[], b"")
}

fn each_kind_of_subscriber_is_told(kind: Kind) {
    let keys = Keys::new();
    keys.give_to_the_server("hs");
    let options = [
        ("NOVCOMET_TOKEN_KEY", keys.path("hs")),
        ("NOVCOMET_PRIVATE", "private".into()),
        ("NOVCOMET_MERCURE_ANONYMOUS", "on".into()),
    ];
    let options = options.each_ref().map(|(name, value)| (*name, value.as_str()));
    let Some((server, pushpin)) = behind_pushpin(kind, &options) else { return };
    let token = keys.token(r#"{"subscribe":["private"]}"#);
    let bearer = format!("Authorization: Bearer {token}");
    let poll = send(&pushpin, "/comet.cgi?subscribed[news]=");
    let pattern = send(&pushpin, "/comet.cgi?matching=news*");
    let private = "GET /comet.cgi?subscribed[private]=&stream=1";
    let private = Exchange::send(pushpin.port, private, &[&bearer], b"");
    let mut streams = [
        send(&pushpin, "/comet.cgi?subscribed[news]=&stream=1"),
        send(&pushpin, "/comet.cgi?matching=*&stream=1"),
        send(&pushpin, "/.well-known/mercure?topic=news"),
        private,
    ]
    .map(Stream::of);
    eventually("all are held", || pushpin.held() == 6);
    eventually("no one waits in a process", || server.waiters() == 0);
    server.publish("news", "one & only");
    for poll in [poll, pattern] {
        let body = poll.reply().body;
        assert!(body.contains(r#""data":"one & only""#), "{body}");
    }
    server.publish("private", "one & only");
    for stream in &mut streams {
        let mut data = std::iter::from_fn(|| stream.event()?.field("data"));
        assert_eq!(data.find(|data| !data.is_empty()).as_deref(), Some("one & only"));
    }
    eventually("no one waits in a process", || server.waiters() == 0);
    assert_eq!(server.complaints(), [""; 0]);
}

/// The server's leader tells the proxy, which holds longer than this test waits.
fn touch_is_told_while_somebody_waits_here(kind: Kind) {
    let options = [("NOVCOMET_TRIES", "3600")];
    let Some((server, pushpin)) = behind_pushpin(kind, &options) else { return };
    let _leader = server.send("GET /comet.cgi?subscribed[own]=");
    server.await_waiters(1);
    let names: Vec<_> = (0..20).map(|number| format!("touched-{number}")).collect();
    let poll = |name: &String| send(&pushpin, &format!("/comet.cgi?subscribed[{name}]="));
    let polls: Vec<_> = names.iter().map(poll).collect();
    eventually("all are held", || pushpin.held() == names.len());
    let mut told = 0;
    for (name, poll) in names.iter().zip(polls) {
        create_by_kernel(&server.event_file(name));
        told += usize::from(has(poll, r#"{"s":1,"#));
    }
    // Pushpin may cut one when it asks again.
    assert!(told * 10 > names.len() * 8, "only {told} were told");
    assert_eq!(server.complaints(), [""; 0]);
}

/// Pushpin asks for both at the same time, because they share a topic.
fn streams_get_their_own_messages(kind: Kind) {
    const ROUNDS: usize = 20;
    let keys = Keys::new();
    keys.give_to_the_server("hs");
    let options = [("NOVCOMET_TOKEN_KEY", keys.path("hs")), ("NOVCOMET_PRIVATE", "own/*".into())];
    let options = options.each_ref().map(|(name, value)| (*name, value.as_str()));
    let Some((server, pushpin)) = behind_pushpin(kind, &options) else { return };
    let open = |name: &str| {
        let token = keys.token(&format!(r#"{{"subscribe":["own/{name}"]}}"#));
        let request = format!("GET /comet.cgi?subscribed[all]=&subscribed[own/{name}]=&stream=1");
        let bearer = format!("Authorization: Bearer {token}");
        Stream::of(Exchange::send(pushpin.port, &request, &[&bearer], b""))
    };
    let mut streams = ["a", "b"].map(open);
    eventually("both are held", || pushpin.held() == 4);
    for round in 0..ROUNDS {
        server.publish("all", &format!("all {round}"));
        for name in ["a", "b"] {
            server.publish(&format!("own/{name}"), &format!("{name} {round}"));
        }
    }
    for (name, stream) in ["a", "b"].iter().zip(&mut streams) {
        let data = std::iter::from_fn(|| stream.event()?.field("data"));
        let mut data: Vec<_> = data.filter(|data| !data.is_empty()).take(2 * ROUNDS).collect();
        let own = |round| [format!("all {round}"), format!("{name} {round}")];
        let mut expected: Vec<_> = (0..ROUNDS).flat_map(own).collect();
        // Two topics have no common order.
        data.sort();
        expected.sort();
        assert_eq!(data, expected);
    }
}

/// Opens a crowd of polls that Pushpin holds. It refuses some if about a hundred come at a time,
/// and these come back.
fn open_crowd_of_polls(pushpin: &Pushpin, crowd: usize) -> Vec<Exchange> {
    let open = || send(pushpin, "/comet.cgi?subscribed[all]=");
    let mut polls: Vec<Exchange> = Vec::new();
    for number in (25..crowd).step_by(25).chain([crowd]) {
        polls.resize_with(number, open);
        eventually("these are held", || {
            polls.iter_mut().filter(|poll| poll.has_begun()).for_each(|poll| *poll = open());
            pushpin.held() >= number
        });
    }
    polls
}

/// The same of streams.
fn open_crowd_of_streams(pushpin: &Pushpin, crowd: usize) -> Vec<Exchange> {
    let open = |number| {
        let sent = send(pushpin, "/comet.cgi?subscribed[all]=&stream=1");
        if number % 25 == 0 || number == crowd {
            eventually("these are held", || pushpin.held() == number);
        }
        sent
    };
    (1..=crowd).map(open).collect()
}

/// Whether the answer has this text before it ends.
fn has(answer: Exchange, text: &str) -> bool {
    let body = answer.incoming().map(|body| body.until(text.as_bytes())).unwrap_or_default();
    String::from_utf8_lossy(&body).contains(text)
}

fn crowd_of_streams_is_told_of_one_publish(kind: Kind) {
    let crowd = size("GRIP_CROWD", 500);
    let Some((server, pushpin)) = behind_pushpin(kind, &[]) else { return };
    let streams = open_crowd_of_streams(&pushpin, crowd);
    server.publish("all", "now");
    let mut told = 0;
    for stream in streams {
        let is_told = has(stream, "data: now\n");
        told += usize::from(is_told);
        assert!(is_told || follow(pushpin.port, "all", "now")[0].0 == "now");
    }
    // While it takes the connections, Pushpin may cut some.
    assert!(told * 10 > crowd * 9, "only {told} were told");
    assert_eq!(server.complaints(), [""; 0]);
}

fn crowd_of_polls_is_told_of_one_publish(kind: Kind) {
    let crowd = size("GRIP_POLLS", 250);
    // A poll that Pushpin refuses comes back, and so does one that has missed the event. Until then
    // it is held for as long as it takes to open the crowd, at 40 a second.
    let tries = (crowd / 80).to_string();
    let options = [("NOVCOMET_TRIES", tries.as_str())];
    let Some((server, pushpin)) = behind_pushpin(kind, &options) else { return };
    let polls = open_crowd_of_polls(&pushpin, crowd);
    server.publish("all", "now");
    let mut told = 0;
    for poll in polls {
        let news = r#""data":"now""#;
        let mut is_told = has(poll, news);
        told += usize::from(is_told);
        while !is_told {
            let again = "GET /comet.cgi?subscribed[all]=earliest";
            let reply = Exchange::attempt(pushpin.port, again);
            is_told = reply.is_some_and(|reply| reply.body.contains(news));
        }
    }
    assert!(told * 2 > crowd, "only {told} were told");
    assert_eq!(server.complaints(), [""; 0]);
}

/// The messages of a stream from its first one, and when each has come. The client comes back
/// until it has the last.
fn follow(port: u16, topic: &str, last: &str) -> Vec<(String, Instant)> {
    let (mut id, mut found) = (String::new(), Vec::<(String, Instant)>::new());
    let has_last = |found: &[(String, _)]| found.last().is_some_and(|(data, _)| data == last);
    while !has_last(&found) {
        let header = format!("Last-Event-ID: {id}");
        let headers = if id.is_empty() { vec![] } else { vec![header.as_str()] };
        let request = format!("GET /comet.cgi?subscribed[{topic}]=earliest&stream=1");
        let sent = Exchange::try_send(port, &request, &headers, b"").ok();
        let Some(mut incoming) = sent.and_then(Exchange::incoming) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut bytes = Vec::new();
        while !has_last(&found) {
            let Some(more) = incoming.part().filter(|_| incoming.status == 200) else { break };
            bytes.extend(more);
            let end = bytes.windows(2).rposition(|it| it == b"\n\n").map_or(0, |at| at + 2);
            for block in Stream::whole_blocks(&bytes.drain(..end).collect::<Vec<_>>()) {
                id = block.field("id").unwrap_or(id);
                let data = block.field("data").filter(|data| !data.is_empty());
                found.extend(data.map(|data| (data, Instant::now())));
            }
        }
    }
    found
}

/// The proxy ends amid publishes, and comes back; then the web server restarts.
fn restarts_lose_nothing(kind: Kind) {
    const MESSAGES: usize = 60;
    let Some((server, mut pushpin)) = behind_pushpin(kind, &[]) else { return };
    let port = pushpin.port;
    let publish = |number: usize| server.publish("t", &number.to_string());
    let all = thread::scope(|scope| {
        let last = MESSAGES.to_string();
        let client = scope.spawn(move || follow(port, "t", &last));
        (1..20).for_each(publish);
        pushpin.stop();
        (20..30).for_each(publish);
        pushpin.start(server.port());
        (30..40).for_each(publish);
        server.signal("USR1");
        server.await_answer();
        (40..=MESSAGES).for_each(publish);
        client.join().unwrap()
    });
    assert!(all.into_iter().map(|(data, _)| data).eq(numbers(1..=MESSAGES)));
}

/// A gap of a few milliseconds, each time another one.
fn gap(round: usize) -> Duration {
    Duration::from_micros(round as u64 * 7_919 % 9_000)
}

/// Clients that poll all the time are often between the look and the hold.
fn polls_lose_nothing_between_look_and_hold(kind: Kind) {
    const CLIENTS: usize = 4;
    let rounds = size("GRIP_ROUNDS", 150);
    let Some((server, pushpin)) = behind_pushpin(kind, &[]) else { return };
    let poll = || {
        let (mut cursor, mut messages) = ("earliest".to_owned(), Vec::new());
        while messages.len() < rounds {
            let request = format!("GET /comet.cgi?subscribed[t]={cursor}");
            // Pushpin may close a connection amid two tries.
            let Some(reply) = Exchange::attempt(pushpin.port, &request) else { continue };
            let body = reply.body;
            let answer: Value = serde_json::from_str(&body).unwrap();
            let after = body.split_once("\"t\":").unwrap_or_else(|| panic!("{body}")).1;
            after.split('}').next().unwrap().clone_into(&mut cursor);
            assert_eq!(answer["gap"], Value::Null, "{body}");
            let news = answer["m"]["t"].as_array().cloned().unwrap_or_default();
            messages
                .extend(news.iter().map(|message| message["data"].as_str().unwrap().to_owned()));
        }
        messages
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(poll)).collect();
        for round in 0..rounds {
            server.publish("t", &round.to_string());
            thread::sleep(gap(round));
        }
        for client in clients {
            assert!(client.join().unwrap().into_iter().eq(numbers(0..rounds)));
        }
    });
}

/// Pushpin asks once for several of them, and is told of other events meanwhile. One that missed
/// an event would get it at the end of its hold, after 120 s.
fn streams_lose_nothing_between_look_and_hold(kind: Kind) {
    const CLIENTS: usize = 4;
    const LATE: Duration = Duration::from_secs(60);
    let rounds = size("GRIP_ROUNDS", 150);
    let Some((server, pushpin)) = behind_pushpin(kind, &[]) else { return };
    let last = (rounds - 1).to_string();
    thread::scope(|scope| {
        let client = || scope.spawn(|| follow(pushpin.port, "t", &last));
        let clients: Vec<_> = (0..CLIENTS).map(|_| client()).collect();
        eventually("all are held", || pushpin.held() >= CLIENTS);
        let publish = |round: usize| {
            let begin = Instant::now();
            server.publish("t", &round.to_string());
            thread::sleep(3 * gap(round));
            begin
        };
        let begins: Vec<_> = (0..rounds).map(publish).collect();
        for client in clients {
            let (data, ends): (Vec<_>, Vec<_>) = client.join().unwrap().into_iter().unzip();
            assert!(data.into_iter().eq(numbers(0..rounds)));
            let late = ends.iter().zip(&begins).map(|(end, begin)| *end - *begin).max();
            assert!(late < Some(LATE), "{late:?}");
        }
    });
}

/// Pushpin asks again by connections that are open. Apache closes them when it is busy, and the
/// request is lost.
fn no_connection_of_a_proxy_is_kept(kind: Kind) {
    let server = Server::start(kind);
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).unwrap();
    let request = "GET /comet.cgi?subscribed[t]=&wait=0 HTTP/1.1\r\nHost: localhost\r\n";
    write!(stream, "{request}Grip-Sig: any\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

fn numbers(range: impl Iterator<Item = usize>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

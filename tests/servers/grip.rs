//! Behind a real Pushpin, which holds the connections. `GRIP_CROWD` and `GRIP_ROUNDS` make it
//! larger.

use std::env;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::pushpin::Pushpin;
use crate::support::server::{Exchange, Kind, Reply, Server, Stream, stories};
use crate::support::tokens::Keys;
use crate::support::wait::eventually;

stories! {
    each_kind_of_subscriber_is_told
    streams_get_their_own_messages
    crowd_is_told_of_one_publish
    restarts_lose_nothing
    polls_lose_nothing_between_look_and_hold
}

fn size(name: &str, default: usize) -> usize {
    env::var(name).ok().and_then(|size| size.parse().ok()).unwrap_or(default)
}

/// A server, and a proxy in front of it.
fn behind_pushpin(kind: Kind, options: &[(&str, &str)]) -> (Server, Pushpin) {
    let mut pushpin = Pushpin::new();
    let setup = Server::setup(kind)
        .option("NOVCOMET_GRIP", &pushpin.control())
        .option("NOVCOMET_GRIP_KEY", &pushpin.key())
        .option("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "0");
    let setup = options.iter().fold(setup, |setup, (name, value)| setup.option(name, value));
    let server = setup.start();
    pushpin.start(server.port());
    (server, pushpin)
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
    let (server, pushpin) = behind_pushpin(kind, &options);
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

/// Pushpin asks for both at the same time, because they share a topic.
fn streams_get_their_own_messages(kind: Kind) {
    const ROUNDS: usize = 20;
    let keys = Keys::new();
    keys.give_to_the_server("hs");
    let options = [("NOVCOMET_TOKEN_KEY", keys.path("hs")), ("NOVCOMET_PRIVATE", "own/*".into())];
    let options = options.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (server, pushpin) = behind_pushpin(kind, &options);
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

fn crowd_is_told_of_one_publish(kind: Kind) {
    let crowd = size("GRIP_CROWD", 500) / 2;
    // A poll that Pushpin refuses comes back, and so does one that has missed the event.
    let (server, pushpin) = behind_pushpin(kind, &[("NOVCOMET_TRIES", "3")]);
    let mut held = 0;
    let mut open = |query: &str| -> Vec<_> {
        let open = |_| {
            held += 1;
            let sent = send(&pushpin, query);
            // Pushpin refuses more than about a hundred new requests at a time.
            if held % 25 == 0 {
                eventually("these are held", || pushpin.held() == held);
            }
            sent
        };
        (0..crowd).map(open).collect()
    };
    let streams = open("/comet.cgi?subscribed[all]=&stream=1");
    let polls = open("/comet.cgi?subscribed[all]=");
    server.publish("all", "now");
    let mut told = [0; 2];
    for poll in polls {
        let mut reply = Some(poll.reply());
        let has_news = |reply: &Option<Reply>| {
            reply.as_ref().is_some_and(|reply| reply.body.contains(r#""data":"now""#))
        };
        told[0] += usize::from(has_news(&reply));
        while !has_news(&reply) {
            reply = Exchange::attempt(pushpin.port, "GET /comet.cgi?subscribed[all]=earliest");
        }
    }
    for stream in streams {
        let text = String::from_utf8(stream.incoming().unwrap().until(b"data: now\n")).unwrap();
        let is_told = text.contains("data: now\n");
        told[1] += usize::from(is_told);
        assert!(is_told || follow(pushpin.port, "all", "now") == ["now"]);
    }
    assert!(told.iter().all(|told| told * 2 > crowd), "only {told:?} were told");
    assert_eq!(server.complaints(), [""; 0]);
}

/// The messages of a stream from its first one. The client comes back until it has the last.
fn follow(port: u16, topic: &str, last: &str) -> Vec<String> {
    let (mut id, mut data) = (String::new(), Vec::new());
    while data.last().is_none_or(|it| it != last) {
        let header = format!("Last-Event-ID: {id}");
        let headers = if id.is_empty() { vec![] } else { vec![header.as_str()] };
        let request = format!("GET /comet.cgi?subscribed[{topic}]=earliest&stream=1");
        let sent = Exchange::try_send(port, &request, &headers, b"").ok();
        let Some(mut incoming) = sent.and_then(Exchange::incoming) else {
            thread::sleep(Duration::from_millis(20));
            continue;
        };
        let mut bytes = Vec::new();
        while data.last().is_none_or(|it| it != last) {
            let Some(more) = incoming.part().filter(|_| incoming.status == 200) else { break };
            bytes.extend(more);
            let end = bytes.windows(2).rposition(|it| it == b"\n\n").map_or(0, |at| at + 2);
            for block in Stream::whole_blocks(&bytes.drain(..end).collect::<Vec<_>>()) {
                id = block.field("id").unwrap_or(id);
                data.extend(block.field("data").filter(|data| !data.is_empty()));
            }
        }
    }
    data
}

/// The proxy ends amid publishes, and comes back; then the web server restarts.
fn restarts_lose_nothing(kind: Kind) {
    const MESSAGES: usize = 60;
    let (server, mut pushpin) = behind_pushpin(kind, &[]);
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
    let expected: Vec<_> = (1..=MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(all, expected);
}

/// Clients that poll all the time are often between the look and the hold.
fn polls_lose_nothing_between_look_and_hold(kind: Kind) {
    const CLIENTS: usize = 4;
    let rounds = size("GRIP_ROUNDS", 150);
    let (server, pushpin) = behind_pushpin(kind, &[]);
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
            // A gap of a few milliseconds, each time another one.
            thread::sleep(Duration::from_micros(round as u64 * 7_919 % 9_000));
        }
        let expected: Vec<_> = (0..rounds).map(|round| round.to_string()).collect();
        for client in clients {
            assert_eq!(client.join().unwrap(), expected);
        }
    });
}

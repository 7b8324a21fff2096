//! Event streams through Apache with `mod_cgid`, Apache with `mod_cgi` and lighttpd, each with
//! the shipped configuration files.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::server::{Kind, Reply, Server, Stream, stories};
use novcomet::config::POLL;
use novcomet::event::Topic;
use novcomet::store::{self, Limits, Retention};

stories! {
    each_event_arrives_before_the_next
    compression_delays_no_event
    curl_reads_line_by_line
    reconnecting_client_gets_each_message_once
    expired_stream_is_continued_by_next
    disconnected_client_leaves_no_process
    stop_ends_every_stream
    graceful_restart_loses_no_message
    invalid_stream_request_gets_an_error
    stream_with_short_wait_ends
    vanished_store_ends_no_stream
    unreadable_store_ends_the_stream
}

/// Runs a test with all servers at once, because these tests wait most of the time.
fn with_every_server(story: fn(Kind)) {
    thread::scope(|scope| {
        for kind in [Kind::ApacheEvent, Kind::ApachePrefork, Kind::Lighttpd] {
            scope.spawn(move || story(kind));
        }
    });
}

#[test]
fn heartbeat_detects_a_disconnected_client() {
    with_every_server(|kind| {
        let server = Server::start(kind);
        let (mut here, gone) = (begun(&server), begun(&server));
        drop(gone);
        assert!(here.next().expect("an open stream").is_heartbeat());
        server.await_waiters(1);
        assert!(here.next().expect("an open stream").is_heartbeat());
        assert_eq!(server.complaints(), [""; 0]);
    });
}

#[test]
fn slow_reader_delays_no_other() {
    with_every_server(one_of_two_reads);
}

/// The header that browsers send.
const COMPRESSED: &str = "Accept-Encoding: gzip, deflate, br, zstd";

fn each_event_arrives_before_the_next(kind: Kind) {
    assert_flow(&Server::start(kind));
}

fn compression_delays_no_event(kind: Kind) {
    let Some(server) = compressing(kind) else { return };
    assert_flow(&server);
    assert_eq!(server.complaints(), [""; 0]);
}

/// Apache compresses as much as it can. Debian's lighttpd has compression in a separate
/// package.
fn compressing(kind: Kind) -> Option<Server> {
    let module = |name| format!("LoadModule {name}_module ${{MODULES}}/mod_{name}.so");
    let lines = [
        module("filter"),
        module("deflate"),
        module("brotli"),
        "SetOutputFilter BROTLI_COMPRESS;DEFLATE".into(),
        "AddOutputFilterByType DEFLATE text/event-stream text/javascript".into(),
    ];
    let server = match kind {
        Kind::Lighttpd => return None,
        _ => Server::setup(kind).lines(&lines.join("\n")).start(),
    };
    for method in ["br", "gzip"] {
        let accepted = format!("Accept-Encoding: {method}");
        let (script, _) = server.send_with("GET /novcomet/NovComet.js", &[&accepted]).head();
        assert_eq!(script.header("Content-Encoding"), Some(method), "it does compress");
    }
    Some(server)
}

/// The stream stays open. Each event must arrive before the next one is published, so no buffer
/// can be waiting for more data.
fn assert_flow(server: &Server) {
    let ways: [(&str, &[&str]); 3] = [
        ("stream=1", &[COMPRESSED]),
        ("stream=json", &[COMPRESSED]),
        ("named=1", &[COMPRESSED, "Accept: text/event-stream"]),
    ];
    for (way, headers) in ways {
        let mut stream = server.stream(&format!("subscribed[flow]=0&{way}"), headers);
        assert_head(&stream);
        assert_eq!(stream.next().expect("a beginning").field("retry"), Some("1000".into()));
        for size in [0, 1, 2, 100, 4_095, 4_096, 8_192, 20_000, 61_440, 1] {
            let data = "x".repeat(size);
            server.publish("flow", &data);
            let event = stream.event().expect("an open stream");
            assert!(event.field("data").unwrap().contains(&data), "{way}, {size}");
        }
    }
}

fn assert_head(stream: &Stream) {
    let header = |name| stream.head.header(name);
    assert_eq!(
        (stream.head.status, header("Content-Type")),
        (200, Some("text/event-stream; charset=utf-8"))
    );
    assert!(header("Cache-Control").is_some_and(|value| value.contains("no-store")));
    assert_eq!(header("X-Accel-Buffering"), Some("no"));
    for absent in ["Content-Encoding", "Content-Length", "Status"] {
        assert_eq!(header(absent), None, "{absent}");
    }
}

/// A client reads thousands of messages in three topics. Its connection breaks repeatedly,
/// after any byte.
fn reconnecting_client_gets_each_message_once(kind: Kind) {
    let server = Server::setup(kind).option("NOVCOMET_KEEP", "10000").start();
    let expected = publish_many(&server);
    let of = |topic| format!("subscribed[{topic}]=earliest&");
    let subscribed = ["a", "b", "c"].map(of).concat() + "wait=0.3";
    let (mut seen, mut last, mut random) = (Vec::new(), None, 12_345_u64);
    while seen.len() < expected.len() {
        let mut stream = resumed(&server, &subscribed, last.as_deref(), random & 1 == 0);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        let cut = stream.bytes(random >> 48);
        for block in Stream::whole_blocks(&cut) {
            last = block.field("id").or(last);
            seen.extend(block.field("data").map(|data| (block.field("event").unwrap(), data)));
        }
        if seen.last() == expected.last() {
            break;
        }
    }
    assert!(seen.iter().all(|(name, _)| name != "gap"), "nothing is missing");
    for topic in ["a", "b", "c"] {
        let of = |all: &[(String, String)]| {
            let all = all.iter().filter(|(name, _)| name == topic);
            all.map(|(_, data)| data.clone()).collect::<Vec<_>>()
        };
        assert!(of(&seen) == of(&expected), "{topic}: something is lost, doubled or in disorder");
    }
}

fn resumed(server: &Server, subscribed: &str, id: Option<&str>, by_header: bool) -> Stream {
    let query = format!("{subscribed}&stream=1");
    match id {
        None => server.stream(&query, &[]),
        Some(id) if by_header => server.stream(&query, &[&format!("Last-Event-ID: {id}")]),
        Some(id) => server.stream(&format!("{query}&lastEventId={id}"), &[]),
    }
}

/// Publishes without the server, because a request for each message would take long. The
/// publisher does not matter here.
fn publish_many(server: &Server) -> Vec<(String, String)> {
    let (bytes, age) = (1 << 30, Duration::from_secs(3600));
    let retention = Retention { messages: 10_000, bytes, age, max_file_bytes: 4 * bytes };
    let url = format!("file://{}", server.store().display());
    let store = store::open::locate(&url)
        .and_then(|store| store.open(retention, Limits::NONE, POLL))
        .unwrap();
    let message = |number: usize| {
        let topic = ["a", "b", "c"][number * number % 7 % 3];
        let data = format!("{number}{}", "\nx".repeat(number % 50));
        store.publish(&Topic::new(topic).unwrap(), Some(&data)).unwrap();
        (topic.to_owned(), data)
    };
    (0..4_000).map(message).collect()
}

/// A program whose output is read as it arrives.
fn curl_reads_line_by_line(kind: Kind) {
    let server = Server::start(kind);
    let url = format!("http://127.0.0.1:{}/comet.cgi?subscribed[a]=0&stream=1", server.port());
    let mut curl = Command::new("curl");
    let mut curl =
        curl.args(["-sSgN", "--compressed", &url]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(curl.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.is_empty()), "a beginning");
    for number in 0..5 {
        server.publish("a", &number.to_string());
        let data = format!("data: {number}");
        assert!(lines.any(|line| line == data), "{data}");
    }
    curl.kill().unwrap();
    curl.wait().unwrap();
}

/// One thread publishes all the time. The client reads each stream to its end.
fn expired_stream_is_continued_by_next(kind: Kind) {
    const MESSAGES: u32 = 150;
    let server = Server::setup(kind).option("NOVCOMET_STREAM", "0.5").start();
    let publish = || (0..MESSAGES).for_each(|number| server.publish("a", &number.to_string()));
    let (mut seen, mut last, mut ends) = (Vec::new(), None, 0);
    thread::scope(|scope| {
        let publisher = scope.spawn(publish);
        while seen.len() < MESSAGES as usize || ends < 3 {
            let subscribed = "subscribed[a]=earliest";
            let mut stream = resumed(&server, subscribed, last.as_deref(), true);
            while let Some(block) = stream.next() {
                last = block.field("id").or(last);
                seen.extend(block.field("data"));
            }
            ends += 1;
        }
        publisher.join().unwrap();
    });
    let expected: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(seen, expected);
    server.await_nobody();
    assert_eq!(server.complaints(), [""; 0]);
}

/// lighttpd ends the process at once. Apache notices when a write fails. The first write after
/// the client has closed its connection succeeds, because the client has not yet answered it.
fn disconnected_client_leaves_no_process(kind: Kind) {
    let server = Server::start(kind);
    drop(begun(&server));
    if kind != Kind::Lighttpd {
        for _ in 0..2 {
            server.publish("a", "to nobody");
        }
    }
    server.await_nobody();
    assert_eq!(server.complaints(), [""; 0]);
}

/// One subscriber reads none of several megabytes. The process that writes to it ends by itself
/// while the connection is open.
fn one_of_two_reads(kind: Kind) {
    const MESSAGES: usize = 200;
    let server = Server::start(kind);
    let asleep = server.subscriber("subscribed[a]=0&stream=1");
    let mut awake = server.stream("subscribed[a]=0&stream=1", &[]);
    awake.next().expect("a beginning");
    let data = "x".repeat(60_000);
    for number in 0..MESSAGES {
        server.publish("a", &data);
        let event = awake.event().expect("an open stream");
        assert_eq!(event.field("data").unwrap().len(), data.len(), "{number}");
    }
    // The test does not count sleeping processes, because a process that is briefly busy still
    // runs.
    server.await_processes(1);
    drop(awake);
    let mut cut = Stream::of(asleep);
    let got = Stream::whole_blocks(&cut.cooldown());
    let told = got.iter().filter(|block| block.field("data").is_some()).count();
    assert!(told > 0 && told < MESSAGES, "{told}");
    assert_eq!(server.complaints(), [""; 0]);
}

/// The connection may end without the last chunk, but not within an event.
fn stop_ends_every_stream(kind: Kind) {
    let mut server = Server::start(kind);
    let mut streams: Vec<_> = (0..3).map(|_| begun(&server)).collect();
    server.publish("a", "x");
    for stream in &mut streams {
        stream.event().expect("an open stream");
    }
    let took = server.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.await_nobody();
    for stream in &mut streams {
        assert_no_event(&stream.cooldown());
    }
    assert_eq!(server.complaints(), [""; 0]);
}

/// No part of an event either.
fn assert_no_event(rest: &[u8]) {
    let rest = String::from_utf8_lossy(rest);
    assert_eq!(rest.replace(":\n\n", ""), "", "a stream has heartbeats");
}

/// Apache's event MPM ends the streams. lighttpd does so after its grace time. With prefork
/// they continue.
fn graceful_restart_loses_no_message(kind: Kind) {
    let server = match kind {
        Kind::Lighttpd => Server::setup(kind)
            .lines(r#"server.feature-flags += ( "server.graceful-shutdown-timeout" => 1 )"#),
        _ => Server::setup(kind),
    };
    let server = server.start();
    let mut stream = begun(&server);
    server.publish("a", "before");
    let before = stream.event().expect("an open stream").id();
    server.signal("USR1");
    if kind == Kind::ApachePrefork {
        server.publish("a", "after");
        assert_eq!(stream.event().expect("an open stream").field("data").unwrap(), "after");
    } else {
        assert_no_event(&stream.cooldown());
        // lighttpd waits until the client has closed its connection too.
        drop(stream);
        server.await_answer();
        server.publish("a", "after");
    }
    let mut again = resumed(&server, "subscribed[a]=0", Some(&before), true);
    assert_eq!(again.event().expect("an open stream").field("data").unwrap(), "after");
}

fn begun(server: &Server) -> Stream {
    let mut stream = server.stream("subscribed[a]=0&stream=1", &[]);
    stream.next().expect("a beginning");
    stream
}

fn invalid_stream_request_gets_an_error(kind: Kind) {
    let server = Server::start(kind);
    let ask = |query: &str, headers: &[&str]| {
        server.send_with(&format!("GET /comet.cgi?{query}"), headers).reply()
    };
    assert_problem(&ask("subscribed[a]=0&stream=2", &[]), 400);
    assert_problem(&ask("subscribed[a]=0&stream=1", &["Last-Event-ID: 1-2"]), 400);
    assert_problem(&ask("subscribed[a]=0&stream=1&lastEventId=!", &[]), 400);
    assert_problem(&ask("", &["Accept: text/event-stream"]), 400);
    assert_eq!(server.complaints(), [""; 0]);
    fs::remove_dir(server.store()).unwrap();
    assert_problem(&ask("subscribed[a]=0&stream=json", &[]), 503);
    let postponed = ask("subscribed[a]=0&stream=1", &[]);
    assert!(postponed.status == 200 && postponed.body.contains("\nretry: "), "{}", postponed.body);
    let complaints = server.complaints();
    assert_eq!(complaints.len(), 2, "{complaints:?}");
    assert!(complaints.iter().all(|line| line.contains("novcomet: ")), "{complaints:?}");
}

fn assert_problem(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.body);
    assert_eq!(reply.header("Content-Type"), Some("application/problem+json"));
}

fn stream_with_short_wait_ends(kind: Kind) {
    let server = Server::start(kind);
    server.publish("a", "kept");
    let target = "/comet.cgi?subscribed[a]=earliest&stream=1";
    let head = server.send(&format!("HEAD {target}")).reply();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("Content-Type"), Some("text/event-stream; charset=utf-8"));
    for wait in ["0", "0.3"] {
        let reply = server.get(&format!("{target}&wait={wait}"));
        assert_eq!(reply.header("Content-Type"), Some("text/event-stream; charset=utf-8"));
        let blocks = Stream::whole_blocks(reply.body.as_bytes());
        assert_eq!(blocks.len(), 2, "{blocks:?}");
        assert_eq!(blocks[1].field("data").as_deref(), Some("kept"));
    }
    server.await_nobody();
}

/// A topic without a file has no event yet, as with a poll.
fn vanished_store_ends_no_stream(kind: Kind) {
    let server = Server::setup(kind).option("NOVCOMET_SLEEP", "0.1").start();
    let mut stream = begun(&server);
    server.publish("a", "before");
    assert_eq!(stream.event().unwrap().field("data").unwrap(), "before");
    fs::remove_dir_all(server.store()).unwrap();
    fs::create_dir(server.store()).unwrap();
    fs::set_permissions(server.store(), PermissionsExt::from_mode(0o1777)).unwrap();
    server.publish("a", "after");
    let gap = stream.event().expect("an open stream");
    assert_eq!(
        (gap.field("event").unwrap(), gap.field("data").unwrap()),
        ("gap".into(), "a".into())
    );
    assert_eq!(stream.event().unwrap().field("data").unwrap(), "after");
    assert_eq!(server.complaints(), [""; 0]);
}

/// The head is already sent. The process can only end the stream and log the reason.
fn unreadable_store_ends_the_stream(kind: Kind) {
    let server = Server::start(kind);
    let mut stream = begun(&server);
    fs::create_dir(server.event_file("a")).unwrap();
    assert_eq!(stream.next(), None, "the last chunk, and no other word");
    server.await_nobody();
    let complaints = server.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    assert!(complaints[0].contains("novcomet: "), "{complaints:?}");
}

//! Faults of a store's server: it is down, stops, forgets, is full, sends nothing, or sends one
//! byte at a time. The answer comes in time and the fault is logged once. Everything works
//! again when the server does.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrV4, SocketType, bind, getsockname, listen, socket};

use crate::support::binary::{Answer, Call};
use crate::support::host::free_port;
use crate::support::store::{Backend, Kind};
use crate::support::wait::eventually;

/// The time after its deadline within which an answer must come.
const LATE: Duration = Duration::from_secs(1);

macro_rules! over_servers {
    ($($test:ident)*) => {
        mod redis { $(#[test] fn $test() { super::$test(super::Kind::Redis); })* }
        #[cfg(feature = "tls")]
        mod redis_tls { $(#[test] fn $test() { super::$test(super::Kind::RedisTls); })* }
        mod memcached { $(#[test] fn $test() { super::$test(super::Kind::Memcached); })* }
    };
}

over_servers! {
    unreachable_server_is_503
    server_exit_ends_a_wait
    stopped_server_ends_a_wait
    restarted_server_reports_a_gap
    server_that_never_accepts_times_out
    silent_server_times_out
    byte_by_byte_server_times_out
    nonsense_reply_is_503
}

fn call(url: &str, query: &str) -> Call {
    let call = Call::new().method("GET").variable("NOVCOMET_STORE", url);
    call.variable("NOVCOMET_POLL", "0.02").variable("QUERY_STRING", query)
}

fn ask(backend: &Backend, query: &str) -> Answer {
    call(&backend.url(), query).answer()
}

/// 503 with Retry-After, or a stream that tells when to come back, and one line in the log that
/// names the server.
fn assert_unavailable(answer: &Answer, kind: Kind) {
    if !answer.is_postponed() {
        answer.assert_problem(503);
        assert!(answer.head.contains("\r\nRetry-After: 2"), "{answer:?}");
    }
    assert_eq!(answer.log.lines().count(), 1, "{answer:?}");
    let name = if kind == Kind::Memcached { "memcached" } else { "Redis" };
    assert!(answer.log.starts_with(&format!("novcomet: cannot use {name} at ")), "{answer:?}");
    assert!(!answer.body.contains("127.0.0.1"), "{answer:?}");
}

/// Every publisher, poll and stream is answered within a second after its wait.
fn assert_all_are_refused_in_time(url: &str, kind: Kind) {
    for (query, wait) in [
        ("publish=a&data=x", 0),
        ("subscribed[a]=0&wait=0", 0),
        ("subscribed[a]=0&subscribed[b]=0&wait=1", 1),
        ("subscribed[a]=0&wait=1&stream=1", 1),
    ] {
        let begin = Instant::now();
        let answer = call(url, query).answer();
        assert_unavailable(&answer, kind);
        assert_eq!(answer.is_postponed(), query.ends_with("stream=1"), "{query}: {answer:?}");
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(wait) + LATE, "{query}: {took:?}");
    }
}

fn unreachable_server_is_503(kind: Kind) {
    let mut backend = Backend::start_on_port(kind, &[]);
    backend.stop();
    assert_all_are_refused_in_time(&backend.url(), kind);
    let socket = Backend::start(kind).url();
    assert_all_are_refused_in_time(&socket, kind);
}

/// The next periodic read is an hour away, so only the closed connection can end the wait.
fn server_exit_ends_a_wait(kind: Kind) {
    let mut backend = Backend::start_on_port(kind, &[]);
    let waiter = call(&backend.url(), "subscribed[a]=0").variable("NOVCOMET_SLEEP", "3600");
    let waiter = waiter.waiting();
    backend.stop();
    assert_unavailable(&waiter.answer(), kind);
}

fn stopped_server_ends_a_wait(kind: Kind) {
    let backend = Backend::start_on_port(kind, &[]);
    let begin = Instant::now();
    let waiter = call(&backend.url(), "subscribed[a]=0&wait=2").waiting();
    backend.signal("STOP");
    assert_unavailable(&waiter.answer(), kind);
    assert!(begin.elapsed() < Duration::from_secs(2) + LATE, "{:?}", begin.elapsed());
    assert_all_are_refused_in_time(&backend.url(), kind);
    backend.signal("CONT");
    assert_eq!(ask(&backend, "publish=b").body, "true");
}

/// A client with an old cursor is told of the lost messages at once, not only after the next
/// publish.
fn restarted_server_reports_a_gap(kind: Kind) {
    let mut backend = Backend::start_on_port(kind, &[]);
    let url = backend.url();
    let posted = call(&url, "").form("publish=a&data=one").answer();
    let poll = format!("subscribed[a]={}&wait=5", posted.cursor("a").1);
    assert_eq!(ask(&backend, "publish=a&data=two").body, "true");
    backend.stop();
    assert_unavailable(&ask(&backend, &poll), kind);
    backend.restart();
    assert_eq!(ask(&backend, &poll).body, r#"{"s":1,"k":{"a":0.100000},"gap":["a"]}"#);
    let waiter = call(&url, "subscribed[a]=0.100000").waiting();
    assert_eq!(ask(&backend, "publish=a&data=three").body, "true");
    let body = waiter.answer().body;
    assert!(body.contains(r#""data":"three"}"#) && !body.contains("gap"), "{body}");
    assert!(ask(&backend, &poll).body.contains(r#""gap":["a"]"#));
}

/// The backlog of the listening socket is full, so the kernel does not even refuse the
/// connection.
fn server_that_never_accepts_times_out(kind: Kind) {
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    listen(&listener, 0).unwrap();
    let address = SocketAddrV4::try_from(getsockname(&listener).unwrap()).unwrap();
    let soon = Duration::from_millis(100);
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address.into(), soon) {
        queue.push(stream);
        assert!(queue.len() < 1000, "the queue has no end");
    }
    assert_all_are_refused_in_time(&url(kind, address.port()), kind);
}

/// A connection without a peer.
fn silent_server_times_out(kind: Kind) {
    let (port, _server) = server(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_all_are_refused_in_time(&url(kind, port), kind);
}

fn byte_by_byte_server_times_out(kind: Kind) {
    let (port, _server) = server(|mut stream| {
        while stream.write_all(b"$").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    assert_all_are_refused_in_time(&url(kind, port), kind);
}

fn nonsense_reply_is_503(kind: Kind) {
    let (port, _server) = server(|mut stream| {
        let mut asked = [0; 4096];
        while stream.read(&mut asked).is_ok_and(|read| read > 0) {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    assert_all_are_refused_in_time(&url(kind, port), kind);
}

fn url(kind: Kind, port: u16) -> String {
    match kind {
        Kind::Redis => format!("redis://127.0.0.1:{port}/0"),
        Kind::RedisTls => format!("rediss://127.0.0.1:{port}/0"),
        _ => format!("memcached://127.0.0.1:{port}"),
    }
}

/// A server of the tests, with a thread for each client. It ends with the tests.
fn server(talk: impl Fn(TcpStream) + Copy + Send + 'static) -> (u16, TcpListener) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let accepting = listener.try_clone().unwrap();
    thread::spawn(move || {
        for stream in accepting.incoming().flatten() {
            thread::spawn(move || talk(stream));
        }
    });
    (listener.local_addr().unwrap().port(), listener)
}

// Full servers.

#[test]
fn full_redis_refuses_publish_but_reads() {
    let backend = Backend::start_on_port(Kind::Redis, &[]);
    assert_eq!(ask(&backend, "publish=a&data=one").body, "true");
    // The memory of an empty server depends on its version. It is always more than this.
    assert_eq!(backend.redis(&["CONFIG", "SET", "maxmemory", "1"]), "OK\n");
    for query in ["publish=a&data=two", "publish=b"] {
        let answer = ask(&backend, query);
        answer.assert_problem(507);
        assert!(answer.head.contains("\r\nRetry-After: 2") && answer.log.contains("OOM"));
    }
    let body = ask(&backend, "subscribed[a]=earliest").body;
    assert!(body.contains(r#""data":"one"}]}}"#), "{body}");
    assert_eq!(backend.redis(&["CONFIG", "SET", "maxmemory", "0"]), "OK\n");
    assert_eq!(ask(&backend, "publish=a&data=two").body, "true");
}

/// memcached evicts the items of other topics, or refuses new ones (`-M`).
#[test]
fn full_memcached_drops_messages_with_gap() {
    let backend = Backend::start_on_port(Kind::Memcached, &["-m", "4"]);
    let data = "x".repeat(60_000);
    let fill = |topic: usize| {
        let form = format!("publish=t{topic}&data={data}");
        call(&backend.url(), "").form(&form).answer()
    };
    let stands = call(&backend.url(), "").form("publish=t0&data=x").answer().cursor("t0").1;
    for topic in 0..200 {
        assert_eq!(fill(topic).status(), 200);
    }
    // The message was evicted and the index was not, because their sizes differ.
    let body = ask(&backend, &format!("subscribed[t0]={stands}&wait=0")).body;
    assert!(body.contains(r#""gap":["t0"]"#) && !body.contains("data"), "{body}");
    assert!(ask(&backend, "subscribed[t199]=earliest").body.contains("data"));
}

#[test]
fn memcached_refusal_is_507() {
    let backend = Backend::start_on_port(Kind::Memcached, &["-m", "4", "-M"]);
    let form = |topic| format!("publish=t{topic}&data={}", "x".repeat(60_000));
    let publish = |topic| call(&backend.url(), "").form(&form(topic)).answer();
    let refused = (0..1000).map(publish).find(|answer| answer.status() != 200).unwrap();
    refused.assert_problem(507);
    assert!(refused.log.contains("out of memory"), "{refused:?}");
}

// Logins.

#[test]
fn wrong_or_missing_password_is_refused() {
    let backend = Backend::start(Kind::Redis);
    let user = ["ACL", "SETUSER", "site", "on", ">se:cret", "~site:*", "+@all", "-@admin"];
    assert_eq!(backend.redis(&user), "OK\n");
    assert_eq!(backend.redis(&["CONFIG", "SET", "requirepass", "open sesame"]), "OK\n");
    let ask = |login: &str, query| call(&format!("{}?{login}", backend.url()), query).answer();
    for (login, said) in [
        ("db=0", "NOAUTH"),
        ("pass=wrong", "WRONGPASS"),
        ("user=nobody&pass=wrong", "WRONGPASS"),
        ("user=site&pass=se:cret", "NOPERM"),
    ] {
        for query in ["publish=a", "subscribed[a]=0&wait=1"] {
            let answer = ask(login, query);
            assert_unavailable(&answer, Kind::Redis);
            assert!(answer.log.contains(said), "{answer:?}");
            assert!(!answer.log.contains("pass=") && !answer.log.contains("cret"), "{answer:?}");
        }
    }
    assert_eq!(ask("pass=open%20sesame", "publish=a").body, "true");
    assert_eq!(ask("pass=open%20sesame&db=3", "publish=a").body, "true");
    assert_eq!(ask("user=site&pass=se:cret&prefix=site:", "publish=a").body, "true");
}

/// Another program's key has the name of our stream.
#[test]
fn key_of_another_type_is_kept() {
    let backend = Backend::start(Kind::Redis);
    backend.redis(&["SET", "novcomet:a", "mine"]);
    for query in ["publish=a", "subscribed[a]=0.5&wait=0"] {
        let answer = ask(&backend, query);
        assert_unavailable(&answer, Kind::Redis);
        assert!(answer.log.contains("WRONGTYPE"), "{answer:?}");
    }
    assert_eq!(backend.redis(&["GET", "novcomet:a"]), "mine\n");
}

// A cluster of two nodes, with half of the slots each.

#[test]
fn any_cluster_node_serves_all_topics() {
    all_topics_are_on_any_of(Kind::Redis, "no");
}

/// A redirected client checks the certificate of the next node too.
#[cfg(feature = "tls")]
#[test]
fn any_tls_node_serves_all_topics() {
    all_topics_are_on_any_of(Kind::RedisTls, "yes");
}

fn all_topics_are_on_any_of(kind: Kind, encrypted: &str) {
    let buses = [(); 2].map(|()| free_port().to_string());
    let [options, others] = buses
        .each_ref()
        .map(|bus| ["--cluster-enabled", "yes", "--tls-cluster", encrypted, "--cluster-port", bus]);
    let node = Backend::start_on_port(kind, &options);
    let other = Backend::start_beside(&node, &others);
    let [bus, other_bus] = buses;
    let nodes = [(node, bus), (other, other_bus)];
    for ((node, _), slots) in nodes.iter().zip([["0", "8191"], ["8192", "16383"]]) {
        assert_eq!(node.redis(&["CLUSTER", "ADDSLOTSRANGE", slots[0], slots[1]]), "OK\n");
    }
    let port = nodes[1].0.port().to_string();
    let meet = ["CLUSTER", "MEET", "127.0.0.1", &port, &nodes[1].1];
    assert_eq!(nodes[0].0.redis(&meet), "OK\n");
    let is_ready = |node: &Backend| {
        let info = node.redis(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
    };
    eventually("each node is ready", || nodes.iter().all(|(node, _)| is_ready(node)));
    let topics: Vec<_> = (0..8).map(|number| format!("t{number}")).collect();
    // The subscriber starts at the beginning, because a process that talks to a server sleeps
    // too and may not have read yet.
    let all: Vec<_> = topics.iter().map(|topic| format!("subscribed[{topic}]=0.1")).collect();
    for (number, topic) in topics.iter().enumerate() {
        let [one, other] = nodes.each_ref().map(|(node, _)| node.url());
        let alone = call(&other, &all[number]).waiting();
        let among = call(&one, &all[number..].join("&")).waiting();
        assert_eq!(call(&one, &format!("publish={topic}&data=x")).answer().body, "true");
        for waiter in [alone, among] {
            assert_eq!(waiter.answer().cursor(topic).0, '1');
        }
    }
    // The nodes have no common order.
    assert_eq!(call(&nodes[0].0.url(), "matching=t*").answer().status(), 501);
    let handshake = r#"{"channel":"/meta/handshake","supportedConnectionTypes":["long-polling"]}"#;
    let bayeux = call(&nodes[0].0.url(), "").variable("SCRIPT_NAME", "/bayeux").form(handshake);
    let answer = bayeux.variable("CONTENT_TYPE", "application/json").answer();
    assert!(
        answer.body.contains("501::patterns, lists of topics, Mercure and Bayeux need"),
        "{answer:?}"
    );
}

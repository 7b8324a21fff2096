//! Data that another client leaves in the store's server, and false replies of a server. No
//! undeliverable message is acknowledged. No topic affects another. Each fault is one line of
//! the log.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use novcomet::event::{Cursor, Since, Topic};
use sha2::{Digest, Sha256};

use crate::support::binary::{Answer, Call};
use crate::support::host::shared_memory;
use crate::support::store::{Backend, Kind, over_every_store};

over_every_store! {
    corrupt_topic_affects_no_other
    subscriber_wakes_beside_a_corrupt_topic
}

fn call(url: &str, query: &str) -> Call {
    let call = Call::new().method("GET").variable("NOVCOMET_STORE", url);
    call.variable("NOVCOMET_POLL", "0.02").variable("QUERY_STRING", query)
}

fn ask(backend: &Backend, query: &str) -> Answer {
    call(&backend.url(), query).answer()
}

/// Another client's data in place of the topic `bad`: a key of another type, an invalid index,
/// or a FIFO.
fn spoil(backend: &Backend) {
    match backend.kind {
        Kind::File => mkfifo(&backend.directory().join("bad.comet")),
        Kind::Redis | Kind::RedisTls => drop(backend.redis(&["SET", "novcomet:bad", "mine"])),
        Kind::Memcached => {
            let key = memcached_key("bad");
            let set = format!("set novcomet:{key} 0 0 4\r\nmine\r\nquit\r\n");
            assert_eq!(backend.ask(&set), "STORED\r\n");
        }
    }
}

/// Of two publishers at one time, one without a message makes no item. So it removes none when the
/// other was faster.
#[test]
fn message_stays_beside_events_without_one() {
    const EACH: usize = 2_000;
    let backend = Backend::start(Kind::Memcached);
    let ahead = Cursor::now().after(Duration::from_secs(60)).micros();
    let index = format!(r#"{{"born":{ahead},"dropped":0,"last":{ahead},"messages":[]}}"#);
    let key = memcached_key("a");
    let set = format!("set {key} 0 0 {}\r\n{index}\r\nquit\r\n", index.len());
    assert_eq!(backend.ask(&set), "STORED\r\n");
    let topic = Topic::new("a").unwrap();
    let publish = |data: Option<&str>| {
        let store = backend.open();
        for _ in 0..EACH {
            store.publish(&topic, data).unwrap();
        }
    };
    let start = Since::Cursor(backend.open().publish(&topic, None).unwrap());
    thread::scope(|scope| {
        scope.spawn(|| publish(None));
        publish(Some("x"));
    });
    let found = backend.open().read(&topic, start, 1 << 30).unwrap();
    assert_eq!((found.messages.len(), found.gap), (EACH, false));
}

fn memcached_key(topic: &str) -> String {
    Sha256::digest(topic).iter().fold(String::new(), |key, byte| format!("{key}{byte:02x}"))
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn corrupt_topic_affects_no_other(kind: Kind) {
    let backend = Backend::start(kind);
    let at = call(&backend.url(), "").form("publish=good&data=x").answer().cursor("good").1;
    spoil(&backend);
    let news = ask(&backend, "subscribed[bad]=5.5&subscribed[good]=earliest&wait=0");
    let message = format!(r#"{{"id":{at},"data":"x"}}"#);
    assert_eq!(news.body, format!(r#"{{"s":1,"k":{{"good":{at}}},"m":{{"good":[{message}]}}}}"#));
    assert_eq!(news.log.lines().count(), 1, "{news:?}");
    let quiet = ask(&backend, &format!("subscribed[bad]=5.5&subscribed[good]={at}&wait=0"));
    assert_eq!(quiet.body, format!(r#"{{"s":0,"k":{{"bad":5.500000,"good":{at}}}}}"#));
    let new = ask(&backend, &format!("subscribed[bad]=0&subscribed[good]={at}&wait=0"));
    assert_eq!(new.body, format!(r#"{{"s":0,"k":{{"good":{at}}}}}"#));
    assert_eq!(new.log.lines().count(), 1, "{new:?}");
    ask(&backend, "subscribed[bad]=0&wait=0").assert_problem(503);
    // The topics before it are published.
    ask(&backend, "publish=good&publish=bad&publish=other&data=y").assert_problem(503);
    let all = ask(&backend, "subscribed[good]=earliest&subscribed[other]=earliest&wait=0").body;
    assert!(all.contains(r#""data":"y""#) && !all.contains(r#""other""#), "{all}");
}

/// The event of the other topic ends the wait. The log has one line, and the process does not
/// poll in a tight loop meanwhile.
fn subscriber_wakes_beside_a_corrupt_topic(kind: Kind) {
    let backend = Backend::start(kind);
    spoil(&backend);
    let mut at = "0.1".to_owned();
    for (rest, data) in [("", "x"), ("&stream=json&wait=1", "y")] {
        let query = format!("subscribed[bad]=5.5&subscribed[good]={at}{rest}");
        let waiter = call(&backend.url(), &query).variable("NOVCOMET_SLEEP", "3600").waiting();
        assert_eq!(ask(&backend, &format!("publish=good&data={data}")).body, "true");
        let answer = waiter.answer();
        assert!(answer.body.contains(&format!(r#""data":"{data}""#)), "{answer:?}");
        assert_eq!(answer.log.lines().count(), 1, "{answer:?}");
        at = answer.cursor("good").1;
    }
    if matches!(kind, Kind::Redis | Kind::RedisTls) {
        let calls = backend.redis(&["INFO", "commandstats"]);
        let looks = calls.split_once("cmdstat_eval_ro:calls=").unwrap().1;
        let looks: u32 = looks.split(',').next().unwrap().parse().unwrap();
        assert!(looks < 20, "{calls}");
    }
}

// Entries that another client adds to a Redis stream.

const REDIS: Kind = Kind::Redis;

/// Redis adds no entry before the last one. An acknowledged message can be delivered, and older
/// messages stay.
#[test]
fn stream_at_largest_id_continues() {
    for id in
        ["8589934591999-999", "8589934592000-0", "9007199254740-991", "18446744073709551615-1"]
    {
        let backend = Backend::start(REDIS);
        let before = call(&backend.url(), "").form("publish=a&data=one").answer().cursor("a").1;
        assert_eq!(backend.redis(&["XADD", "novcomet:a", id, "data", "bogus"]).trim(), id);
        let found = ask(&backend, &format!("subscribed[a]={before}&wait=0"));
        assert!(id.starts_with("858993459199") || !found.body.contains("bogus"), "{found:?}");
        for data in ["two", "three"] {
            let posted = call(&backend.url(), "").form(&format!("publish=a&data={data}")).answer();
            let at = posted.cursor("a").1;
            assert!(before < at && at.as_str() < "8589934592", "{posted:?}");
        }
        let all = ask(&backend, "subscribed[a]=earliest&wait=0").body;
        assert_eq!(all.matches("\"data\":").count(), 3, "{all}");
        let news = ask(&backend, &format!("subscribed[a]={before}&wait=0"));
        assert!(news.body.contains("two") && news.body.contains("three"), "{news:?}");
        assert!(!news.body.contains("gap") && news.log.is_empty(), "{news:?}");
    }
}

/// A stream with only such an entry has no event.
#[test]
fn stream_beyond_largest_cursor_counts_as_empty() {
    let backend = Backend::start(REDIS);
    backend.redis(&[
        "XADD",
        "novcomet:a",
        "18446744073709551615-18446744073709551615",
        "data",
        "x",
    ]);
    let body = ask(&backend, "subscribed[a]=earliest&wait=0").body;
    assert_eq!(body, r#"{"s":0,"k":{"a":0.100000}}"#);
    assert_eq!(ask(&backend, "publish=a&data=y").body, "true");
    let body = ask(&backend, "subscribed[a]=0.1&wait=0").body;
    assert!(body.contains(r#""data":"y"}]"#) && !body.contains("gap"), "{body}");
}

#[test]
fn odd_fields_of_an_entry_are_ignored() {
    let long = "x".repeat(100_000);
    for odd in ["", "nan", "-1", "inf", "1e300", "0x10", long.as_str()] {
        let backend = Backend::start(REDIS);
        for topic in ["a", "b"] {
            let at = call(&backend.url(), "").form(&format!("publish={topic}&data=x")).answer();
            let at = at.cursor(topic).1;
            let key = format!("novcomet:{topic}");
            backend.redis(&["XADD", &key, "*", "event", odd, "born", odd]);
            if topic == "b" {
                assert_eq!(ask(&backend, "publish=b").body, "true", "{odd:.9}");
            }
            let news = ask(&backend, &format!("subscribed[{topic}]={at}&wait=0"));
            assert_eq!(news.cursor(topic).0, '1', "{news:?}");
            assert_eq!(news.log, "");
        }
    }
}

// Servers with false replies.

/// Sends this reply to every command, and then more of it.
fn liar(said: &[u8], flood: &[u8]) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (said, flood) = (said.to_vec(), flood.repeat(65_536 / flood.len().max(1)));
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (said, flood) = (said.clone(), flood.clone());
            thread::spawn(move || {
                let mut asked = [0; 16_384];
                while stream.read(&mut asked).is_ok_and(|read| read > 0) {
                    let mut is_heard = stream.write_all(&said).is_ok();
                    while is_heard && !flood.is_empty() {
                        is_heard = stream.write_all(&flood).is_ok();
                    }
                }
            });
        }
    });
    port
}

/// The program has 64 MiB and the time of one exchange (`stores_faults.rs` has the times). The
/// answer is a 503, and the log has one line of visible characters.
fn assert_refused(scheme: &str, said: &[u8], flood: &[u8]) {
    let url = format!("{scheme}://127.0.0.1:{}", liar(said, flood));
    let queries = ["publish=a&data=x", "subscribed[a]=0.5&wait=0"];
    let asked = queries.map(|query| call(&url, query).by("prlimit", &["--as=67108864"]).start());
    for asked in asked {
        let answer = asked.answer();
        let shown = String::from_utf8_lossy(&said[..said.len().min(80)]).into_owned();
        assert_eq!(answer.status(), 503, "{shown:?}: {answer:?}");
        let line = answer.log.strip_suffix('\n').unwrap_or_else(|| panic!("{shown:?}: {answer:?}"));
        assert!(line.starts_with("novcomet: cannot use ") && line.len() < 2_000, "{line:?}");
        assert!(!line.contains(char::is_control) && !line.contains('\u{202e}'), "{line:?}");
    }
}

const FORGED: &str = "x\nnovcomet: FORGED \x1b[31m\u{202e}";

#[test]
fn invalid_redis_reply_is_logged_once() {
    let forged = [format!("-ERR {FORGED}\r\n"), format!("-{FORGED}\r\n"), format!("+{FORGED}\r\n")];
    let nested = ["*1\r\n".repeat(9), "*1\r\n".repeat(40_000), "*2\r\n:1\r\n".repeat(20_000)];
    let long = [format!("-ERR {}\r\n", "x".repeat(60_000)), "x".repeat(70_000)];
    let made = forged.iter().chain(&nested).chain(&long).map(String::as_bytes);
    let plain = [
        &b""[..],
        b"\r\n",
        b"\n",
        b"\0",
        b"\xff\xfe\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"+OK\r\n",
        b"+\r\n",
        b"-\r\n",
        b"-ERR\r\n",
        b":\r\n",
        b":x\r\n",
        b":0\r\n",
        b":-1\r\n",
        b":99999\r\n",
        b":9223372036854775807\r\n",
        b":8589934592000000\r\n",
        b":99999999999999999999\r\n",
        b"$-1\r\n",
        b"$-2\r\n",
        b"$0\r\n\r\n",
        b"$1\r\nxyz",
        b"$5\r\nx\r\n",
        b"$x\r\n",
        b"$18446744073709551615\r\n",
        b"$9223372036854775807\r\n",
        b"*-1\r\n",
        b"*-2\r\n",
        b"*0\r\n",
        b"*2\r\n*0\r\n*0\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*1\r\n$1\r\nx\r\n",
        b"*1\r\n*4\r\n$3\r\n1-1\r\n:-5\r\n:0\r\n:0\r\n",
        b"*1\r\n-ERR no\r\n",
        b"*1\r\n*6\r\n$3\r\n1-1\r\n:200000\r\n:0\r\n:0\r\n:9223372036854775807\r\n$1\r\nx\r\n",
        b"*2147483647\r\n",
        b"*9223372036854775807\r\n",
        b"*18446744073709551616\r\n",
        b"%1\r\n+a\r\n+b\r\n",
        b"_\r\n",
        b"#t\r\n",
        b">2\r\n",
        b"-MOVED\r\n",
        b"-MOVED 1\r\n",
        b"-MOVED 1 x\r\n",
        b"-MOVED 1 x:y\r\n",
        b"-MOVED 1 127.0.0.1:1\r\n",
        b"-ASK 1 127.0.0.1:1\r\n",
        b"-WRONGTYPE x\r\n",
        b"-OOMx\r\n",
    ];
    plain.into_iter().chain(made).for_each(|said| assert_refused("redis", said, b""));
    for flood in ["$2000000000\r\n", "*2000000000\r\n", "", "+"] {
        assert_refused("redis", flood.as_bytes(), b":1\r\n");
        assert_refused("redis", flood.as_bytes(), b"x");
    }
}

#[test]
fn invalid_memcached_reply_is_logged_once() {
    let forged = [
        format!("SERVER_ERROR {FORGED}\r\n"),
        format!("{FORGED}\r\n"),
        format!("CLIENT_ERROR {FORGED}\r\n"),
    ];
    let long = [format!("SERVER_ERROR {}\r\n", "x".repeat(60_000)), "x".repeat(70_000)];
    let indexes = [
        r#"{"born":1,"dropped":0,"last":9007199254740991,"messages":[]}"#,
        r#"{"born":1,"dropped":0,"last":18446744073709551615,"messages":[]}"#,
        r#"{"born":1,"dropped":0,"last":500000,"messages":[[600000,1]]}"#,
        r#"{"born":1,"dropped":0,"last":500000,"messages":[[400000,1],[300000,1]]}"#,
        r#"{"born":600000,"dropped":0,"last":500000,"messages":[]}"#,
        r#"{"born":1,"dropped":600000,"last":500000,"messages":[]}"#,
        r#"{"born":-1,"dropped":0,"last":5,"messages":[]}"#,
        "{}",
        "[]",
        "null",
        "\x1b[31m",
    ];
    let indexes = indexes.map(|index| format!("VA {} c1\r\n{index}\r\n", index.len()));
    let nested = "[".repeat(100_000);
    let nested = [format!("VA {} c1\r\n{nested}\r\n", nested.len())];
    let made = forged.iter().chain(&long).chain(&indexes).chain(&nested).map(String::as_bytes);
    let plain = [
        &b""[..],
        b"\r\n",
        b"\n",
        b"\0",
        b"\xff\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"OK\r\n",
        b"ERROR\r\n",
        b"STORED\r\n",
        b"VA\r\n",
        b"VA \r\n",
        b"VA x c1\r\n",
        b"VA -1 c1\r\n",
        b"VA 1 c1\r\nxyz\r\n",
        b"VA 5 c1\r\nx\r\n",
        b"VA 18446744073709551615 c1\r\n",
        b"VA 18446744073709551614 c1\r\nx",
        b"VA 18446744073709551616 c1\r\n",
        b"VA 0 c1\r\n\r\n",
        b"va 0\r\n",
        b"MN\r\n",
        b"ME x\r\n",
        b"VALUE a 0 1\r\nx\r\nEND\r\n",
        b"SERVER_ERROR\r\n",
    ];
    plain.into_iter().chain(made).for_each(|said| assert_refused("memcached", said, b""));
    for flood in ["VA 2000000000 c1\r\n", ""] {
        assert_refused("memcached", flood.as_bytes(), b"x");
    }
}

/// Pieces of replies in random order, from a seed. The client gets a valid answer, and the log
/// at most one line.
#[test]
fn random_replies_are_answered() {
    let mut seed = 7_u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let redis: &[&[u8]] = &[
        b"*1\r\n",
        b"*2\r\n",
        b"*4\r\n",
        b"*0\r\n",
        b"$1\r\nx\r\n",
        b"$-1\r\n",
        b":200000\r\n",
        b":1\r\n",
        b"-ERR x\n\x1b\r\n",
        b"+1-1\r\n",
        b"\r\n",
        b"\xff",
    ];
    let memcached: &[&[u8]] = &[
        b"HD\r\n",
        b"EN\r\n",
        b"NS\r\n",
        b"HD c7\r\n",
        b"VA 1 c1\r\nx\r\n",
        b"VA 0\r\n\r\n",
        b"VA 2 c9\r\n{}\r\n",
        b"SERVER_ERROR \x1b\n\r\n",
        b"\r\n",
        b"\xff",
    ];
    for round in 0..60 {
        let (scheme, parts) =
            if round % 2 == 0 { ("redis", redis) } else { ("memcached", memcached) };
        let said: Vec<u8> =
            (0..=random(12)).flat_map(|_| parts[random(parts.len())].to_vec()).collect();
        let url = format!("{scheme}://127.0.0.1:{}", liar(&said, b""));
        let query = ["publish=a&data=x", "subscribed[a]=0.5&subscribed[b]=0&wait=0"][random(2)];
        let answer = call(&url, query).by("prlimit", &["--as=67108864"]).answer();
        assert!([200, 503].contains(&answer.status()), "{said:?}: {answer:?}");
        assert!(answer.log.lines().count() <= 1 && !answer.log.contains('\x1b'), "{answer:?}");
    }
}

/// Without the pause, the program would ask the server thousands of times per second.
#[test]
fn redis_without_xread_is_polled() {
    let backend = Backend::start(REDIS);
    let rules = ["ACL", "SETUSER", "default", "-xread"];
    assert_eq!(backend.redis(&rules), "OK\n");
    let quiet = ask(&backend, "subscribed[a]=0.1&wait=1");
    assert_eq!(quiet.body, r#"{"s":0,"k":{"a":0.100000}}"#);
    let calls = backend.redis(&["INFO", "commandstats"]);
    let looks = calls.split_once("cmdstat_eval_ro:calls=").unwrap().1;
    let looks: u32 = looks.split(',').next().unwrap().parse().unwrap();
    // At most one read per 0.02 s (NOVCOMET_POLL).
    assert!(looks < 60, "{calls}");
}

// Passwords.

/// The server redirects every client to another address, which would receive the password.
#[test]
fn redis_on_socket_sends_no_password_elsewhere() {
    let elsewhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let moved = format!("+OK\r\n-MOVED 1 {}\r\n", elsewhere.local_addr().unwrap());
    let name = format!("novcomet-moved-{}", std::process::id());
    let path = shared_memory().join(name);
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        // The connection stays open for a command that comes after the reply.
        let mut open = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 16_384]);
            let _ = stream.write_all(moved.as_bytes());
            open.push(stream);
        }
    });
    for query in ["publish=a", "subscribed[a]=0.5&wait=0"] {
        let answer = call(&format!("unix://{}?pass=s3cr3t", path.display()), query).answer();
        answer.assert_problem(503);
        assert!(
            answer.log.contains("MOVED") && answer.log.contains("redis://host:port"),
            "{answer:?}"
        );
        assert!(elsewhere.accept().is_err(), "no client has connected");
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn password_in_error_reply_is_hidden() {
    for said in [
        "-ERR unknown command 'AUTH', with args beginning with: 's3cr3t' \r\n",
        "-ERR s3cr3t\r\n",
        "+OK\r\n-ERR s3cr3t\r\n",
        "+OK\r\n-MOVED 1 s3cr3t\r\n",
    ] {
        let port = liar(said.as_bytes(), b"");
        let answer = call(&format!("redis://:s3cr3t@127.0.0.1:{port}"), "publish=a").answer();
        answer.assert_problem(503);
        assert!(!answer.log.contains("s3cr3t"), "{answer:?}");
    }
}

// Hints.

#[test]
fn log_names_the_setting_to_correct() {
    let backend = Backend::start(REDIS);
    let log = |rest: &str, query| call(&format!("{}{rest}", backend.url()), query).answer().log;
    let database = log("?db=99", "publish=a");
    assert!(
        database.contains("number of the database") && !database.contains("password"),
        "{database}"
    );
    spoil(&backend);
    let key = log("", "publish=bad");
    assert!(key.contains("key novcomet:bad") && key.contains("remove that key"), "{key}");
    assert_eq!(backend.redis(&["REPLICAOF", "127.0.0.1", "1"]), "OK\n");
    let replica = log("", "publish=a");
    assert!(replica.contains("takes writes"), "{replica}");
}

//! The resources that an attacker or a crowd can use. Each limit is tested by the real binary
//! and through a server of stock size.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::binary::{Answer, COMET, Call, SECOND, Store, Waiter};
use crate::support::dir::set_time;
use crate::support::host::{is_root, not_run};
use crate::support::server::{Exchange, Kind, Reply, Server};
use crate::support::wait::eventually;

// Limits of a request.

#[test]
fn request_names_at_most_64_topics() {
    let store = Store::new();
    let many =
        |count: usize, one: fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join("&");
    let subscribe = |count| many(count, |number| format!("subscribed[{number}]=0")) + "&wait=0";
    let publish = |count| many(count, |number| format!("publish={number}"));
    store.query(&subscribe(65)).answer().assert_problem(400);
    store.query(&publish(65)).answer().assert_problem(400);
    store.query("").form(&publish(65)).answer().assert_problem(400);
    assert_eq!(store.names(), [""; 0]);
    assert!(store.query(&subscribe(64)).answer().body.starts_with(r#"{"s":0,"#));
    let twice = format!("{}&{}", publish(64), publish(64));
    assert_eq!(store.query("").form(&twice).answer().status(), 200);
    assert_eq!(store.names().len(), 64);
}

/// The body is refused by its length, before memory is allocated for it. The process has less
/// memory than the body would take.
#[test]
fn too_long_body_is_refused_unread() {
    let store = Store::new();
    for (length, status) in [
        ("204801", 413),
        ("1000000000000", 413),
        ("18446744073709551616", 413),
        ("99999999999999999999999999", 413),
        ("-1", 400),
        ("1e3", 400),
        ("204800", 400),
    ] {
        let call = store.query("publish=a").form("x").variable("CONTENT_LENGTH", length);
        call.by("prlimit", &["--as=67108864"]).answer().assert_problem(status);
    }
    assert_eq!(store.names(), [""; 0]);
}

/// The body comes by a pipe, as from `mod_cgi`, or a socket, as from `mod_cgid`. The sender
/// keeps it open all the time. The test lasts as long as the deadline.
#[test]
fn missing_body_times_out() {
    let store = Store::new();
    let post = || store.query("publish=a").method("POST").variable("CONTENT_LENGTH", "20");
    let mut by_pipe = post().command.spawn().unwrap();
    let mut pipe = by_pipe.stdin.take().unwrap();
    let (mut socket, stdin) = UnixStream::pair().unwrap();
    let by_socket = post().command.stdin(OwnedFd::from(stdin)).spawn().unwrap();
    let mut refused =
        post().variable("CONTENT_TYPE", "multipart/form-data").command.spawn().unwrap();
    let _kept = refused.stdin.take();
    pipe.write_all(b"data=x").unwrap();
    socket.write_all(b"data=x").unwrap();
    for (child, status) in [(by_pipe, 408), (by_socket, 408), (refused, 415)] {
        Waiter(child).answer().assert_problem(status);
    }
    assert_eq!(store.names(), [""; 0]);
}

// Limits of the store.

#[test]
fn topic_limit_refuses_only_new_topics() {
    let store = Store::new();
    let publish = |query: &str| store.query(query).variable("NOVCOMET_MAX_TOPICS", "3").answer();
    // Only event files count.
    File::create(store.0.join("other")).unwrap();
    for query in ["publish=a", "publish=b&data=x", "publish=c"] {
        assert_eq!(publish(query).body, "true");
    }
    publish("publish=d").assert_problem(507);
    publish("publish=d&data=x").assert_problem(507);
    assert_eq!(store.names().len(), 4, "nothing is left behind");
    assert_eq!(publish("publish=a&data=x").body, "true");
    assert!(store.query("subscribed[d]=0&wait=0").answer().body.starts_with(r#"{"s":0,"#));
    fs::remove_file(store.file("b")).unwrap();
    assert_eq!(publish("publish=d").body, "true");
}

#[test]
fn file_system_reserve_is_left_free() {
    let store = Store::new().with("a", SECOND, 0);
    // The file makes the used part of the file system larger than zero.
    fs::write(store.0.join("other"), "x").unwrap();
    let publish =
        |query: &str, free: &str| store.query(query).variable("NOVCOMET_KEEP_FREE", free).answer();
    let log = publish("publish=a&data=x", "100");
    log.assert_problem(507);
    assert!(log.log.contains("NOVCOMET_KEEP_FREE"), "{log:?}");
    assert_eq!(fs::metadata(store.file("a")).unwrap().len(), 0, "nothing is written");
    publish("publish=b&data=x", "100").assert_problem(507);
    assert_eq!(publish("publish=a", "100").body, "true", "an event takes no space");
    assert_eq!(publish("publish=a&data=x", "1").body, "true");
    assert_eq!(publish("publish=b", "0").body, "true");
}

/// A file system of 20 files and 1 MB. The directory itself is one of the files.
#[test]
fn reserve_counts_files_and_message_size() {
    if !is_root() {
        not_run("the share of the file system", "root");
        return;
    }
    let script = r#"
        mount -t tmpfs -o size=1m,nr_inodes=20 tmpfs "$1" || exit
        for number in $(seq 20); do QUERY_STRING="publish=$number" "$2"; done | grep -c '^true'
        export QUERY_STRING='publish=1' REQUEST_METHOD=POST CONTENT_TYPE=text/plain
        for CONTENT_LENGTH in 600000 400000; do
            export CONTENT_LENGTH
            head -c "$CONTENT_LENGTH" /dev/zero | tr '\0' x | "$2" | grep ^Status
        done"#;
    let store = Store::new();
    let call = store.query("").variable("NOVCOMET_KEEP_FREE", "50");
    let call = call.variable("NOVCOMET_MAX_DATA", "1000000");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, "sh"]).arg(&store.0).arg(COMET);
    command.envs(call.command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.replace('\r', ""), "9\nStatus: 507 Insufficient Storage\nStatus: 200 OK\n");
}

/// The change time of a file cannot be set back, so a file is stale after a millisecond here.
#[test]
fn new_topic_removes_some_stale_ones() {
    let store = Store::new();
    for number in 0..200 {
        File::create(store.file(&number.to_string())).unwrap();
        set_time(&store.file(&number.to_string()), SECOND - 1_000_000_000, 0);
    }
    let publish = |query: &str, age: &str| {
        assert_eq!(store.query(query).variable("NOVCOMET_STALE", age).answer().body, "true");
        store.names().len()
    };
    // Their modification time is in 1995, but they were created just now.
    assert_eq!(publish("publish=a", "86400"), 201);
    assert_eq!(publish("publish=b", "0"), 202, "0 is never");
    assert_eq!(publish("publish=a", "0.000001"), 202, "only a publish that creates a file sweeps");
    assert_eq!(publish("publish=c", "0.000001"), 202 - 64 + 1, "a part at a time");
    // Every file becomes stale soon.
    let mut names = 1_000..;
    eventually("all stale topics are swept", || {
        publish(&format!("publish={}", names.next().unwrap()), "0.000001") < 3
    });
}

#[test]
fn used_and_foreign_files_are_kept() {
    let store = Store::new().with("locked", SECOND, 0).with("future", 4_000_000_000, 0);
    let mut kept = vec!["locked.comet", "future.comet", "dir.comet", "link.comet", "target"];
    kept.extend(["x.comet.bak", "picture.comet"]);
    fs::write(store.file("picture"), b"\x89PNG\r\n\x1a\n").unwrap();
    fs::write(store.file("log"), "{\"born\":1.5,\"inode\":7}\n{\"id\":1.5,\"data\":\"\"}\n")
        .unwrap();
    fs::create_dir(store.file("dir")).unwrap();
    symlink(store.0.join("target"), store.file("link")).unwrap();
    fs::write(store.0.join("target"), "").unwrap();
    fs::write(store.0.join("x.comet.bak"), "").unwrap();
    let file = File::options().write(true).open(store.file("locked")).unwrap();
    let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    rustix::fs::fcntl_lock(&file, exclusive).unwrap();
    for number in 0..20 {
        let publish = store.query(&format!("publish={number}"));
        assert_eq!(publish.variable("NOVCOMET_STALE", "0.000001").answer().body, "true");
    }
    let names: BTreeSet<_> = store.names().into_iter().collect();
    assert!(kept.iter().all(|name| names.contains(*name)), "{names:?}");
    assert!(!names.contains("log.comet"), "a stale log is swept: {names:?}");
    assert!(names.len() < 11, "the others are swept: {names:?}");
}

#[test]
fn subscriber_of_swept_topic_keeps_its_cursor() {
    let store = Store::new().with("a", SECOND, 163_846_000);
    let waiter = store.query("subscribed[a]=1795415403.163846").waiting();
    let sweep = || store.query("publish=b").variable("NOVCOMET_STALE", "0.000001").answer();
    eventually("the topic is swept", || {
        let _ = fs::remove_file(store.file("b"));
        sweep();
        !store.file("a").exists()
    });
    let quiet = store.query("subscribed[a]=1795415403.163846&wait=0").answer();
    assert_eq!(quiet.cursor("a"), ('0', "1795415403.163846".into()));
    store.query("publish=a").answer();
    let answer = waiter.answer();
    assert_eq!(answer.cursor("a").0, '1');
    assert!(answer.body.contains(r#""gap":["a"]"#), "{answer:?}");
}

// Limits of waiting requests.

/// A call as a server makes it.
/// Each waits in its own process, so that a process is a subscriber.
fn visitor(store: &Store, address: &str, query: &str) -> Call {
    let call = store.query(query).method("GET").variable("REMOTE_ADDR", address);
    call.variable("NOVCOMET_TOGETHER", "off")
}

/// Whether the answer has a Retry-After of 5 to 15 s.
fn is_sent_away(answer: &Answer) -> bool {
    let mut lines = answer.head.lines().filter_map(|line| line.strip_prefix("Retry-After: "));
    let seconds = lines.next().map(|seconds| seconds.parse::<u32>().unwrap());
    assert!(seconds.is_none_or(|seconds| (5..=15).contains(&seconds)), "{answer:?}");
    assert_eq!(answer.status(), 200);
    seconds.is_some()
}

/// Starts so many calls at once. Returns the waiting ones when all calls wait or have answered,
/// and the answers of the others.
fn rush(count: usize, call: impl Fn(usize) -> Call) -> (Vec<Waiter>, Vec<Answer>) {
    let start = |number| Waiter(call(number).command.stdin(Stdio::null()).spawn().unwrap());
    let mut started: Vec<_> = (0..count).map(start).collect();
    let mut answers = Vec::new();
    let mut waiting = Vec::new();
    for mut waiter in started.drain(..) {
        eventually("the process waits or ends", || {
            waiter.0.try_wait().unwrap().is_some() || waiter.sleeps()
        });
        match waiter.0.try_wait().unwrap() {
            None => waiting.push(waiter),
            Some(_) => answers.push(waiter.answer()),
        }
    }
    (waiting, answers)
}

/// Hundreds of subscribers start at once, repeatedly, and the waiting ones are killed.
#[test]
fn limit_holds_and_killed_waiters_free_slots() {
    let store = Store::new();
    for round in 0..8 {
        let (waiting, answers) = rush(200, |number| {
            let address = format!("192.0.2.{number}");
            visitor(&store, &address, "subscribed[a]=0").variable("NOVCOMET_MAX_WAITERS", "50")
        });
        assert_eq!((waiting.len(), answers.len()), (50, 150), "round {round}");
        assert!(answers.iter().all(is_sent_away));
        assert!(answers.iter().all(|answer| answer.body == r#"{"s":0,"k":{"a":0.100000}}"#));
        // Dropping the waiters kills them (SIGKILL) and waits for their exit.
    }
    assert_eq!(store.names(), [""; 0], "subscribing creates nothing");
}

/// Without this rule, a foreign page could take all slots of its visitor with 25 requests.
#[test]
fn foreign_page_takes_no_slot() {
    let store = Store::new();
    let page = |marks: &[(&str, &str)]| {
        let call = visitor(&store, "192.0.2.1", "subscribed[a]=0&wait=20");
        let call = call.variable("HTTP_HOST", "a.example");
        let call = call.variable("NOVCOMET_ORIGINS", "https://pages.example");
        marks.iter().fold(call, |call, (name, value)| call.variable(&format!("HTTP_{name}"), value))
    };
    for marks in [
        &[("SEC_FETCH_SITE", "cross-site")][..],
        &[("SEC_FETCH_SITE", "same-site")],
        &[("ORIGIN", "https://evil.example")],
        &[("ORIGIN", "null")],
        &[("ORIGIN", "https://evil.example"), ("SEC_FETCH_SITE", "cross-site")],
    ] {
        let answer = page(marks).answer();
        assert!(is_sent_away(&answer), "{marks:?}");
        assert_eq!(answer.body, r#"{"s":0,"k":{"a":0.100000}}"#, "{marks:?}");
    }
    for marks in [
        &[][..],
        &[("SEC_FETCH_SITE", "same-origin")],
        &[("SEC_FETCH_SITE", "none")],
        &[("ORIGIN", "http://a.example")],
        &[("ORIGIN", "https://pages.example"), ("SEC_FETCH_SITE", "cross-site")],
    ] {
        drop(page(marks).waiting());
    }
}

/// Every user of the machine can read /proc/net/unix.
#[test]
fn local_users_see_no_visitor_address() {
    let store = Store::new();
    let names = || fs::read_to_string("/proc/net/unix").unwrap();
    for address in ["203.0.113.77", "2001:db8:77:77::1", "somebody.example"] {
        let waiter = visitor(&store, address, "subscribed[a]=0").waiting();
        assert!(names().contains("@novcomet/"), "it holds a slot");
        for shown in [address, "203.0.113", "2001:db8:77", "somebody"] {
            assert!(!names().contains(shown), "{shown}");
        }
        drop(waiter);
    }
}

#[test]
fn one_address_leaves_slots_to_the_others() {
    let store = Store::new();
    let limits = |call: Call| {
        let call = call.variable("NOVCOMET_MAX_WAITERS", "20");
        call.variable("NOVCOMET_MAX_WAITERS_PER_ADDRESS", "7")
    };
    for addresses in ["192.0.2.", "2001:db8::"] {
        let one =
            |number| format!("{addresses}{}", if addresses.contains(':') { number } else { 1 });
        let subscribe = |address: &str| limits(visitor(&store, address, "subscribed[a]=0"));
        let (first, _) = rush(60, |number| subscribe(&one(number)));
        let (second, _) = rush(60, |_| subscribe("198.51.100.7"));
        let (third, refused) = rush(60, |_| subscribe("198.51.100.8"));
        assert_eq!((first.len(), second.len(), third.len()), (7, 7, 6));
        assert!(refused.iter().all(is_sent_away));
        drop(first);
        assert_eq!(rush(5, |_| subscribe("198.51.100.9")).0.len(), 5);
    }
}

#[test]
fn without_slot_answers_with_retry_after() {
    let store = Store::new();
    let full =
        |query: &str| visitor(&store, "192.0.2.1", query).variable("NOVCOMET_MAX_WAITERS", "1");
    let waiter = full("subscribed[b]=0").waiting();
    assert!(is_sent_away(&full("subscribed[a]=0").answer()));
    assert_eq!(full("publish=a&data=one").answer().body, "true");
    let news = full("subscribed[a]=0.1").answer();
    assert!(is_sent_away(&news) && news.body.contains(r#""data":"one""#), "{news:?}");
    for query in ["subscribed[a]=0&wait=0", "subscribed[a]=0.1&wait=0&stream=1", "publish=a"] {
        assert!(!is_sent_away(&full(query).answer()), "{query}");
    }
    assert!(!is_sent_away(&full("subscribed[a]=0").method("HEAD").answer()));
    // A call from a shell occupies no server worker, so it needs no slot.
    let shell = store.query("subscribed[b]=0").variable("NOVCOMET_MAX_WAITERS", "1").waiting();
    // Each store has its own slots.
    let other = Store::new();
    let elsewhere = visitor(&other, "192.0.2.1", "subscribed[b]=0");
    drop(elsewhere.variable("NOVCOMET_MAX_WAITERS", "1").waiting());
    full("publish=b").answer();
    for waiter in [waiter, shell] {
        assert!(!is_sent_away(&waiter.answer()));
    }
    assert!(full("subscribed[c]=0").waiting().sleeps(), "an answered request has freed its slot");
}

/// `EventSource` stops reconnecting after any answer that is not a stream.
#[test]
fn stream_without_slot_sends_pending_messages() {
    let store = Store::new();
    store.query("publish=a&data=one").answer();
    let full =
        |query: &str| visitor(&store, "192.0.2.1", query).variable("NOVCOMET_MAX_WAITERS", "1");
    let _waiter = full("subscribed[b]=0&stream=1").waiting();
    for format in ["1", "json"] {
        let answer = full(&format!("subscribed[a]=earliest&stream={format}")).answer();
        assert!(is_sent_away(&answer));
        let seconds = answer.head.split_once("Retry-After: ").unwrap().1;
        let retry = format!("\nretry: {}000\n", seconds.lines().next().unwrap());
        assert!(answer.body.contains(&retry), "{answer:?}");
        assert!(answer.body.contains("one"), "{answer:?}");
    }
}

// A server of stock size.

/// The settings of Debian's `mpm_event.conf`.
const STOCK: &str = "StartServers 2\nMinSpareThreads 25\nMaxSpareThreads 75\nThreadLimit 64\n\
                     ThreadsPerChild 25\nMaxRequestWorkers 150";

/// A trusted proxy gives one machine many client addresses.
const PROXY: &str = "LoadModule remoteip_module ${MODULES}/mod_remoteip.so\n\
                     RemoteIPHeader X-Forwarded-For\nRemoteIPInternalProxy 127.0.0.1";

fn stock_apache() -> Server {
    Server::setup(Kind::ApacheEvent).lines(STOCK).lines(PROXY).start()
}

/// Requests from the addresses that `whose` makes of their numbers.
fn visitors(server: &Server, count: usize, whose: impl Fn(usize) -> String) -> Vec<Exchange> {
    let send = |number: usize| {
        let address = format!("X-Forwarded-For: {}", whose(number));
        Exchange::send(server.port(), "GET /comet.cgi?subscribed[a]=0", &[&address], b"")
    };
    (0..count).map(send).collect()
}

/// After the other requests have been refused, the site answers while `waiters` subscribers
/// wait, and an event reaches them.
fn the_rest_of_the_site_goes_on(server: &Server, visitors: Vec<Exchange>, waiters: usize) {
    eventually("the others are sent away", || {
        visitors.iter().filter(|one| has_begun(one)).count() + waiters == visitors.len()
    });
    server.await_waiters(waiters);
    for _ in 0..50 {
        assert_eq!(server.get("/novcomet/").status, 200);
    }
    assert_eq!(server.get("/comet.cgi?publish=a").body, "true");
    let replies: Vec<_> = visitors.into_iter().map(Exchange::reply).collect();
    let is_away = |reply: &&Reply| reply.header("Retry-After").is_some();
    let (away, told): (Vec<_>, Vec<_>) = replies.iter().partition(is_away);
    assert_eq!((away.len(), told.len()), (replies.len() - waiters, waiters));
    assert!(away.iter().all(|reply| reply.body == r#"{"s":0,"k":{"a":0.100000}}"#));
    assert!(told.iter().all(|reply| reply.body.starts_with(r#"{"s":1,"#)));
    server.await_waiters(0);
}

/// Whether its answer has arrived.
fn has_begun(exchange: &Exchange) -> bool {
    let mut fds = [PollFd::new(exchange, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
}

#[test]
fn many_visitors_do_not_stall_apache() {
    let server = stock_apache();
    for _ in 0..3 {
        let crowd = visitors(&server, 200, |number| format!("10.0.0.{number}"));
        the_rest_of_the_site_goes_on(&server, crowd, 100);
        fs::remove_file(server.event_file("a")).unwrap();
    }
}

#[test]
fn many_tabs_do_not_stall_apache() {
    let server = stock_apache();
    let tabs = visitors(&server, 200, |_| "10.0.0.1".into());
    server.await_waiters(25);
    let others = visitors(&server, 25, |number| format!("10.0.1.{number}"));
    the_rest_of_the_site_goes_on(&server, tabs.into_iter().chain(others).collect(), 50);
}

#[test]
fn many_streams_do_not_stall_apache() {
    let server = stock_apache();
    let target = "GET /comet.cgi?subscribed[a]=0&stream=1";
    let send = |number| {
        let address = format!("X-Forwarded-For: 10.0.0.{number}");
        Exchange::send(server.port(), target, &[&address], b"")
    };
    let streams: Vec<_> = (0..200).map(send).collect();
    eventually("each stream begins", || streams.iter().all(has_begun));
    server.await_waiters(100);
    assert_eq!(server.get("/novcomet/").status, 200);
    server.terminate_waiters();
    let replies = streams.into_iter().map(Exchange::reply);
    let away = replies.filter(|reply| reply.header("Retry-After").is_some());
    assert_eq!(away.count(), 100);
}

/// No proxy tells the clients apart, so all have the address 127.0.0.1.
#[test]
fn lighttpd_has_the_same_slots() {
    let server = Server::start(Kind::Lighttpd);
    let crowd = visitors(&server, 100, |_| "10.0.0.1".into());
    the_rest_of_the_site_goes_on(&server, crowd, 25);
}

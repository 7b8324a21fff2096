//! The figures in Prometheus' format: their sums, amid kills too, and who may see them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use novcomet::process::sys::try_lock_bytes;

use crate::support::binary::{Call, Store};
use crate::support::dir::make_file;
use crate::support::exposition::{check, value};
use crate::support::host::{found, is_root, not_run};
use crate::support::tokens::Keys;
use crate::support::wait::eventually;

const PAGE: &str = include_str!("../../docs/metrics.md");
/// As long as the file, and longer.
static ZEROS: &[u8] = &[0; 65_536];
/// The bytes of a slot.
const SLOT: i64 = 96 * 8;
const PUBLISHES: &str = "novcomet_publishes_total";

/// A call as of a browser on the server's own machine.
fn local(store: &Store, query: &str) -> Call {
    let call = store.query(query).method("GET").variable("SERVER_PROTOCOL", "HTTP/1.1");
    call.variable("REMOTE_ADDR", "127.0.0.1").variable("HTTP_HOST", "localhost")
}

fn scrape(store: &Store) -> String {
    let answer = local(store, "metrics=1").answer();
    assert_eq!((answer.status(), answer.log.as_str()), (200, ""), "{answer:?}");
    check(&answer.body);
    answer.body
}

/// A store whose figures are counted.
fn counted() -> Store {
    let store = Store::new();
    scrape(&store);
    store
}

fn file(store: &Store) -> std::path::PathBuf {
    let name = store.names().into_iter().find(|name| name.starts_with(".novcomet.figures-"));
    store.0.join(name.unwrap())
}

/// The example of docs/metrics.md, but for the version and the bytes of two lines.
#[test]
fn example_is_what_is_sent() {
    let store = counted();
    for query in ["publish=a&data=one", "publish=a&data=two", "publish=b"] {
        assert_eq!(local(&store, query).answer().body, "true");
    }
    assert!(local(&store, "subscribed[a]=earliest&wait=0").answer().body.contains("two"));
    local(&store, "subscribed[a]=x").answer().assert_problem(400);
    let answer = local(&store, "metrics=1").answer();
    assert!(answer.head.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
    let bytes = value(&answer.body, "novcomet_store_bytes").to_string();
    let sent = answer.body.replace(&format!("bytes {bytes}\n"), "bytes 175\n");
    let indented = format!("    {}\n", sent.trim_end().replace('\n', "\n    "));
    assert!(PAGE.contains(&indented), "not in docs/metrics.md:\n{indented}");
    let size = fs::metadata(store.file("a")).unwrap().len();
    assert_eq!(bytes, size.to_string(), "b is empty");
}

/// Prometheus' own check.
#[test]
fn promtool_accepts_them() {
    let Some(promtool) = found("promtool") else {
        return not_run("promtool check metrics", "Debian's package prometheus, unpacked");
    };
    let store = counted();
    assert_eq!(local(&store, "publish=a").answer().body, "true");
    let text = store.0.join("text");
    fs::write(&text, scrape(&store)).unwrap();
    let checked =
        Command::new(promtool).args(["check", "metrics"]).stdin(File::open(text).unwrap()).output();
    let checked = checked.unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
}

#[test]
fn nothing_is_written_before_they_are_asked_for() {
    let store = Store::new();
    let before = local(&store, "subscribed[a]=0&wait=0").answer();
    assert_eq!(before.status(), 200);
    assert_eq!(local(&store, "publish=a").answer().body, "true");
    assert_eq!(store.names(), ["a.comet"]);
    assert_eq!(value(&scrape(&store), PUBLISHES), 0);
    assert_eq!(store.names().len(), 2);
    assert_eq!(local(&store, "publish=a").answer().body, "true");
    assert_eq!(value(&scrape(&store), PUBLISHES), 1);
    let off = |query| local(&store, query).variable("NOVCOMET_METRICS", "off");
    assert_eq!(off("publish=a").answer().body, "true");
    assert_eq!(value(&scrape(&store), PUBLISHES), 1, "it does not count");
}

/// Many publishers at once, none of which is killed: the sum is exact.
#[test]
fn publishes_of_many_processes_are_counted_exactly() {
    const EACH: u64 = 40;
    let store = counted();
    thread::scope(|scope| {
        for number in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..EACH {
                    let query = format!("publish=a&publish=own{number}&data=x");
                    assert_eq!(store.query(&query).answer().body, "true");
                }
            });
        }
    });
    let text = scrape(&store);
    assert_eq!(value(&text, PUBLISHES), 2 * 8 * EACH);
    assert_eq!(value(&text, "novcomet_topics"), 9);
    assert_eq!(value(&text, "novcomet_store_errors_total"), 0);
}

/// Two publishers write at the same time, and two slots are free. Without a lock the second
/// would write over the number of the first.
#[test]
fn simultaneous_counts_do_not_overwrite_each_other() {
    let store = counted();
    let held = File::options().read(true).write(true).open(file(&store)).unwrap();
    assert!(try_lock_bytes(&held, 0..62 * SLOT).unwrap());
    let slow = |query: &str| {
        let inject = "inject=pwrite64:delay_enter=300000";
        store.query(query).by("strace", &["-o", "/dev/null", "-e", inject]).start()
    };
    let both = [slow("publish=a"), slow("publish=b")];
    for publisher in both {
        assert_eq!(publisher.answer().body, "true");
    }
    assert_eq!(value(&scrape(&store), PUBLISHES), 2);
}

/// The messages that the topic keeps: all that were published.
fn stored(store: &Store) -> u64 {
    let answer = store.query("info[a]=1").answer().body;
    let rest = answer.split_once(r#""messages":"#).unwrap().1;
    rest.split(',').next().unwrap().parse().unwrap()
}

/// Publishers that are killed at any moment: what is acknowledged is counted, and what is
/// counted is stored.
#[test]
fn killed_publishers_are_counted_between_acknowledged_and_stored() {
    const ATTEMPTS: u64 = 240;
    let store = counted();
    let acknowledged: u64 = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|seed| {
                let store = &store;
                scope.spawn(move || {
                    let publish = |number: u64| {
                        let publisher = store.query("publish=a&data=x").start();
                        let until = Instant::now() + Duration::from_micros(number * 97 % 2_000);
                        while Instant::now() < until {
                            thread::yield_now();
                        }
                        publisher.signal("KILL");
                        let output = publisher.take().wait_with_output().unwrap();
                        u64::from(output.stdout.ends_with(b"true"))
                    };
                    (0..ATTEMPTS / 4).map(|number| publish(4 * number + seed)).sum::<u64>()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let counted = value(&scrape(&store), PUBLISHES);
    let stored = stored(&store);
    let all = (acknowledged, counted, stored, ATTEMPTS);
    assert!(acknowledged <= counted && counted <= stored && stored <= ATTEMPTS, "{all:?}");
}

/// Publishes by strace(1) with these options. Returns whether that was acknowledged, and the
/// names of the system calls.
fn traced(store: &Store, options: &[&str]) -> (bool, Vec<String>) {
    let beside = Store::new();
    let trace = beside.0.join("trace");
    let arguments = [&["-o", trace.to_str().unwrap()], options].concat();
    let output = store.query("publish=a&data=x").by("strace", &arguments).output();
    let trace = fs::read_to_string(trace).expect("strace traces; `make test` installs it");
    let calls = trace.lines().filter_map(|line| Some(line.split_once('(')?.0.to_owned()));
    (output.stdout.ends_with(b"true"), calls.collect())
}

/// A publisher is killed at each of its system calls in turn.
#[test]
fn publisher_killed_at_any_step_is_counted_once_or_not() {
    let store = counted();
    assert!(traced(&store, &[]).0);
    let (is_acknowledged, calls) = traced(&store, &[]);
    assert!(is_acknowledged && calls.len() > 30, "{calls:?}");
    let (mut acknowledged, mut numbers) = (2, BTreeMap::new());
    for name in &calls[1..] {
        let number = numbers.entry(name).or_insert(0);
        *number += 1;
        let inject = format!("inject={name}:signal=KILL:when={number}");
        acknowledged += u64::from(traced(&store, &["-e", &inject]).0);
        let (counted, stored) = (value(&scrape(&store), PUBLISHES), stored(&store));
        assert!(acknowledged <= counted && counted <= stored, "{acknowledged} {counted} {stored}");
    }
    let (counted, stored) = (value(&scrape(&store), PUBLISHES), stored(&store));
    assert!(acknowledged > 2, "some calls come after the answer");
    assert!(counted > acknowledged, "some were killed after they had counted");
    assert!(stored > counted && stored - counted < 15, "{stored} {counted}");
}

#[test]
fn deliveries_gaps_and_wakes_are_counted() {
    let store = counted();
    for data in ["1", "2", "3"] {
        assert_eq!(local(&store, &format!("publish=a&data={data}")).answer().body, "true");
    }
    local(&store, "subscribed[a]=earliest&wait=0").answer();
    let text = scrape(&store);
    assert_eq!(value(&text, "novcomet_deliveries_total"), 3);
    assert_eq!(value(&text, "novcomet_wake_seconds_count"), 0, "nobody has waited");
    assert!(local(&store, "subscribed[a]=1.5&wait=0").answer().body.contains("gap"));
    assert_eq!(value(&scrape(&store), "novcomet_gaps_total"), 1);
    for query in ["subscribed[b]=0", "matching=**"] {
        let before = value(&scrape(&store), "novcomet_wake_seconds_count");
        let waiter = store.query(query).waiting();
        assert_eq!(local(&store, "publish=b&data=x").answer().body, "true");
        waiter.answer();
        let text = scrape(&store);
        assert_eq!(value(&text, "novcomet_wake_seconds_count"), before + 1, "{query}");
    }
    let sum = scrape(&store);
    let sum = sum.lines().find_map(|line| line.strip_prefix("novcomet_wake_seconds_sum "));
    let sum: f64 = sum.unwrap().parse().unwrap();
    assert!(sum > 0.0 && sum < 20.0, "{sum}");
}

#[test]
fn refusals_are_counted_by_status() {
    let store = counted();
    let denied = |call: Call| call.variable("NOVCOMET_PUBLISH", "none").answer().status();
    assert_eq!(denied(local(&store, "publish=a")), 403);
    assert_eq!(denied(local(&store, "publish=a")), 403);
    assert_eq!(local(&store, "nothing=1").answer().status(), 400);
    assert_eq!(local(&store, "").method("QUERY").answer().status(), 405);
    let long = local(&store, "").form(&"x".repeat(2_000)).variable("NOVCOMET_MAX_DATA", "1");
    assert_eq!(long.variable("CONTENT_LENGTH", "200000").answer().status(), 413);
    fs::create_dir(store.file("broken")).unwrap();
    assert_eq!(local(&store, "publish=broken").answer().status(), 503);
    let text = scrape(&store);
    let of =
        |status: &str| value(&text, &format!("novcomet_refusals_total{{status=\"{status}\"}}"));
    let all = ["400", "401", "403", "405", "413", "503"].map(of);
    assert_eq!(all, [1, 0, 2, 1, 1, 1]);
    assert_eq!(value(&text, "novcomet_store_errors_total"), 1);
    assert_eq!(value(&text, PUBLISHES), 0);
}

#[test]
fn refused_slots_are_counted() {
    let store = counted();
    let wait = || local(&store, "subscribed[a]=0").variable("NOVCOMET_MAX_WAITERS", "1");
    let first = wait().waiting();
    let refused = wait().answer();
    assert!(refused.head.contains("Retry-After"), "{refused:?}");
    let answer = local(&store, "metrics=1").variable("NOVCOMET_MAX_WAITERS", "1").answer();
    let figures = ["used", "max", "refused_total"].map(|name| format!("novcomet_slots_{name}"));
    assert_eq!(figures.map(|name| value(&answer.body, &name)), [1, 1, 1]);
    assert_eq!(value(&answer.body, "novcomet_waiters{transport=\"poll\"}"), 1, "{}", answer.body);
    drop(first);
}

#[test]
fn waiters_are_counted_by_transport() {
    let store = counted();
    let polls: Vec<_> = (0..3).map(|_| local(&store, "subscribed[a]=0").waiting()).collect();
    let streams: Vec<_> =
        (0..2).map(|_| local(&store, "subscribed[a]=0&stream=1").waiting()).collect();
    let of =
        |name: &str| value(&scrape(&store), &format!("novcomet_waiters{{transport=\"{name}\"}}"));
    eventually("all wait together", || (of("poll"), of("stream")) == (3, 2));
    drop((polls, streams));
}

/// The leader's own answer ends, and the standby leads. It is killed, and another leads.
#[test]
fn handovers_and_lost_leaders_are_counted() {
    let store = counted();
    let of = |name: &str| value(&scrape(&store), name);
    let leader = local(&store, "subscribed[a]=0&subscribed[first]=0").waiting();
    let second = local(&store, "subscribed[a]=0&subscribed[second]=0").waiting();
    let name = "novcomet_waiters{transport=\"poll\"}";
    eventually("both wait together", || of(name) == 2);
    assert_eq!(local(&store, "publish=first").answer().body, "true");
    leader.answer();
    eventually("the standby leads", || of("novcomet_handovers_total") == 1);
    let third = local(&store, "subscribed[a]=0&subscribed[third]=0").waiting();
    eventually("both wait together", || of(name) == 2);
    second.signal("KILL");
    eventually("the standby has lost it", || of("novcomet_lost_leaders_total") == 1);
    drop((second, third));
}

#[test]
fn only_local_clients_see_them_unless_configured() {
    let store = Store::new();
    let keys = Keys::new();
    let granted = keys.token(r#"{"subscribe":["novcomet/metrics"]}"#);
    let other = keys.token(r#"{"subscribe":["news"]}"#);
    let remote = |rule: &str, token: &str| {
        let call = local(&store, "metrics=1").variable("REMOTE_ADDR", "192.0.2.1");
        let call = call.variable("NOVCOMET_METRICS", rule);
        let call = call.variable("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
        let token = if token.is_empty() { String::new() } else { format!("Bearer {token}") };
        call.variable("HTTP_AUTHORIZATION", &token).answer().status()
    };
    for (rule, token, status) in [
        ("loopback", "", 403),
        ("loopback", granted.as_str(), 403),
        ("off", granted.as_str(), 403),
        ("token", "", 401),
        ("token", other.as_str(), 403),
    ] {
        assert_eq!(remote(rule, token), status, "{rule} {token}");
        assert_eq!(store.names(), [""; 0], "{rule}: a refused client begins nothing");
    }
    assert_eq!(remote("all", ""), 200);
    assert_eq!(remote("token", &granted), 200);
    for (name, value) in [("HTTP_X_FORWARDED_FOR", "192.0.2.1"), ("HTTP_HOST", "pages.example")] {
        assert_eq!(local(&store, "metrics=1").variable(name, value).answer().status(), 403);
    }
    let off = store.query("metrics=1").variable("NOVCOMET_METRICS", "off");
    assert_eq!(off.answer().status(), 403, "of a shell too");
    assert_eq!(store.query("metrics=1").answer().status(), 200);
}

#[test]
fn url_of_their_own_needs_no_parameter() {
    let store = Store::new();
    for (script, info) in [("/novcomet/metrics", ""), ("/comet.cgi", "/metrics")] {
        let call = local(&store, "").variable("SCRIPT_NAME", script).variable("PATH_INFO", info);
        let answer = call.answer();
        assert!(answer.body.starts_with("# HELP novcomet_build_info "), "{answer:?}");
    }
    let health = local(&store, "").variable("SCRIPT_NAME", "/novcomet/health").answer();
    assert_eq!(health.body, r#"{"status":"pass"}"#);
}

/// A neighbour plants something at the file's name, or shortens the file.
#[test]
fn planted_file_stops_no_publish() {
    let store = counted();
    let path = file(&store);
    let publish = || {
        let answer = local(&store, "publish=a").answer();
        assert_eq!((answer.body.as_str(), answer.log.as_str()), ("true", ""));
        scrape(&store)
    };
    assert_eq!(value(&publish(), PUBLISHES), 1);
    File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
    assert_eq!(value(&publish(), PUBLISHES), 0, "it was too short");
    let plant: [&dyn Fn(); 5] = [
        &|| make_file(&path, ZEROS, 0o622),
        &|| {
            make_file(&store.0.join("other"), ZEROS, 0o600);
            symlink(store.0.join("other"), &path).unwrap();
        },
        &|| assert!(Command::new("mkfifo").arg(&path).status().unwrap().success()),
        &|| fs::create_dir(&path).unwrap(),
        &|| {
            make_file(&path, ZEROS, 0o600);
            fs::hard_link(&path, store.0.join("linked")).unwrap();
        },
    ];
    for plant in plant {
        let _ = fs::remove_file(&path);
        plant();
        publish();
        let content = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        assert!(content.iter().all(|&byte| byte == 0), "nothing was counted there");
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir(&path).unwrap();
        }
    }
}

/// The file is shortened while a process has it mapped: it goes on, and does not count.
#[test]
fn file_that_is_shortened_later_ends_nobody() {
    let store = counted();
    let waiter = store.query("subscribed[a]=0").waiting();
    File::options().write(true).open(file(&store)).unwrap().set_len(0).unwrap();
    assert_eq!(local(&store, "publish=a&data=x").answer().body, "true");
    assert_eq!(waiter.answer().cursor("a").0, '1');
    assert_eq!(value(&scrape(&store), PUBLISHES), 0, "they begin again");
    assert_eq!(local(&store, "publish=a").answer().body, "true");
    assert_eq!(value(&scrape(&store), PUBLISHES), 1);
}

/// The processes of each user count in a file of their own, which nobody else can lock.
#[test]
fn each_user_has_a_file() {
    if !is_root() {
        return not_run("figures of two users", "root");
    }
    let store = counted();
    let ask = |query: &str, user| local(&store, query).user(user).answer();
    assert_eq!(ask("publish=a", 4321).body, "true");
    assert_eq!(value(&ask("metrics=1", 4321).body, PUBLISHES), 0, "it had not asked");
    for user in [0, 4321, 4321] {
        assert_eq!(ask(&format!("publish=u{user}"), user).body, "true");
    }
    assert_eq!(value(&scrape(&store), PUBLISHES), 1);
    assert_eq!(value(&ask("metrics=1", 4321).body, PUBLISHES), 2);
    let mode = fs::metadata(file(&store)).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "nobody else may open it");
}

/// Other processes hold the locks of all slots but one, and then of all. No publish waits.
#[test]
fn held_slots_delay_no_publish() {
    let store = counted();
    let held = File::options().read(true).write(true).open(file(&store)).unwrap();
    let publish = || {
        let begin = Instant::now();
        assert_eq!(local(&store, "publish=a").answer().body, "true");
        assert!(begin.elapsed() < Duration::from_secs(1));
        value(&scrape(&store), PUBLISHES)
    };
    assert!(try_lock_bytes(&held, 0..63 * SLOT).unwrap());
    assert_eq!(publish(), 1);
    assert!(try_lock_bytes(&held, 63 * SLOT..64 * SLOT).unwrap());
    assert_eq!(publish(), 1, "it is published and not counted");
}

/// The file of the figures is longer than a log may be then.
#[test]
fn small_limits_do_not_stop_the_figures() {
    let store = Store::new();
    let call = |query: &str| {
        let call = local(&store, query).variable("NOVCOMET_KEEP_BYTES", "4096");
        call.variable("NOVCOMET_MAX_DATA", "1024")
    };
    call("metrics=1").answer();
    call("publish=a").answer();
    assert_eq!(value(&call("metrics=1").answer().body, PUBLISHES), 1);
}

#[test]
fn head_has_the_type_of_the_figures() {
    let store = Store::new();
    let [get, head] = ["GET", "HEAD"].map(|it| local(&store, "metrics=1").method(it).answer());
    assert_eq!(get.header("Content-Type"), head.header("Content-Type"));
    assert_eq!(head.body, "");
}

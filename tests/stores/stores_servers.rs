//! Two web servers, Apache and lighttpd, as on two machines. They share only the address of a
//! Redis or a memcached.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::support::server::{Exchange, Server};
use crate::support::{server, store};

use crate::support::server::Kind::{ApacheEvent, Lighttpd};
use crate::support::store::Backend;

#[test]
fn two_servers_share_a_redis() {
    two_servers_share(store::Kind::Redis);
}

#[test]
fn two_servers_share_a_memcached() {
    two_servers_share(store::Kind::Memcached);
}

fn two_servers_share(kind: store::Kind) {
    let backend = Backend::start_on_port(kind, &[]);
    let servers = [ApacheEvent, Lighttpd].map(|web| over(&backend, web));
    // The cursor is not that of now, because a process that talks to a server sleeps too and
    // may not have read yet.
    let mut at = "0.1".to_owned();
    for publisher in [0, 1, 0] {
        let query = format!("subscribed[b]=0&subscribed[a]={at}");
        let subscribers = servers.each_ref().map(|server| server.subscriber(&query));
        let posted = servers[publisher].post("/comet.cgi", "publish=a&data=to+all").body;
        let news = subscribers.map(|subscriber| subscriber.reply().body);
        let id = posted.strip_prefix(r#"{"s":1,"k":{"a":"#).unwrap().strip_suffix("}}").unwrap();
        let m = format!(r#""m":{{"a":[{{"id":{id},"data":"to all"}}]}}"#);
        assert_eq!(news, [(); 2].map(|()| format!(r#"{{"s":1,"k":{{"a":{id}}},{m}}}"#)));
        id.clone_into(&mut at);
    }
    // A message that was published through one server is replayed through the other.
    let replays =
        servers.each_ref().map(|server| server.get("/comet.cgi?subscribed[a]=earliest").body);
    assert!(replays[0] == replays[1] && replays[0].matches("to all").count() == 3, "{replays:?}");
    for server in &servers {
        assert_eq!(server.complaints(), [""; 0]);
        assert!(std::fs::read_dir(server.store()).unwrap().next().is_none(), "no file was made");
    }
}

fn over(backend: &Backend, web: server::Kind) -> Server {
    Server::setup(web).store(&backend.url()).start()
}

/// The time from a publish to the answer of one subscriber, over every store in turn.
/// docs/stores.md has the figures.
#[test]
fn publish_time_is_printed() {
    const ROUNDS: usize = 40;
    for web in [ApacheEvent, Lighttpd] {
        for kind in [store::Kind::File, store::Kind::Redis, store::Kind::Memcached] {
            // The store is a directory of the server, or a store server beside it.
            let backend = (kind != store::Kind::File).then(|| Backend::start_on_port(kind, &[]));
            let server = match &backend {
                None => Server::start(web),
                Some(backend) => over(backend, web),
            };
            let mut at = "0.1".to_owned();
            let mut times: Vec<_> = (0..ROUNDS).map(|_| one_round(&server, &mut at)).collect();
            times.sort();
            let (median, last) = (times[ROUNDS / 2], times[ROUNDS - 1]);
            let line = format!("{web:?}, {kind:?}: median {median:.1?}, longest {last:.1?}\n");
            // Writes to stderr directly, because the test harness captures printed text.
            io::stderr().write_all(line.as_bytes()).unwrap();
        }
    }
}

fn one_round(server: &Server, at: &mut String) -> Duration {
    let subscriber = server.subscriber(&format!("subscribed[a]={at}"));
    let begin = Instant::now();
    let publisher = server.send("GET /comet.cgi?publish=a&data=x");
    await_answer(&subscriber);
    let took = begin.elapsed();
    assert_eq!(publisher.reply().body, "true");
    let body = subscriber.reply().body;
    let cursor = body.strip_prefix(r#"{"s":1,"k":{"a":"#).and_then(|rest| rest.split_once('}'));
    cursor.expect("news").0.clone_into(at);
    took
}

fn await_answer(exchange: &Exchange) {
    let mut fds = [PollFd::new(exchange, PollFlags::IN)];
    assert_eq!(poll(&mut fds, None).unwrap(), 1);
}

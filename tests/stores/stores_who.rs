//! Web servers with one Redis tell each other who waits.

use crate::support::binary::Call;
use crate::support::host::{is_root, not_run};
use crate::support::store::{Backend, Kind, over_every_store};
use crate::support::wait::eventually;

over_every_store! {
    subscribers_of_all_servers_are_told
    shell_is_told_of_every_server_once
}

/// A request through one of several servers, whose settings differ.
fn call(backend: &Backend, server: &str, query: &str) -> Call {
    let call = Call::new().variable("NOVCOMET_STORE", &backend.url()).method("GET");
    let call = call.variable("GATEWAY_INTERFACE", "CGI/1.1").variable("NOVCOMET_SLEEP", server);
    let call = call.variable("NOVCOMET_PRESENCE", "on").variable("NOVCOMET_NAMES", "parameter");
    call.variable("QUERY_STRING", query)
}

fn who(backend: &Backend, server: &str) -> String {
    call(backend, server, "who[room]=1").answer().body
}

fn told(number: usize, names: &str) -> String {
    format!(r#"{{"who":{{"room":{{"number":{number},"names":[{names}]}}}}}}"#)
}

/// A store of files, and memcached, tell only of the server that is asked.
fn subscribers_of_all_servers_are_told(kind: Kind) {
    let backend = Backend::start(kind);
    let wait = |server: &str, query: &str| call(&backend, server, query).waiting();
    let own = wait("2", "subscribed[room]=0&name=a&stream=1");
    // With a killed leader all of its subscribers would go.
    eventually("it leads", || own.read_proc("comm").trim() == "comet: leader");
    let second = wait("2", "subscribed[other]=0&subscribed[room]=0&name=b");
    let other = wait("3", "subscribed[room]=0&name=c&stream=1");
    if !matches!(kind, Kind::Redis | Kind::RedisTls) {
        return eventually("its own are told", || {
            who(&backend, "2") == told(2, r#""a","b""#) && who(&backend, "3") == told(1, r#""c""#)
        });
    }
    for server in ["2", "3"] {
        let all = told(3, r#""a","b","c""#);
        eventually("all are told", || who(&backend, server) == all);
    }
    drop(second);
    for server in ["2", "3"] {
        eventually("one has gone", || who(&backend, server) == told(2, r#""a","c""#));
    }
    drop(other);
    eventually("a server has ended", || who(&backend, "2") == told(1, r#""a""#));
    let publish = call(&backend, "3", "publish=room&data=x").answer().body;
    assert_eq!(publish, "true", "subscribers still hear");
    drop(own);
}

/// What a shell prints.
fn shell(backend: &Backend, call: Call) -> String {
    let call = call.variable("NOVCOMET_STORE", &backend.url());
    let output = call.argument("who").argument("room").argument("--names").output();
    String::from_utf8(output.stdout).unwrap()
}

const BOTH: &str = "room\t2\ta\tc\n";

/// A leader that is asked, and has told the store too, counts once.
fn shell_is_told_of_every_server_once(kind: Kind) {
    let backend = Backend::start(kind);
    let wait = |server: &str, query: &str| call(&backend, server, query).waiting();
    let _own = wait("2", "subscribed[room]=0&name=a&stream=1");
    let _other = wait("3", "subscribed[room]=0&name=c&stream=1");
    eventually("both have told", || match kind {
        Kind::Redis | Kind::RedisTls => who(&backend, "2") == told(2, r#""a","c""#),
        _ => who(&backend, "2") == told(1, r#""a""#) && who(&backend, "3") == told(1, r#""c""#),
    });
    assert_eq!(shell(&backend, Call::new()), BOTH);
}

/// A shell that may not ask a server reads what it has told.
#[test]
fn redis_tells_a_shell_of_another_user() {
    if !is_root() {
        return not_run("a shell of another user", "root");
    }
    let backend = Backend::start_on_port(Kind::Redis, &[]);
    let wait = |server: &str, query: &str| call(&backend, server, query).waiting();
    let _own = wait("2", "subscribed[room]=0&name=a&stream=1");
    let _other = wait("3", "subscribed[room]=0&name=c&stream=1");
    eventually("both have told", || shell(&backend, Call::new().user(4321)) == BOTH);
}

/// A subscriber by pattern of another server counts where it may receive events.
#[test]
fn subscribers_by_pattern_are_told_over_redis() {
    let backend = Backend::start(Kind::Redis);
    let call = |server: &str, query: &str| {
        call(&backend, server, query)
            .variable("NOVCOMET_PRIVATE", "secret")
            .variable("NOVCOMET_TOKEN_KEY", "/nowhere/key")
    };
    let _other = call("3", "matching=*&name=p&stream=1").waiting();
    let _named = call("3", "subscribed[room]=0&name=n&stream=1").waiting();
    let who = || shell(&backend, Call::new());
    let all = |topic: &str| call("2", &format!("who[{topic}]=1")).answer().body;
    eventually("both are told", || all("room") == told(2, r#""n","p""#));
    assert_eq!(all("any"), r#"{"who":{"any":{"number":1,"names":["p"]}}}"#);
    assert_eq!(who(), "room\t2\tn\tp\n");
    let apart = self::call(&backend, "2", "who[secret]=1").answer().body;
    assert_eq!(apart, r#"{"who":{"secret":{"number":0,"names":[]}}}"#, "it may not receive it");
}

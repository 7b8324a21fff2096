//! What an attacker, or a crowd, can take: each limit, by the real binary.

mod comet;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use comet::{Store, Waiter};

// Of a request.

#[test]
fn a_request_names_64_topics_and_no_more() {
    let store = Store::new();
    let many =
        |count: usize, one: fn(usize) -> String| (0..count).map(one).collect::<Vec<_>>().join("&");
    let subscribe = |count| many(count, |number| format!("subscribed[{number}]=0")) + "&wait=0";
    let publish = |count| many(count, |number| format!("publish={number}"));
    store.query(&subscribe(65)).answer().assert_problem(400);
    store.query(&publish(65)).answer().assert_problem(400);
    store.query("publish=x").form(&publish(64)).answer().assert_problem(400);
    assert_eq!(store.names(), [""; 0]);
    assert!(store.query(&subscribe(64)).answer().body.starts_with(r#"{"s":0,"#));
    let twice = format!("{}&{}", publish(64), publish(64));
    assert_eq!(store.query("").form(&twice).answer().status(), 200);
    assert_eq!(store.names().len(), 64);
}

/// By a pipe, as from `mod_cgi`, and by a socket, as from `mod_cgid`. All the
/// while the sender has not gone; the test lasts as long as the deadline.
#[test]
fn a_body_that_does_not_come_ends_at_its_deadline() {
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

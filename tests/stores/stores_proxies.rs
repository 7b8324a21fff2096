//! What other programs do in a store is told to proxies by those who wait.

use std::fs;
use std::net::TcpListener;

use novcomet::event::{Since, Topic};

use crate::support::binary::Call;
use crate::support::control::{OK, serve, url};
use crate::support::dir::create_by_kernel;
use crate::support::store::{Backend, Kind, over_every_store};

over_every_store! {
    leader_forwards_what_others_do
}

/// Does in the topic `a` what any program can do; `None` if only ours can.
fn change(backend: &Backend) -> Option<()> {
    match backend.kind {
        Kind::File => {
            let file = backend.directory().join("a.comet");
            fs::remove_file(&file).unwrap();
            create_by_kernel(&file);
        }
        Kind::Redis | Kind::RedisTls => {
            backend.redis(&["XADD", "novcomet:a", "*", "data", "from afar"]);
        }
        Kind::Memcached => return None,
    }
    Some(())
}

fn leader_forwards_what_others_do(kind: Kind) {
    let backend = Backend::start(kind);
    let (store, topic) = (backend.open(), Topic::new("a").unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let call = Call::new().variable("NOVCOMET_STORE", &backend.url()).method("GET");
    let call = call.variable("NOVCOMET_GRIP", &url(&listener));
    let call = call.variable("GATEWAY_INTERFACE", "CGI/1.1");
    let leader = call.variable("QUERY_STRING", "subscribed[a]=&stream=1").waiting();
    for _ in 0..20 {
        // A publisher without a proxy tells nobody, and nobody does that in its place.
        store.publish(&topic, Some("ours")).unwrap();
        if change(&backend).is_none() {
            assert_eq!(store.untold(&topic), Ok(None));
            continue;
        }
        let last = store.read(&topic, Since::Now, 1).unwrap().standing;
        let told = serve(&listener, OK);
        assert_eq!(told.matches(&format!("\"id\":\"{last}\"")).count(), 2, "{told}");
        assert!(told.contains("\"channel\":\"novcomet-a\""), "{told}");
    }
    leader.await_sleep();
}

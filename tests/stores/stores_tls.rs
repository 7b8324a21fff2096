//! Redis over TLS: the server's certificate, our certificate, and the messages about faults.
//! `store.rs`, `stores_wire.rs` and `stores_faults.rs` have all other tests of it.
#![cfg(feature = "tls")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::support::authority::{Authority, BEFORE, LATER};
use crate::support::binary::{Answer, Call};
use crate::support::host::{is_root, not_run};
use crate::support::store::{Backend, Kind};
use crate::support::wait::eventually;

fn ask(url: &str, query: &str) -> Answer {
    let call = Call::new().variable("NOVCOMET_STORE", url).variable("NOVCOMET_SANDBOX", "require");
    call.variable("QUERY_STRING", query).answer()
}

fn assert_serves(url: &str) {
    assert_eq!(ask(url, "publish=a&data=x").body, "true", "{url}");
    let body = ask(url, "subscribed[a]=earliest").body;
    assert!(body.contains(r#""data":"x""#), "{url}: {body}");
}

/// One line of the log has the fault and its correction.
fn assert_refused(url: &str, why: &str) {
    for query in ["publish=a&data=x", "subscribed[a]=0&wait=1"] {
        let answer = ask(url, query);
        answer.assert_problem(503);
        let log = &answer.log;
        assert!(log.starts_with("novcomet: cannot use Redis at ") && log.contains(why), "{log}");
        assert!(
            log.ends_with("; correct its certificate, or ca, cert and key in NOVCOMET_STORE\n")
        );
        assert!(!answer.body.contains("/dev/shm"), "{answer:?}");
    }
}

/// A Redis that shows the certificate of this name and requests none.
fn showing(authority: &Authority, name: &str) -> Backend {
    let [cert, key] = ["pem", "key"].map(|end| authority.file(&format!("{name}.{end}")));
    let shows = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-auth-clients", "no"];
    Backend::start_on_port(Kind::RedisTls, &shows)
}

#[test]
fn server_certificate_needs_the_right_name() {
    let authority = Authority::new();
    authority.certify("by-address", "IP:127.0.0.1", LATER);
    authority.certify("by-name", "DNS:localhost", LATER);
    authority.certify("expired", "IP:127.0.0.1,DNS:localhost", BEFORE);
    let ca = authority.file("ca.pem");
    for (shown, host, why) in [
        ("by-address", "127.0.0.1", None),
        ("by-name", "localhost", None),
        ("by-address", "localhost", Some("not valid for name \"localhost\"")),
        ("by-name", "127.0.0.1", Some("not valid for name \"127.0.0.1\"")),
        ("expired", "127.0.0.1", Some("certificate expired")),
        ("expired", "localhost", Some("certificate expired")),
    ] {
        let backend = showing(&authority, shown);
        let url = format!("rediss://{host}:{}/0?ca={ca}", backend.port());
        match why {
            None => assert_serves(&url),
            Some(why) => assert_refused(&url, why),
        }
        assert_eq!(backend.is_untouched(), why.is_some(), "{shown} as {host}");
    }
}

/// Another authority of the same name is not accepted, nor is the server's own certificate.
/// Without `ca`, the authorities of the system count.
#[test]
fn server_certificate_needs_a_trusted_authority() {
    let backend = Backend::start(Kind::RedisTls);
    let stranger = Authority::new();
    let own = backend.authority().file("server.pem");
    for (ca, why) in [
        (format!("?ca={}", stranger.file("ca.pem")), "BadSignature"),
        (format!("?ca={own}"), "UnknownIssuer"),
        (String::new(), "UnknownIssuer"),
    ] {
        let url = format!("rediss://127.0.0.1:{}/0{ca}", backend.port());
        assert_refused(&url, &format!("invalid peer certificate: {why}"));
    }
    assert!(backend.is_untouched());
}

/// The system trusts the authority of the tests.
#[test]
fn default_authorities_are_those_of_system() {
    const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";
    let can_mount = Command::new("unshare").args(["-m", "true"]).status();
    if !is_root() || !can_mount.is_ok_and(|status| status.success()) {
        not_run("an authority that the system believes", "root");
        return;
    }
    let authority = Authority::new();
    authority.certify("server", "IP:127.0.0.1", LATER);
    let ours = fs::read_to_string(authority.file("ca.pem")).unwrap();
    let all = fs::read_to_string(SYSTEM).expect("`make test` installs ca-certificates") + &ours;
    fs::write(authority.file("all.pem"), all).unwrap();
    let backend = showing(&authority, "server");
    let url = format!("rediss://127.0.0.1:{}/0", backend.port());
    let mount = format!("mount --bind {} {SYSTEM} && exec \"$0\"", authority.file("all.pem"));
    let call = Call::new().variable("NOVCOMET_STORE", &url).variable("QUERY_STRING", "publish=a");
    assert_eq!(call.by("unshare", &["-m", "sh", "-c", &mount]).answer().body, "true");
}

/// The server sends the beginning of a handshake record, and then nothing, or a byte from time
/// to time.
#[test]
fn endless_handshake_times_out() {
    for dribbles in [false, true] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut bytes = &b"\x16\x03\x03\x10\x00\x02\x00\x0f\xfc"[..];
                    while stream.write_all(bytes).is_ok() {
                        thread::sleep(Duration::from_millis(if dribbles { 50 } else { 5000 }));
                        bytes = b"\x03";
                    }
                });
            }
        });
        for query in ["publish=a", "subscribed[a]=0&wait=0"] {
            let begin = Instant::now();
            let answer = ask(&format!("rediss://127.0.0.1:{port}/0"), query);
            let took = begin.elapsed();
            answer.assert_problem(503);
            assert!(answer.log.contains("it does not answer in time"), "{answer:?}");
            assert!(took < Duration::from_secs(1), "{took:?}");
        }
    }
}

/// Redis requires a certificate of its clients unless configured otherwise.
#[test]
fn client_certificate_is_sent_if_requested() {
    for versions in ["TLSv1.2", "TLSv1.3", "TLSv1.2 TLSv1.3"] {
        let backend = Backend::start_on_port(Kind::RedisTls, &["--tls-protocols", versions]);
        let (authority, stranger) = (backend.authority(), Authority::new());
        stranger.certify("client", "DNS:client", LATER);
        authority.certify("late", "DNS:client", BEFORE);
        let url =
            format!("rediss://127.0.0.1:{}/0?ca=", backend.port()) + &authority.file("ca.pem");
        let with = |whose: &Authority, name: &str| {
            let [cert, key] = ["pem", "key"].map(|end| whose.file(&format!("{name}.{end}")));
            format!("{url}&cert={cert}&key={key}")
        };
        for url in [&url, &with(&stranger, "client"), &with(authority, "late")] {
            assert_refused(url, "received fatal alert: ");
        }
        assert!(backend.is_untouched());
        assert_serves(&with(authority, "client"));
    }
}

#[test]
fn password_is_required_over_tls_too() {
    let backend = Backend::start(Kind::RedisTls);
    assert_eq!(backend.redis(&["CONFIG", "SET", "requirepass", "open sesame"]), "OK\n");
    let url = |login: &str| backend.url().replace("://", &format!("://{login}"));
    for (login, said) in [("", "NOAUTH"), (":wrong@", "WRONGPASS")] {
        let answer = ask(&url(login), "publish=a");
        answer.assert_problem(503);
        assert!(answer.log.contains(said) && !answer.log.contains("wrong@"), "{answer:?}");
    }
    assert_serves(&url(":open%20sesame@"));
}

#[test]
fn invalid_file_is_named_in_log() {
    let backend = Backend::start(Kind::RedisTls);
    let authority = backend.authority();
    fs::write(authority.file("empty"), "").unwrap();
    fs::write(authority.file("text"), "no certificate\n").unwrap();
    let torn = fs::read_to_string(authority.file("ca.pem")).unwrap().replace("-----END", "");
    fs::write(authority.file("torn"), torn).unwrap();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(authority.file("broken"), broken).unwrap();
    let (good, port) = (backend.url(), backend.port());
    for (parameter, file, why) in [
        ("ca", "nowhere", "No such file or directory"),
        ("ca", ".", "Is a directory"),
        ("ca", "empty", "no such thing in it"),
        ("ca", "text", "no such thing in it"),
        ("ca", "torn", "no PEM"),
        ("ca", "broken", "no certificate of an authority in it"),
        ("ca", "ca.key", "no such thing in it"),
        ("cert", "nowhere", "No such file or directory"),
        ("cert", "client.key", "no such thing in it"),
        ("key", "nowhere", "No such file or directory"),
        ("key", "client.pem", "no such thing in it"),
        ("key", "server.key", "keys may not be consistent"),
    ] {
        let file = authority.file(file);
        let (before, rest) = good.split_once(&format!("{parameter}=")).unwrap();
        let after = rest.split_once('&').map_or(String::new(), |(_, after)| format!("&{after}"));
        assert_refused(&format!("{before}{parameter}={file}{after}"), &format!("{file}: "));
        let log = ask(&format!("{before}{parameter}={file}{after}"), "publish=a").log;
        assert!(log.contains(why) && log.contains(&format!("127.0.0.1:{port}")), "{log}");
    }
    assert_serves(&good);
}

/// A stream is woken repeatedly over the same connection. No message of TLS itself ends the
/// connection or delays an event.
#[test]
fn stream_keeps_its_tls_connection() {
    for versions in ["TLSv1.2", "TLSv1.3"] {
        let backend = Backend::start_on_port(Kind::RedisTls, &["--tls-protocols", versions]);
        let call = Call::new().variable("NOVCOMET_STORE", &backend.url());
        let call = call.variable("NOVCOMET_SLEEP", "3600");
        let query = "subscribed[a]=0.1&wait=3600&stream=json";
        let mut stream = call.variable("QUERY_STRING", query).waiting().take();
        let blocked = || {
            let clients = backend.redis(&["CLIENT", "LIST"]);
            let line = clients.lines().find(|line| line.contains(" cmd=xread "));
            line.map(|line| line.split(' ').next().unwrap().to_owned())
        };
        eventually("the client blocks", || blocked().is_some());
        let first = blocked();
        for round in 0..20 {
            backend.redis(&["XADD", "novcomet:a", "*", "data", &format!("{round:*<20000}")]);
            let mut heard = String::new();
            let stdout = stream.stdout.as_mut().unwrap();
            while !heard.contains(&format!("{round}*")) {
                let mut part = [0; 4096];
                let read = stdout.read(&mut part).unwrap();
                heard += &String::from_utf8_lossy(&part[..read]);
            }
            eventually("the client blocks", || blocked().is_some());
            assert_eq!(blocked(), first, "{versions}, {round}");
        }
        stream.kill().unwrap();
        stream.wait().unwrap();
    }
}

/// The descriptor is readable, but the data is no reply.
#[test]
fn key_update_loses_no_event() {
    let (backend, authority) = (Backend::start(Kind::Redis), Authority::new());
    authority.certify("server", "IP:127.0.0.1", LATER);
    let (port, connections) = terminate(&authority, &backend);
    let url = format!("rediss://127.0.0.1:{port}/0?ca={}", authority.file("ca.pem"));
    let call = Call::new().variable("NOVCOMET_STORE", &url).variable("NOVCOMET_SLEEP", "3600");
    let call = call.variable("NOVCOMET_TRIES", "1").variable("QUERY_STRING", "subscribed[a]=0.1");
    let waiter = call.waiting();
    eventually("there are two connections", || connections.load(Ordering::SeqCst) == 2);
    waiter.await_sleep();
    thread::sleep(CHANGE * 2);
    backend.redis(&["XADD", "novcomet:a", "*", "data", "late"]);
    assert!(waiter.answer().body.contains(r#""data":"late""#));
    assert_eq!(connections.load(Ordering::SeqCst), 2);
}

/// The time between an XREAD and the key update.
const CHANGE: Duration = Duration::from_millis(300);

/// Encrypts for a Redis without TLS, as stunnel does. It also updates its keys in the first
/// wait of the first connection.
fn terminate(authority: &Authority, backend: &Backend) -> (u16, Arc<AtomicUsize>) {
    let cert = CertificateDer::from_pem_file(authority.file("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(authority.file("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(vec![cert], key).unwrap());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (port, connections) =
        (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
    let (count, socket) = (Arc::clone(&connections), backend.url().replace("unix://", ""));
    thread::spawn(move || {
        for outside in listener.incoming().flatten() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let inside = UnixStream::connect(&socket).unwrap();
            let is_first = count.fetch_add(1, Ordering::SeqCst) == 0;
            thread::spawn(move || relay(tls, outside, inside, is_first));
        }
    });
    (port, connections)
}

fn relay(mut tls: ServerConnection, mut outside: TcpStream, mut inside: UnixStream, changes: bool) {
    let soon = Some(Duration::from_millis(5));
    outside.set_read_timeout(soon).unwrap();
    inside.set_read_timeout(soon).unwrap();
    let (mut part, mut change) = (vec![0; 16_384], None);
    loop {
        let said = Stream::new(&mut tls, &mut outside).read(&mut part);
        if said.as_ref().is_ok_and(|&said| said == 0) {
            return;
        }
        let said = &part[..said.unwrap_or(0)];
        if changes && change.is_none() && said.windows(5).any(|word| word == b"XREAD") {
            change = Some(Instant::now() + CHANGE);
        }
        inside.write_all(said).unwrap();
        let replied = inside.read(&mut part).unwrap_or(0);
        if Stream::new(&mut tls, &mut outside).write_all(&part[..replied]).is_err() {
            return;
        }
        if change.is_some_and(|at| Instant::now() >= at) {
            tls.refresh_traffic_keys().unwrap();
            let _ = Stream::new(&mut tls, &mut outside).flush();
            change = Some(Instant::now() + Duration::from_secs(3600));
        }
    }
}

/// No parameter of a URL weakens TLS, and the parameters of TLS are refused without it.
#[test]
fn no_setting_disables_verification() {
    let backend = Backend::start(Kind::RedisTls);
    for more in ["verify=no", "insecure=1", "ca=", "ca=ca.pem", "cert=/a"] {
        let answer = ask(&format!("rediss://127.0.0.1:{}/0?{more}", backend.port()), "publish=a");
        answer.assert_problem(503);
        assert!(answer.log.contains("NOVCOMET_STORE=\"rediss://127.0.0.1:"), "{answer:?}");
    }
    let answer = ask(&backend.url().replace("rediss", "redis"), "publish=a");
    answer.assert_problem(503);
    assert!(answer.log.contains("NOVCOMET_STORE=\"redis://127.0.0.1:"), "{answer:?}");
}

/// The program as `make` builds it.
#[test]
fn tls_url_without_feature_is_refused() {
    if std::env::var("FEATURES").is_ok_and(|features| features.contains("tls")) {
        not_run("a build without TLS", "`make` without FEATURES=tls");
        return;
    }
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("cgi-bin/comet.cgi");
    assert!(plain.exists(), "`make` builds it");
    let call = Call::of(&plain).variable("NOVCOMET_STORE", "rediss://:secret@127.0.0.1:1/0");
    let answer = call.variable("QUERY_STRING", "publish=a").answer();
    answer.assert_problem(503);
    assert!(answer.log.contains("was built without TLS; build one by `make FEATURES=tls`"));
    assert!(!answer.log.contains("secret"), "{answer:?}");
}

//! The same tests through Apache with `mod_cgid`, Apache with `mod_cgi` and lighttpd, each with
//! the shipped configuration files.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::time::{Duration, Instant};

use crate::support::SOURCE;
use crate::support::binary::{Call, Store, batch};
use crate::support::dir::{TempDir, make_file, touch_by_shell};
use crate::support::server::{Exchange, Kind, Reply, Server, stories};
use crate::support::wait::eventually;

stories! {
    publish_is_confirmed
    batch_is_answered_for_each_message
    local_client_learns_the_directory
    subscriber_receives_a_publish
    subscriber_receives_a_touch
    quiet_wait_ends_with_cursors
    shell_asks_who_waits
    old_url_is_answered
    demo_page_is_served
    each_method_has_its_answer
    too_long_body_gets_complete_413
    body_of_gigabytes_is_never_stored
    debian_cgi_bin_has_no_program
    server_without_cgi_sends_no_program
    unreadable_program_runs_and_is_never_sent
    query_is_never_an_argument
    shell_and_server_share_a_settings_file
    copied_directory_works_with_htaccess
    answer_has_the_documented_headers
    valid_requests_log_nothing
    missing_store_is_logged_once
    stop_does_not_wait_for_subscribers
}

fn publish_is_confirmed(kind: Kind) {
    let server = Server::start(kind);
    let reply = server.get("/comet.cgi?publish=a");
    assert_eq!((reply.status, reply.body.as_str()), (200, "true"));
    assert!(server.event_file("a").is_file());
    assert_news(&server.post("/comet.cgi", "publish=b"), "b");
    assert!(server.event_file("b").is_file());
}

fn batch_is_answered_for_each_message(kind: Kind) {
    let server = Server::start(kind);
    let form = batch(r#"[{"publish":"a","data":"x"},{"publish":""},{"publish":"b"}]"#);
    let reply = server.post("/comet.cgi", &form);
    assert_eq!((reply.status, reply.body.matches(r#"{"s":1,"#).count()), (200, 2), "{reply:?}");
    assert!(server.event_file("a").is_file() && server.event_file("b").is_file());
    assert_eq!(server.get(&format!("/comet.cgi?{form}")).status, 400);
}

fn local_client_learns_the_directory(kind: Kind) {
    let server = Server::start(kind);
    let directory = format!(r#","store":"file://{}"}}"#, server.store().display());
    let ask = |headers: &[&str]| server.send_with("GET /comet.cgi?about=1", headers).reply().body;
    assert!(ask(&[]).ends_with(&directory), "{}", ask(&[]));
    for header in ["X-Forwarded-For: 127.0.0.1", "Via: 1.1 a", "Forwarded: for=_a", "X-Real-IP: a"]
    {
        assert!(
            ask(&[header]).ends_with(r#""protocols":["bayeux","mercure","novcomet"]}"#),
            "{header}"
        );
    }
}

fn subscriber_receives_a_publish(kind: Kind) {
    let server = Server::start(kind);
    let subscriber = server.subscriber("subscribed[a]=0&subscribed[b]=0&1300000000");
    assert_eq!(server.get("/comet.cgi?publish=a").body, "true");
    assert_news(&subscriber.reply(), "a");
}

fn subscriber_receives_a_touch(kind: Kind) {
    let server = Server::start(kind);
    let subscriber = server.subscriber("subscribed[a]=0");
    touch(&server, "a");
    assert_news(&subscriber.reply(), "a");
}

fn quiet_wait_ends_with_cursors(kind: Kind) {
    let server = Server::start(kind);
    let begin = Instant::now();
    let reply = server.get("/comet.cgi?subscribed[a]=0&wait=0.3");
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert_eq!(reply.status, 200);
    assert!(reply.body.starts_with(r#"{"s":0,"k":{"a":"#), "{}", reply.body);
}

/// The tests run as root, and the server's programs as another user.
fn shell_asks_who_waits(kind: Kind) {
    let server = Server::start(kind);
    let store = format!("file://{}", server.store().display());
    let who = |words: &[&str]| {
        let call = Call::new().variable("NOVCOMET_STORE", &store).argument("who");
        let output = words.iter().fold(call, |call, word| call.argument(word)).output();
        let told = if output.status.success() { output.stdout } else { output.stderr };
        String::from_utf8(told).unwrap()
    };
    let url = |path: &str| format!("http://127.0.0.1:{}{path}", server.port());
    let _waiting =
        [server.subscriber("subscribed[room]=0"), server.subscriber("subscribed[room]=0")];
    eventually("they wait together", || who(&["room", "other"]) == "room\t2\nother\t0\n");
    let at = url("/comet.cgi");
    assert_eq!(who(&["other", "room", "--url", &at]), "other\t0\nroom\t2\n");
    let objects = "{\"topic\":\"room\",\"number\":2}\n";
    assert_eq!(who(&["room", "--names", "--json", "--url", &at]), objects, "names need a token");
    let refusal = who(&["room", "--url", &url("/missing")]);
    assert!(refusal.contains("/missing answers 404: that is not NovComet's answer; "), "{refusal}");
    let closed = Server::setup(kind).option("NOVCOMET_SUBSCRIBE", "none").start();
    let refusal = who(&["room", "--url", &format!("http://127.0.0.1:{}/comet.cgi", closed.port())]);
    assert!(refusal.contains("answers 403: nobody subscribes at this URL; "), "{refusal}");
    assert_eq!(refusal.lines().count(), 1, "{refusal}");
}

fn old_url_is_answered(kind: Kind) {
    let server = Server::start(kind);
    for address in ["/comet.php", "/novcomet/comet.php", "/novcomet/comet.cgi"] {
        assert_eq!(server.get(&format!("{address}?&publish=a")).body, "true", "{address}");
    }
    assert_eq!(server.get("/comet.cgix?publish=a").status, 404);
}

fn demo_page_is_served(kind: Kind) {
    let reply = Server::start(kind).get("/novcomet/");
    assert_eq!((reply.status, reply.header("Content-Type")), (200, Some("text/html")));
}

fn each_method_has_its_answer(kind: Kind) {
    let server = Server::start(kind);
    let ask = |method: &str| server.send(&format!("{method} /comet.cgi?publish=a")).reply();
    let head = ask("HEAD");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(!server.event_file("a").exists(), "HEAD changes nothing");
    let options = ask("OPTIONS");
    assert_eq!((options.status, options.body.as_str()), (204, ""));
    assert_eq!(options.header("Allow"), Some("GET, HEAD, POST, OPTIONS"));
    for method in ["PUT", "DELETE", "PATCH"] {
        assert_problem(&ask(method), 405);
    }
    assert!(server.post("/comet.cgi?publish=a", "x=y").body.starts_with(r#"{"s":1,"k":{"a":"#));
}

/// Under `mod_cgid`, stdin and stdout are one socket. An unread part of the body would reset it
/// and truncate the answer.
fn too_long_body_gets_complete_413(kind: Kind) {
    let server = Server::start(kind);
    let form = format!("publish=a&x={}", "x".repeat(250_000));
    // lighttpd refuses it before it starts the program (body_of_gigabytes_is_never_stored).
    if kind != Kind::Lighttpd {
        assert_problem(&server.post("/comet.cgi", &form), 413);
    }
    let text = ["Content-Type: image/png"];
    let reply = Exchange::send(server.port(), "POST /comet.cgi", &text, b"\x89PNG").reply();
    assert_problem(&reply, 415);
    let reply = Exchange::send(server.port(), "PUT /comet.cgi", &text, b"\x89PNG").reply();
    assert_problem(&reply, 405);
    assert_eq!(server.complaints(), [""; 0]);
}

/// lighttpd would otherwise write the whole body to server.upload-dirs before it starts a CGI.
fn body_of_gigabytes_is_never_stored(kind: Kind) {
    if kind != Kind::Lighttpd {
        return;
    }
    let server = Server::start(kind);
    let headers = ["Content-Length: 2000000000", "Content-Type: text/plain"];
    let request = "PUT /comet.cgi?publish=a";
    let body = vec![b'x'; 300_000];
    let (reply, _) = Exchange::send_part(server.port(), request, &headers, &body).head();
    assert_eq!(reply.status, 413);
    let stored: Vec<_> = fs::read_dir(server.root().join("uploads")).unwrap().collect();
    assert!(stored.is_empty(), "{stored:?}");
}

/// Debian's configuration of each server runs every program below one directory.
fn debian_cgi_bin_has_no_program(kind: Kind) {
    let lines = match kind {
        // Debian loads mod_staticfile last. The private lighttpd of the tests loads it first.
        Kind::Lighttpd => {
            fs::read_to_string(Kind::Lighttpd.packaged("etc/lighttpd/conf-available/10-cgi.conf"))
                .unwrap()
                .replace("\"/usr/lib/cgi-bin/\"", "env.ROOT + \"/usr/lib/cgi-bin/\"")
                + "static-file.exclude-extensions = ( \".cgi\" )"
        }
        _ => fs::read_to_string(format!("{SOURCE}/tests/support/serve-cgi-bin.conf"))
            .unwrap()
            .replace("/usr/lib/cgi-bin", "${ROOT}/usr/lib/cgi-bin"),
    };
    let server = Server::setup(kind).lines(&lines).start();
    let other = server.root().join("usr/lib/cgi-bin/other.cgi");
    fs::copy(server.program(), &other).unwrap();
    assert_eq!(server.get("/cgi-bin/other.cgi?publish=a").body, "true", "Debian's file counts");
    for path in ["novcomet/comet.cgi", "comet.cgi"] {
        let reply = server.get(&format!("/cgi-bin/{path}?publish=b"));
        assert!([403, 404].contains(&reply.status), "{path}: {reply:?}");
    }
    assert!(!server.event_file("b").exists());
}

/// A web server that runs no CGI sends the file instead, if it can read it.
fn server_without_cgi_sends_no_program(kind: Kind) {
    let module = match kind {
        Kind::ApacheEvent => "cgid",
        Kind::ApachePrefork => "mod_cgi.so",
        // The shipped file loads its own module.
        Kind::Lighttpd => return,
    };
    let server = Server::setup(kind).without(module).lines(DROP).start();
    server.drop_in("drop");
    for address in ["/comet.cgi", "/novcomet/comet.cgi", "/drop/comet.cgi"] {
        assert_eq!(server.get(&format!("{address}?publish=a")).status, 403, "{address}");
    }
}

/// The server can run the program and cannot read it. So it cannot send it, even if the
/// administrator does not enable `.htaccess`.
fn unreadable_program_runs_and_is_never_sent(kind: Kind) {
    if kind == Kind::Lighttpd || !rustix::process::geteuid().is_root() {
        return;
    }
    let forbidden = DROP.replace("Options FileInfo AuthConfig Limit", "None");
    for (lines, expected) in [(DROP, 200), (&forbidden, 403)] {
        let server = Server::setup(kind).lines(lines).start();
        server.drop_in("drop");
        fs::set_permissions(server.root().join("drop/comet.cgi"), Permissions::from_mode(0o711))
            .unwrap();
        let subscribe = "/drop/comet.cgi?subscribed[a]=0&wait=0.1";
        for target in ["/drop/comet.cgi?publish=a&data=x", subscribe] {
            assert_eq!(server.get(target).status, expected, "{target}");
        }
    }
}

/// RFC 3875 §4.4: Apache passes a query without "=" as arguments.
fn query_is_never_an_argument(kind: Kind) {
    let server = Server::start(kind);
    for query in
        ["--help", "-h+x", "--version", "&123", "", "publish+a+x", "subscribe+a", "topics+a"]
    {
        assert_problem(&server.get(&format!("/comet.cgi?{query}")), 400);
    }
    assert!(!server.event_file("a").exists());
    let not_utf8 = server.get("/comet.cgi?%FF");
    // lighttpd refuses it itself, with its own page.
    assert_eq!(not_utf8.status, 400);
    if kind != Kind::Lighttpd {
        assert_problem(&not_utf8, 400);
    }
}

/// The server's environment names the file, and has no other setting. No client can name one.
fn shell_and_server_share_a_settings_file(kind: Kind) {
    let (house, store) = (TempDir::new(), Store::new());
    let settings = |name: &str, more: &str| {
        let file = house.join(name);
        let lines = format!("# all\nNOVCOMET_STORE=file://{}\n{more}\n", store.0.display());
        make_file(&file, lines, 0o640);
        // Debian's group of web servers. A test without root runs its servers as itself.
        let _ = chown(&file, None, Some(33));
        file.to_str().unwrap().to_owned()
    };
    let file = settings("novcomet.conf", "NOVCOMET_MAX_DATA=9");
    let other = settings("other.conf", "NOVCOMET_PUBLISH=none");
    let setup = Server::setup(kind).store("").option("NOVCOMET_CONF", &file);
    let server = setup.start();
    let comet = |arguments: &[&str]| {
        let call = Call::new().variable("NOVCOMET_CONF", &file);
        let output = arguments.iter().fold(call, |call, word| call.argument(word)).output();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let subscriber = server.send("GET /comet.cgi?subscribed[cron]=0.5");
    comet(&["publish", "cron", "a & b %"]);
    assert!(subscriber.reply().body.contains(r#""data":"a & b %""#));
    let headers = [format!("NOVCOMET-CONF: {other}"), format!("NOVCOMET_CONF: {other}")];
    let headers: Vec<_> = headers.iter().map(String::as_str).collect();
    let query = format!("publish=page&data=short&NOVCOMET_CONF={other}");
    let request = format!("GET /comet.cgi?{query}");
    assert_eq!(server.send_with(&request, &headers).reply().body, "true");
    assert_eq!(comet(&["subscribe", "page", "--since=earliest", "--wait=0"]), "short\n");
    assert_eq!(comet(&["topics"]), "cron\npage\n");
    assert_eq!(server.get("/comet.cgi?publish=page&data=0123456789").status, 413);
    settings("novcomet.conf", "NOVCOMET_SPELT_WRONG=1");
    assert_eq!(server.get("/comet.cgi?publish=page").status, 503);
}

/// A directory of a site, with the settings that its administrator must make.
const DROP: &str = "Alias /drop ${ROOT}/drop\n<Directory ${ROOT}/drop>\nRequire all granted\n\
                    AllowOverride Options FileInfo AuthConfig Limit\n</Directory>";

/// The files of cgi-bin/ in a directory where Apache reads `.htaccess`.
fn copied_directory_works_with_htaccess(kind: Kind) {
    if kind == Kind::Lighttpd {
        return;
    }
    let server = Server::setup(kind).lines(DROP).start();
    server.drop_in("drop");
    for address in ["/drop/comet.cgi", "/drop/comet.php"] {
        assert_eq!(server.get(&format!("{address}?publish=a")).body, "true", "{address}");
    }
    let hub = server.get("/drop/.well-known/mercure");
    assert!(hub.status == 400 && hub.body.contains("topic (0.x)"), "{hub:?}");
    assert_eq!(server.complaints(), [""; 0]);
}

fn answer_has_the_documented_headers(kind: Kind) {
    let server = Server::start(kind);
    for target in ["/comet.cgi?publish=a", "/comet.cgi?subscribed[a]=0&wait=0"] {
        let reply = server.get(target);
        let header = |name| reply.header(name);
        assert_eq!(header("Content-Type"), Some("application/json; charset=utf-8"));
        assert!(header("Cache-Control").is_some_and(|value| value.contains("no-store")));
        assert_eq!(header("X-Content-Type-Options"), Some("nosniff"));
        for absent in ["Status", "ETag", "Last-Modified", "Location", "Content-Encoding"] {
            assert_eq!(header(absent), None, "{absent}");
        }
    }
}

fn valid_requests_log_nothing(kind: Kind) {
    let server = Server::start(kind);
    let subscriber = server.subscriber("subscribed[a]=0");
    server.get("/comet.cgi?publish=a");
    assert_news(&subscriber.reply(), "a");
    server.post("/comet.cgi", "publish=a");
    server.get("/comet.cgi?subscribed[a]=letters");
    server.get("/comet.cgi?subscribed[a]=0&wait=0");
    drop(server.send("GET /comet.cgi?subscribed[a]=0&wait=0.2"));
    server.await_waiters(0);
    assert_eq!(server.complaints(), [""; 0]);
}

fn missing_store_is_logged_once(kind: Kind) {
    let server = Server::start(kind);
    fs::remove_dir(server.store()).unwrap();
    assert_problem(&server.get("/comet.cgi?publish=a"), 503);
    let complaints = server.complaints();
    assert_eq!(complaints.len(), 1, "{complaints:?}");
    let store = server.store().display().to_string();
    assert!(complaints[0].contains("novcomet: ") && complaints[0].contains(&store));
}

/// The stop is much faster than the 40 s of the wait and the 10 s that Apache gives its
/// threads.
fn stop_does_not_wait_for_subscribers(kind: Kind) {
    let mut server = Server::start(kind);
    let subscribers: Vec<_> = (0..3).map(|_| server.subscriber("subscribed[a]=0")).collect();
    let took = server.stop();
    assert!(took < Duration::from_secs(5), "{took:?}");
    server.await_waiters(0);
    assert!(subscribers.into_iter().all(Exchange::ends));
}

fn assert_news(reply: &Reply, topic: &str) {
    assert_eq!(reply.status, 200);
    let cursor = reply.body.strip_prefix(&format!(r#"{{"s":1,"k":{{"{topic}":"#));
    let cursor = cursor.and_then(|rest| rest.strip_suffix("}}"));
    let (second, fraction) = cursor.and_then(|cursor| cursor.split_once('.')).expect(&reply.body);
    assert!(second.parse::<u64>().is_ok() && fraction.len() == 6, "{}", reply.body);
}

fn assert_problem(reply: &Reply, status: u16) {
    assert_eq!(reply.status, status, "{}", reply.body);
    assert_eq!(reply.header("Content-Type"), Some("application/problem+json"));
    assert!(reply.body.contains(&format!("\"status\":{status}")), "{}", reply.body);
    assert!(reply.body.ends_with('}'), "{}", reply.body);
}

/// Runs touch(1) instead of a call of this process, as a shell script does.
fn touch(server: &Server, topic: &str) {
    touch_by_shell(&server.event_file(topic));
}

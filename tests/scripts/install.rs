//! `make install` and `make uninstall`, into a directory (`DESTDIR`).

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::SOURCE;
use crate::support::dir::TempDir;

const APACHE: &str = "etc/apache2/conf-available/novcomet.conf";
const LIGHTTPD: &str = "etc/lighttpd/conf-available/50-novcomet.conf";
const PROGRAM: &str = "usr/lib/novcomet/comet.cgi";
const OLD_PROGRAM: &str = "usr/lib/cgi-bin/novcomet/comet.cgi";

/// A directory that the files are installed into.
struct Root(TempDir);

impl Root {
    fn new() -> Self {
        Self(TempDir::new())
    }

    fn make(&self, target: &str) -> Output {
        self.make_with(target, &[])
    }

    fn make_with(&self, target: &str, variables: &[&str]) -> Output {
        let destdir = format!("DESTDIR={}", self.0.display());
        Command::new("make")
            .args(["-s", "-C", SOURCE, target, &destdir])
            .args(variables)
            .env_remove("MAKEFLAGS")
            .output()
            .unwrap()
    }

    fn install(&self) -> String {
        said(&self.make("install"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
    }

    /// Adds a line, as an administrator does.
    fn edit(&self, name: &str) -> String {
        let edited = self.read(name) + "# ours\n";
        self.write(name, &edited);
        edited
    }

    /// All files and links, by their paths.
    fn files(&self) -> Vec<String> {
        let mut files = Vec::new();
        collect(&self.0, &mut files);
        let relative = |path: PathBuf| path.strip_prefix(&self.0).unwrap().display().to_string();
        let mut files: Vec<_> = files.into_iter().map(relative).collect();
        files.sort();
        files
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => collect(&entry.path(), files),
            false => files.push(entry.path()),
        }
    }
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn install_never_calls_a_compiler() {
    let root = Root::new();
    for tool in ["cargo", "rustc", "rustup"] {
        root.write(
            tool,
            &format!("#!/bin/sh\necho {tool} >>{}\nexit 1\n", root.path("called").display()),
        );
        fs::set_permissions(root.path(tool), Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", root.0.display());
    for target in ["install", "uninstall"] {
        let destdir = format!("DESTDIR={}", root.path("destdir").display());
        let mut command = Command::new("env");
        command.args([&path, "make", "-s", "-C", SOURCE, target, &destdir]).env_remove("MAKEFLAGS");
        said(&command.output().unwrap());
        assert!(!root.path("called").exists(), "{target} called {}", root.read("called"));
    }
}

#[test]
fn install_without_a_build_fails() {
    let root = Root::new();
    fs::copy(format!("{SOURCE}/Makefile"), root.path("Makefile")).unwrap();
    let output =
        Command::new("make").args(["-s", "-C"]).arg(&root.0).arg("install").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.starts_with("Nothing is built yet: run make first"));
    assert_eq!(root.files(), ["Makefile"]);
}

/// tests/support/server lays a server's files out in the same way.
#[test]
fn program_is_installed_outside_cgi_bin() {
    let root = Root::new();
    root.install();
    let is_program =
        |file: &String| fs::metadata(root.path(file)).unwrap().permissions().mode() & 0o111 != 0;
    let programs: Vec<_> = root.files().into_iter().filter(is_program).collect();
    assert_eq!(programs, [PROGRAM]);
    assert!(root.read(APACHE).contains("NOVCOMET_CGI_DIR /usr/lib/novcomet\n"));
    assert!(root.read(LIGHTTPD).contains("\"/usr/lib/novcomet/comet.cgi\""));
    let mode = fs::metadata(root.path("etc/novcomet")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o750);
}

#[test]
fn prefix_is_in_both_configurations() {
    let root = Root::new();
    said(&root.make_with("install", &["PREFIX=/opt"]));
    assert!(root.path("opt/lib/novcomet/comet.cgi").exists());
    for file in ["NovComet.js", "NovComet.min.js"] {
        assert!(root.path("opt/share/novcomet").join(file).exists(), "{file}");
    }
    for file in [APACHE, LIGHTTPD] {
        let text = root.read(file);
        assert!(
            text.contains("/opt/lib/novcomet") && text.contains("/opt/share/novcomet"),
            "{file}"
        );
        assert!(!text.contains("/usr/"), "{file}");
    }
}

#[test]
fn edited_configuration_is_kept() {
    let root = Root::new();
    assert_eq!(root.install(), "");
    let shipped = root.read(APACHE);
    let edited = root.edit(APACHE);
    for _ in 0..2 {
        let output = root.install();
        assert!(output.contains(APACHE) && !output.contains(LIGHTTPD), "{output}");
        assert_eq!(root.read(APACHE), edited);
        assert_eq!(root.read(&format!("{APACHE}.new")), shipped);
        assert!(!root.path(&format!("{LIGHTTPD}.new")).exists());
    }
    root.write(APACHE, &shipped);
    assert_eq!(root.install(), "");
    assert!(!root.path(&format!("{APACHE}.new")).exists());
}

#[test]
fn unedited_configuration_is_replaced() {
    let root = Root::new();
    root.install();
    let shipped = root.read(LIGHTTPD);
    // The last version has shipped another configuration.
    root.write(LIGHTTPD, "old\n");
    root.write("usr/lib/novcomet/shipped/50-novcomet.conf", "old\n");
    assert_eq!(root.install(), "");
    assert_eq!(root.read(LIGHTTPD), shipped);
}

#[test]
fn keys_and_their_directory_are_kept() {
    let root = Root::new();
    root.install();
    fs::set_permissions(root.path("etc/novcomet"), Permissions::from_mode(0o700)).unwrap();
    root.write("etc/novcomet/key", "secret\n");
    root.install();
    let mode = fs::metadata(root.path("etc/novcomet")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    assert!(said(&root.make("uninstall")).contains("etc/novcomet is kept"));
    assert_eq!(root.files(), ["etc/novcomet/key"]);
}

#[test]
fn uninstall_keeps_only_edited_files() {
    let root = Root::new();
    root.install();
    fs::create_dir(root.path("etc/apache2/conf-enabled")).unwrap();
    fs::create_dir(root.path("etc/lighttpd/conf-enabled")).unwrap();
    for file in [APACHE, LIGHTTPD] {
        let enabled = root.path(&file.replace("-available", "-enabled"));
        symlink(format!("../conf-available/{}", file.rsplit('/').next().unwrap()), enabled)
            .unwrap();
    }
    root.edit(LIGHTTPD);
    root.install();
    let output = said(&root.make("uninstall"));
    assert!(output.contains(&format!("{LIGHTTPD} was changed here and is kept")), "{output}");
    assert_eq!(root.files(), [LIGHTTPD, &LIGHTTPD.replace("-available", "-enabled")]);
    assert!(!root.path("usr/lib/novcomet").exists() && !root.path("usr/share/novcomet").exists());
    assert!(!root.path("etc/novcomet").exists());
}

/// A configuration that was edited before the upgrade must still find the program.
#[test]
fn upgrade_removes_program_from_cgi_bin() {
    let root = Root::new();
    root.write(OLD_PROGRAM, "old");
    root.write(
        APACHE,
        "Define NOVCOMET_CGI_DIR /usr/lib/cgi-bin/novcomet\nSetEnv NOVCOMET_PUBLISH none\n",
    );
    let output = root.install();
    assert!(output.contains("restart the web server"), "{output}");
    assert!(root.path(PROGRAM).exists());
    assert!(!root.path("usr/lib/cgi-bin/novcomet").exists());
    let kept = "Define NOVCOMET_CGI_DIR /usr/lib/novcomet\nSetEnv NOVCOMET_PUBLISH none\n";
    assert_eq!(root.read(APACHE), kept);
}

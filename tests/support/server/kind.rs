//! The three servers and their configuration.

use std::fs::{self, DirEntry};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::SOURCE;
use crate::support::host::{is_root, program};

/// A web server and the module of it that runs CGIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Apache, event MPM, `mod_cgid`.
    ApacheEvent,
    /// Apache, prefork MPM, `mod_cgi`.
    ApachePrefork,
    /// lighttpd, `mod_cgi`.
    Lighttpd,
}

impl Kind {
    /// The path of the program.
    pub fn program(self) -> PathBuf {
        program(match self {
            Self::Lighttpd => "lighttpd",
            Self::ApacheEvent | Self::ApachePrefork => "apache2",
        })
    }

    /// The path of another file of its package, wherever that was unpacked.
    pub fn packaged(self, path: &str) -> PathBuf {
        self.program().ancestors().nth(3).unwrap().join(path)
    }

    /// The configuration of a private server, which includes the shipped file.
    pub fn configuration(self) -> String {
        let file = match self {
            Self::Lighttpd => "tests/support/lighttpd.conf",
            Self::ApacheEvent | Self::ApachePrefork => "demo/apache.conf",
        };
        fs::read_to_string(Path::new(SOURCE).join(file)).unwrap()
    }

    /// The server in the foreground, on a port of loopback, with its files and its
    /// configuration (`server.conf`) under `root`. It has its own process group, because
    /// Apache's prefork MPM stops by a signal to the whole group. It stops when the tests are
    /// killed.
    pub fn command(self, root: &Path, port: u16) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(self.program()).process_group(0);
        match self {
            Self::Lighttpd => lighttpd(&mut command, root, port),
            Self::ApacheEvent => apache(&mut command, root, port),
            Self::ApachePrefork => apache(command.args(["-D", "PREFORK"]), root, port),
        }
        command
    }

    /// The line that puts a variable into the CGI's environment, also where the
    /// shipped configuration has set it.
    pub fn option(self, name: &str, value: &str) -> String {
        match self {
            Self::Lighttpd => format!("setenv.set-environment += ( \"{name}\" => \"{value}\" )\n"),
            Self::ApacheEvent | Self::ApachePrefork => format!("SetEnv {name} \"{value}\"\n"),
        }
    }

    /// Whether the server under `root` can start a CGI, if it is to. Apache answers before its CGI daemon
    /// has bound its socket and, as root, given it to the workers' user. A worker that
    /// connects in between gets EACCES and answers 503.
    pub fn runs_cgi(self, root: &Path) -> bool {
        let is_socket = |entry: &DirEntry| {
            entry.file_name().as_encoded_bytes().starts_with(b"cgid.sock")
                && (!is_root() || entry.metadata().is_ok_and(|socket| socket.uid() != 0))
        };
        let configuration = fs::read_to_string(root.join("server.conf")).unwrap();
        self != Self::ApacheEvent
            || !configuration.contains("cgid.sock")
            || fs::read_dir(root).is_ok_and(|all| all.flatten().any(|entry| is_socket(&entry)))
    }

    /// Lines that the server logs without a fault: its start and its stop.
    pub fn is_chatter(line: &str) -> bool {
        [":notice]", ") server started", ") server stopped"].iter().any(|mark| line.contains(mark))
    }
}

fn apache(command: &mut Command, root: &Path, port: u16) {
    command.args(["-D", "FOREGROUND", "-f"]).arg(root.join("server.conf"));
    for definition in [
        format!("Define ROOT {}", root.display()),
        format!("Define SOURCE {}", root.display()),
        format!("Define PORT {port}"),
    ] {
        command.arg("-C").arg(definition);
    }
}

fn lighttpd(command: &mut Command, root: &Path, port: u16) {
    // Its modules are beside it, wherever it was unpacked.
    let modules = program("lighttpd").ancestors().nth(2).unwrap().join("lib/lighttpd");
    command.arg("-m").arg(modules);
    command.args(["-D", "-f"]).arg(root.join("server.conf"));
    command.env("ROOT", root).env("SOURCE", root).env("PORT", port.to_string());
}

//! The files that the program opens, as strace(1) reports them.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::server::Server;

/// The system calls with a file name, of all of a server's CGI processes.
pub struct Trace {
    directory: PathBuf,
    store: String,
}

impl Trace {
    /// Makes the server start the program under strace(1).
    pub fn of(server: &Server) -> Self {
        // The server may run as any user, and each must be able to write here.
        let directory = server.root().join("uploads");
        let (program, ours) = (server.program(), server.program().with_extension("real"));
        fs::rename(&program, &ours).unwrap();
        let script = format!(
            "#!/bin/sh\nexec strace -f -ff --seccomp-bpf -qq -y -s 9999 -e trace=%file -o {}/trace {} \"$@\"\n",
            directory.display(),
            ours.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
        Self { directory, store: server.store().display().to_string() }
    }

    /// The distinct lines.
    pub fn lines(&self) -> BTreeSet<String> {
        let files = fs::read_dir(&self.directory).unwrap().flatten();
        let traces = files.filter(|file| file.file_name().to_string_lossy().starts_with("trace."));
        let lines = traces.flat_map(|file| lines_of(&file.path()));
        lines.filter(|line| !line.starts_with("execve(")).collect()
    }

    /// The paths that are neither the store nor a file directly in it, nor a process in /proc.
    pub fn outside(&self, lines: &BTreeSet<String>) -> BTreeSet<String> {
        lines.iter().flat_map(|line| paths(line)).filter(|path| !self.has(path)).collect()
    }

    fn has(&self, path: &str) -> bool {
        // A publisher checks whether the process that created a temporary file still runs.
        let maker = path.strip_prefix("/proc/").unwrap_or_default();
        if !maker.is_empty() && maker.bytes().all(|byte| byte.is_ascii_digit()) {
            return true;
        }
        path.strip_prefix(&self.store).is_some_and(|rest| match rest.strip_prefix('/') {
            Some(name) => !name.contains('/') && !["", ".", ".."].contains(&name),
            None => rest.is_empty(),
        })
    }
}

/// Whether this call may change a file.
pub fn is_change(line: &str) -> bool {
    let reads =
        ["stat", "lstat", "newfstatat", "statx", "access", "faccessat", "readlink", "inotify"];
    match line.split_once('(') {
        Some(("open" | "openat", rest)) => {
            ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"].iter().any(|flag| rest.contains(flag))
        }
        Some((name, _)) => !reads.iter().any(|read| name.starts_with(read)),
        None => false,
    }
}

fn lines_of(trace: &Path) -> Vec<String> {
    let text = fs::read_to_string(trace).unwrap();
    text.lines().filter(|line| !line.starts_with(['+', '-'])).map(ToOwned::to_owned).collect()
}

/// The paths of a call: its quoted strings. A relative path is appended to the directory before
/// it. strace prints them in ASCII.
fn paths(line: &str) -> Vec<String> {
    let (mut paths, mut directory, mut rest) = (Vec::new(), "", line);
    while let Some(start) = rest.find(['<', '"']) {
        let end = if rest[start..].starts_with('<') { '>' } else { '"' };
        let (text, after) = delimited(&rest[start + 1..], end);
        match (end, text) {
            ('>', text) => directory = text,
            // The descriptor itself, which was opened before.
            (_, "") => {}
            (_, path) if path.starts_with('/') => paths.push(path.to_owned()),
            (_, path) => paths.push(format!("{directory}/{path}")),
        }
        rest = after;
    }
    paths
}

/// The text before `end` and the text after it.
fn delimited(text: &str, end: char) -> (&str, &str) {
    let mut escaped = false;
    let place = text.find(|c| {
        let is_end = c == end && !escaped;
        escaped = c == '\\' && !escaped;
        is_end
    });
    let place = place.unwrap_or_else(|| panic!("{text}"));
    (&text[..place], &text[place + 1..])
}

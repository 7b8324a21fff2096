//! The import rule of DESIGN.md: a file imports only from lower layers, and
//! files of one layer are strangers to each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn layer(room: &str) -> u8 {
    match room {
        "access" | "event" | "error" | "lots" | "sys" => 0,
        "cgi" | "config" | "clock" | "input" | "output" | "sandbox" | "slots" | "store"
        | "token" => 1,
        "hub" | "rights" => 2,
        "protocol" => 3,
        "lib" => 4,
        "main" => 5,
        other => panic!("{other} has no layer: give it one here and in DESIGN.md"),
    }
}

/// `event` names errors and `access` topics: the only steps sideways.
fn is_allowed(from: &str, to: &str) -> bool {
    from == to
        || layer(to) < layer(from)
        || [("event", "error"), ("access", "event")].contains(&(from, to))
}

#[test]
fn a_file_imports_only_from_lower_layers() {
    let mut seen = 0;
    for (path, room) in sources() {
        for import in imports(&fs::read_to_string(&path).unwrap()) {
            assert!(is_allowed(&room, &import), "{} imports {import}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 10, "the rule looks at nothing: {seen} imports");
}

/// Blocks of it: `main` has an attribute that is called so.
#[test]
fn only_sys_has_unsafe_code() {
    for (path, room) in sources() {
        let text = fs::read_to_string(&path).unwrap();
        let has = text.lines().any(|line| line.contains("unsafe {"));
        assert_eq!(has, room == "sys", "{}", path.display());
    }
}

/// Each source file with its room: the first part of its path below src.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let below = path.strip_prefix(&root).unwrap().with_extension("");
            let first = below.iter().next().unwrap().to_str().unwrap().to_owned();
            found.push((path, first));
        }
    }
    found
}

fn imports(text: &str) -> BTreeSet<String> {
    let names = text.split("crate::").skip(1);
    names.map(|rest| rest.chars().take_while(char::is_ascii_lowercase).collect()).collect()
}

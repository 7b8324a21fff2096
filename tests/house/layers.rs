//! The import rule of DESIGN.md. A folder of src is a layer. A file imports only from its own
//! folder and from lower layers. Folders of one layer do not import each other, and neither do
//! the children of protocol/ and store/. Imports form no cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each entry of src and its layer.
const LAYERS: [(&str, u8); 15] = [
    ("main", 8),
    ("lib", 7),
    ("doctor", 6),
    ("config", 5),
    ("protocol", 4),
    ("hub", 3),
    ("auth", 2),
    ("store", 2),
    ("grip", 2),
    ("settings", 2),
    ("cgi", 1),
    ("net", 1),
    ("process", 1),
    ("event", 0),
    ("error", 0),
];

/// `event` reports invalid names.
const SIDEWAYS: [(&str, &str); 1] = [("event", "error")];

/// The folders in these know their parent and not each other.
const STRANGERS: [&str; 2] = ["protocol", "store"];

/// A module's path: `["store", "file", "log"]`.
type Module = Vec<String>;

#[test]
fn folders_import_only_lower_layers() {
    let imports = imports();
    assert!(imports.len() > 100, "only {} imports were found", imports.len());
    for (from, to) in &imports {
        assert!(is_allowed(from, to), "{} imports {}", from.join("::"), to.join("::"));
    }
}

#[test]
fn imports_form_no_cycle() {
    let mut left = imports();
    // A module whose imports are all removed is in no cycle.
    loop {
        let importing: BTreeSet<_> = left.iter().map(|(from, _)| from.clone()).collect();
        let before = left.len();
        left.retain(|(_, to)| importing.contains(to));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "a circle is among {left:#?}");
}

/// Only blocks count, because `main` has an attribute with that word.
#[test]
fn only_sys_has_unsafe_code() {
    for (module, text) in sources() {
        let has = text.lines().any(|line| line.contains("unsafe {"));
        assert_eq!(has, module == ["process", "sys"], "{}", module.join("::"));
    }
}

fn layer(module: &Module) -> u8 {
    let found = LAYERS.iter().find(|(entry, _)| *entry == module[0]);
    found.unwrap_or_else(|| panic!("give {} a layer here and in DESIGN.md", module[0])).1
}

fn is_allowed(from: &Module, to: &Module) -> bool {
    if from[0] != to[0] {
        let sideways = SIDEWAYS.contains(&(from[0].as_str(), to[0].as_str()));
        return sideways || layer(to) < layer(from);
    }
    let child = |module: &Module| module.get(1).filter(|_| is_in_folder(module)).cloned();
    match (child(from), child(to)) {
        (Some(from_child), Some(to_child)) if STRANGERS.contains(&from[0].as_str()) => {
            from_child == to_child
        }
        _ => true,
    }
}

/// Whether its second part is a folder. store/open.rs is none, so it may name them.
fn is_in_folder(module: &Module) -> bool {
    module.len() > 1 && root().join(&module[0]).join(&module[1]).is_dir()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every pair of modules of which the first names the second.
fn imports() -> BTreeSet<(Module, Module)> {
    let sources = sources();
    let mut found = BTreeSet::new();
    for (module, text) in &sources {
        let beside = children(text).into_iter().map(|child| [module.as_slice(), &[child]].concat());
        let targets = paths(text).into_iter().filter_map(|path| resolve(module, &path, &sources));
        let targets = targets.chain(beside.filter(|child| sources.contains_key(child)));
        found.extend(targets.filter(|to| to != module).map(|to| (module.clone(), to)));
    }
    found
}

/// The module of a path: its longest beginning that is a module.
fn resolve(module: &Module, path: &[&str], sources: &BTreeMap<Module, String>) -> Option<Module> {
    let supers = path.iter().take_while(|part| **part == "super").count();
    let mut full: Module = match supers {
        0 => Vec::new(),
        _ => module[..module.len().checked_sub(supers)?].to_vec(),
    };
    full.extend(path.iter().skip(supers.max(1)).map(|part| (*part).to_owned()));
    while !full.is_empty() && !sources.contains_key(&full) {
        full.pop();
    }
    (!full.is_empty()).then_some(full)
}

/// The paths in a source text that begin with `crate` or `super`; each item of a
/// group in braces is a path.
fn paths(text: &str) -> Vec<Vec<&str>> {
    let mut found = Vec::new();
    let starts = text.match_indices("crate::").chain(text.match_indices("super::"));
    for (at, _) in starts.filter(|&(at, _)| !text[..at].ends_with("::")) {
        let (stem, rest) = split_path(&text[at..]);
        match rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            Some((group, _)) => found.extend(group.split(',').map(|item| {
                stem.iter().copied().chain(split_path(item.trim()).0).collect::<Vec<_>>()
            })),
            None => found.push(stem),
        }
    }
    found
}

/// The first parts of the other paths that are imported: a child of the module,
/// or a crate.
fn children(text: &str) -> Vec<String> {
    let imports =
        text.lines().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("use "));
    imports.filter_map(|path| split_path(path).0.first().map(|part| (*part).to_owned())).collect()
}

/// The parts between `::`, and the text after them.
fn split_path(text: &str) -> (Vec<&str>, &str) {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        if end == 0 {
            return (parts, rest);
        }
        parts.push(&rest[..end]);
        match rest[end..].strip_prefix("::") {
            Some(after) => rest = after,
            None => return (parts, &rest[end..]),
        }
    }
}

/// Each module with its text, without comments and the tests at its end.
fn sources() -> BTreeMap<Module, String> {
    let mut folders = vec![root()];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(module_of(&path), code_of(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn module_of(path: &Path) -> Module {
    let below = path.strip_prefix(root()).unwrap().with_extension("");
    let mut module: Module = below.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

fn code_of(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let is_code = |line: &&str| !line.trim_start().starts_with("//");
    code.lines().filter(is_code).collect::<Vec<_>>().join("\n")
}

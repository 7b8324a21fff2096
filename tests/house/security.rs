//! The documents match the code. Each test and constant that docs/security.md names exists.
//! docs/options.md and the manual have every setting, and docs/options.md has its default.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use novcomet::config::Config;

use crate::support::SOURCE;

fn read(path: &str) -> String {
    let path = Path::new(SOURCE).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in `code` with a file: `file: name`.
fn names(text: &str) -> Vec<(&str, &str)> {
    let spans = text.split('`').skip(1).step_by(2);
    let pairs = spans.filter_map(|span| span.split_once(": "));
    pairs.filter(|(file, _)| ["rs", "mjs"].contains(&suffix(file))).collect()
}

fn suffix(file: &str) -> &str {
    file.rsplit('.').next().unwrap_or_default()
}

fn is_constant(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// The name, if it does not exist.
fn missing((file, name): (&str, &str)) -> Option<String> {
    let (texts, mark) = match () {
        () if is_constant(name) => (vec![read(&format!("src/{file}"))], format!("const {name}: ")),
        () if suffix(file) == "mjs" => (vec![read(&format!("tests/{file}"))], format!("'{name}'")),
        () if file.starts_with("src/") => (vec![read(file)], format!("    fn {name}()")),
        () => (modules(file), format!("\nfn {name}(")),
    };
    let found = texts.iter().any(|text| text.contains(&mark));
    (!found).then(|| format!("{file}: {name}"))
}

/// The files of this name in tests/ and in its folders: the module of a test binary,
/// and the binary itself.
fn modules(file: &str) -> Vec<String> {
    let tests = Path::new(SOURCE).join("tests");
    let folders = fs::read_dir(&tests).unwrap().flatten().map(|entry| entry.path());
    let files = folders.chain([tests]).map(|folder| folder.join(file));
    files.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

#[test]
fn each_named_test_and_constant_exists() {
    let page = read("docs/security.md");
    let named = names(&page);
    assert!(named.len() > 150, "only {} names were found", named.len());
    let missing: Vec<_> = named.into_iter().filter_map(missing).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn each_promise_has_a_test() {
    let page = read("docs/security.md");
    let is_row = |line: &&str| line.starts_with("| ") && !line.ends_with("| test |");
    let rows: Vec<_> = page.lines().filter(is_row).collect();
    assert!(rows.len() > 70, "only {} rows were found", rows.len());
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let tests = names(cells[cells.len() - 1]);
        assert!(!tests.is_empty() && !tests.iter().any(|(_, name)| is_constant(name)), "{row}");
    }
}

/// The settings in a text, each after `before`.
fn settings(text: &str, before: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_uppercase() || character == '_';
    let mark = format!("{before}NOVCOMET_");
    let names = text.split(&mark).skip(1).map(|rest| {
        let end = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        format!("NOVCOMET_{}", &rest[..end])
    });
    names.collect()
}

#[test]
fn each_setting_is_documented() {
    let code = read("src/config.rs");
    let code = settings(code.split("#[cfg(test)]").next().unwrap(), "\"");
    assert!(code.len() > 15, "only {code:?}");
    assert_eq!(settings(&read("docs/options.md"), "\n| `"), code, "the rows of docs/options.md");
    assert_eq!(settings(&read("docs/comet.cgi.1"), ""), code, "docs/comet.cgi.1");
}

/// The default of each setting that has one, by the rows of docs/options.md.
fn defaults(page: &str) -> BTreeMap<&str, OsString> {
    let rows = page.lines().filter(|line| line.starts_with("| `NOVCOMET_"));
    let cells = rows.map(|row| row.split('|').map(|cell| cell.trim().trim_matches('`')));
    let pairs = cells.map(|mut cells| (cells.nth(1).unwrap(), cells.next().unwrap()));
    pairs.filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name, value.into())).collect()
}

#[test]
fn documented_defaults_change_nothing() {
    let page = read("docs/options.md");
    let defaults = defaults(&page);
    assert!(defaults.len() > 15, "only {defaults:?}");
    let none = Config::from_env(|_| None).unwrap();
    for (name, value) in &defaults {
        let with_default = Config::from_env(|asked| (asked == *name).then(|| value.clone()));
        assert_eq!(with_default.unwrap(), none, "{name}={value:?}");
    }
}

/// All documents, by their paths.
fn documents() -> Vec<String> {
    let names = |directory: &str| {
        let entries = fs::read_dir(Path::new(SOURCE).join(directory)).unwrap();
        let paths = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let documents = paths.filter(|name| suffix(name) == "md");
        documents.map(|name| format!("{directory}{name}")).collect::<Vec<_>>()
    };
    [names(""), names("docs/")].concat()
}

/// The targets of the links in a text that lead to other documents.
fn links(text: &str) -> Vec<&str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).collect()
}

/// The name of a heading in a link, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn each_link_has_a_target() {
    let documents = documents();
    assert!(documents.len() > 12, "only {documents:?}");
    let mut found = 0;
    for document in &documents {
        for link in links(&read(document)) {
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let own = Path::new(document);
            let target = if path.is_empty() { own.to_owned() } else { own.with_file_name(path) };
            let target = target.to_str().unwrap().to_owned();
            assert!(Path::new(SOURCE).join(&target).exists(), "{document}: {link}");
            let is_heading = |line: &str| line.starts_with('#') && anchor(line) == heading;
            let is_there = heading.is_empty() || read(&target).lines().any(is_heading);
            assert!(is_there, "{document}: {link}");
            found += 1;
        }
    }
    assert!(found > 50, "only {found} links were found");
}

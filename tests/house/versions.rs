//! The version of `Cargo.toml` stands wherever docs/release.md says. The examples of the
//! documents have tests of their own.

use std::fs;

use crate::support::SOURCE;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The file, and what it has before and after the version.
const PLACES: [(&str, &str, &str); 6] = [
    ("Cargo.lock", "\nname = \"novcomet\"\nversion = \"", "\"\n"),
    ("fuzz/Cargo.lock", "\nname = \"novcomet\"\nversion = \"", "\"\n"),
    ("package.json", "\n  \"version\": \"", "\",\n"),
    ("debian/changelog", "novcomet (", "-"),
    ("docs/comet.cgi.1", ".TH COMET.CGI 1 ", "\" \"User Commands\"\n"),
    ("CHANGELOG.md", "\n## ", "\n"),
];

fn read(file: &str) -> String {
    fs::read_to_string(format!("{SOURCE}/{file}")).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// What stands between the first `before` and the next `after`.
fn between<'t>(text: &'t str, before: &str, after: &str) -> &'t str {
    let (_, rest) = text.split_once(before).unwrap_or_default();
    rest.split_once(after).unwrap_or_default().0
}

#[test]
fn version_is_the_same_everywhere() {
    for (file, before, after) in PLACES {
        let text = read(file).replacen("\n## Unreleased\n", "\n", 1);
        let found = between(&text, before, after);
        // A date stands beside it in the changelog and in the manual.
        assert!(found.split([' ', '"']).any(|word| word == VERSION), "{file}: {found:?}");
        assert!(read("docs/release.md").contains(&format!("| `{file}` |")), "{file}");
    }
}

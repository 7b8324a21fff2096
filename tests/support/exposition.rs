//! Prometheus' text format 0.0.4, read strictly.

use std::collections::{BTreeMap, BTreeSet};

/// The value of a sample, by its name and labels as they are written.
pub fn value(text: &str, sample: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("{sample} is missing:\n{text}"));
    line.parse().unwrap_or_else(|_| panic!("{sample} {line}"))
}

/// Panics at the first line that breaks the format, or a convention that `promtool check
/// metrics` knows.
pub fn check(text: &str) {
    assert!(text.ends_with('\n'), "the last line ends");
    let (mut families, mut samples) = (BTreeMap::new(), BTreeSet::new());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").and_then(|it| it.split_once(' ')).unwrap();
        assert!(help.len() > 5 && !help.contains('\\'), "{line}");
        let line = lines.next().unwrap();
        let kind = line.strip_prefix(&format!("# TYPE {name} ")).expect(line);
        check_name(name, kind);
        assert!(families.insert(name, kind).is_none(), "{name} comes twice");
        let mut of_family = Vec::new();
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            assert!(samples.insert(line.rsplit_once(' ').unwrap().0), "{line} comes twice");
            of_family.push(Sample::parse(line));
        }
        assert!(!of_family.is_empty(), "{name} has no sample");
        match kind {
            "histogram" => check_histogram(name, &of_family),
            _ => assert!(of_family.iter().all(|sample| sample.name == name), "{name}"),
        }
    }
}

fn check_name(name: &str, kind: &str) {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    assert!(name.starts_with("novcomet_") && name.bytes().all(is_plain), "{name}");
    assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
    assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
    let is_reserved = ["_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end));
    assert!(!is_reserved, "{name}");
}

struct Sample<'a> {
    name: &'a str,
    label: Option<(&'a str, &'a str)>,
    value: f64,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Self {
        let (series, value) = line.split_once(' ').expect(line);
        let value: f64 = value.parse().expect(line);
        assert!(value >= 0.0, "{line}");
        let Some((name, labels)) = series.split_once('{') else {
            return Self { name: series, label: None, value };
        };
        let label = labels.strip_suffix("\"}").and_then(|it| it.split_once("=\"")).expect(line);
        assert!(label.0.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
        assert!(!label.1.contains(['"', '\\', '\n']), "{line}");
        Self { name, label: Some(label), value }
    }
}

fn check_histogram(name: &str, samples: &[Sample]) {
    let (sum, count) = (&samples[samples.len() - 2], &samples[samples.len() - 1]);
    assert_eq!((sum.name, count.name), (&*format!("{name}_sum"), &*format!("{name}_count")));
    let buckets = &samples[..samples.len() - 2];
    let bound = |sample: &Sample| match sample.label {
        Some(("le", "+Inf")) => f64::INFINITY,
        Some(("le", bound)) => bound.parse().unwrap(),
        _ => panic!("{name} has a bucket without le"),
    };
    assert!(buckets.iter().all(|bucket| bucket.name == format!("{name}_bucket")));
    assert!(buckets.is_sorted_by(|one, next| bound(one) < bound(next)), "{name}: bounds");
    assert!(buckets.is_sorted_by(|one, next| one.value <= next.value), "{name}: sums");
    let last = buckets.last().unwrap();
    assert!(bound(last).is_infinite() && (last.value - count.value).abs() < 0.5, "{name}: all");
}

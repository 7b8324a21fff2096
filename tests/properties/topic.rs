//! A topic is one file directly in the directory, and the file belongs to that topic only.

use std::collections::BTreeSet;
use std::fs;

use arbitrary::{Result, Unstructured};
use novcomet::event::{MAX_TOPIC, Since, Topic};
use novcomet::store::Store;
use novcomet::store::file::{Named, topic_of};
use serde_json::Value;

use super::scratch::{KEEP_ALL, Scratch};

/// Separates several names. No UTF-8 text contains this byte.
const BETWEEN: u8 = 0xFF;

pub fn holds(input: &[u8]) {
    let scratch = Scratch::new();
    let store = scratch.open(KEEP_ALL);
    let names =
        input.split(|&byte| byte == BETWEEN).filter_map(|name| std::str::from_utf8(name).ok());
    let published: BTreeSet<_> = names.filter(|name| publish(store.as_ref(), name)).collect();
    let files = scratch.names();
    assert_eq!(files.len(), published.len(), "{files:?}");
    let found: BTreeSet<_> = files.iter().map(|file| topic(&scratch, file)).collect();
    assert!(found.iter().eq(published.iter()), "{files:?}");
    for name in published {
        let topic = Topic::new(name).unwrap();
        let found = store.read(&topic, Since::Earliest, usize::MAX).unwrap().messages;
        assert!(found.iter().all(|message| message.data == name) && !found.is_empty());
    }
    for file in files {
        assert!(fs::symlink_metadata(scratch.store().join(file)).unwrap().is_file());
    }
}

pub fn case(u: &mut Unstructured) -> Result<Vec<u8>> {
    let pieces =
        ["/", "..", "%", "%2F", "%25", "2f", ".comet", ".", "é", "a", "A", "\\", "\0", "\n", " "];
    let mut names = Vec::new();
    for _ in 0..u.int_in_range(1..=4)? {
        let name = match u.int_in_range(0..=3)? {
            0 => u.arbitrary::<String>()?.into_bytes(),
            1 => u.choose(&pieces)?.repeat(u.int_in_range(1..=1100)?).into_bytes(),
            _ => super::joined(u, &pieces, 8)?,
        };
        names.push(name);
    }
    Ok(names.join(&BETWEEN))
}

/// Whether it was published. Exactly the invalid topics are refused.
fn publish(store: &dyn Store, name: &str) -> bool {
    let is_name = (1..=MAX_TOPIC).contains(&name.len()) && !name.chars().any(is_control);
    let Ok(topic) = Topic::new(name) else {
        assert!(!is_name, "{name:?}");
        return false;
    };
    assert!(is_name && topic.as_str() == name);
    store.publish(&topic, Some(name)).unwrap();
    true
}

/// C0, DEL and C1 of the Unicode standard.
fn is_control(c: char) -> bool {
    matches!(u32::from(c), 0..=0x1F | 0x7F..=0x9F)
}

/// The topic of a file, by its name and its header.
fn topic(scratch: &Scratch, file: &str) -> String {
    match topic_of(file.as_bytes()).unwrap_or_else(|| panic!("{file:?}")) {
        Named::Topic(topic) => {
            assert_eq!(decoded(file), topic.as_str());
            topic.as_str().to_owned()
        }
        Named::InHeader => {
            let log = fs::read_to_string(scratch.store().join(file)).unwrap();
            let header: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
            let topic = header["topic"].as_str().unwrap().to_owned();
            let (beginning, _) = file.strip_prefix("%~").unwrap().rsplit_once('~').unwrap();
            assert!(topic.starts_with(&decoded(&format!("{beginning}.comet"))), "{file:?}");
            topic
        }
    }
}

/// Decodes a file name. Only the necessary characters are encoded.
fn decoded(file: &str) -> String {
    let encoded = file.strip_suffix(".comet").unwrap_or_else(|| panic!("{file:?}"));
    assert!(!encoded.contains('/'));
    let mut parts = encoded.split('%');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or_else(|| panic!("{file:?}"));
        name.push(match code {
            "25" => '%',
            "2F" => '/',
            _ => panic!("{file:?}"),
        });
        name.push_str(rest);
    }
    name
}

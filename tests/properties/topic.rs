//! A topic is one file directly in the directory, and the file belongs to that topic only.

use std::collections::BTreeSet;
use std::fs;

use arbitrary::{Result, Unstructured};
use novcomet::event::{Since, Topic};
use novcomet::store::Store;

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
    let decoded: BTreeSet<_> = files.iter().map(|file| topic_of(file)).collect();
    assert!(decoded.iter().eq(published.iter()), "{files:?}");
    assert_eq!(files.len(), published.len());
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
            1 => u.choose(&pieces)?.repeat(u.int_in_range(1..=210)?).into_bytes(),
            _ => super::joined(u, &pieces, 8)?,
        };
        names.push(name);
    }
    Ok(names.join(&BETWEEN))
}

/// Whether it was published. Exactly the invalid topics are refused.
fn publish(store: &dyn Store, name: &str) -> bool {
    let is_name = (1..=200).contains(&name.len()) && !name.chars().any(is_control);
    let Ok(topic) = Topic::new(name) else {
        assert!(!is_name, "{name:?}");
        return false;
    };
    assert!(is_name && topic.as_str() == name);
    let encoded = name.len() + 2 * name.matches(['/', '%']).count() + ".comet".len();
    match store.publish(&topic, Some(name)) {
        Ok(_) => assert!(encoded <= 255),
        Err(error) => assert!(encoded > 255 && error.status() == 400, "{error}"),
    }
    encoded <= 255
}

/// C0, DEL and C1 of the Unicode standard.
fn is_control(c: char) -> bool {
    matches!(u32::from(c), 0..=0x1F | 0x7F..=0x9F)
}

/// Decodes a file name. Only the necessary characters are encoded.
fn topic_of(file: &str) -> String {
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

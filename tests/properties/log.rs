//! The content of a log determines its messages, also after changes by other programs. A
//! subscriber always reaches its end, and a publisher can always add to it.

use std::fs;

use arbitrary::{Result, Unstructured};
use filetime::FileTime;
use novcomet::event::{Cursor, Since, Topic};
use novcomet::store::{Retention, Store};

use super::cursor::{EXACT, micros};
use super::object::Object;
use super::scratch::{KEEP_ALL, Scratch};

type Message = (u64, String);

const WHOLE: usize = usize::MAX;

pub fn holds(input: &[u8]) {
    let there = messages_of(input);
    let scratch = Scratch::new();
    let file = scratch.store().join("a.comet");
    for time in times(&there) {
        fs::write(&file, input).unwrap();
        filetime::set_file_times(&file, time, time).unwrap();
        is_read(scratch.open(KEEP_ALL).as_ref(), &there);
        for few in [1, 3] {
            let kept = &there[there.len().saturating_sub(few)..];
            let store = scratch.open(Retention { messages: few, ..KEEP_ALL });
            assert_eq!(heard(store.as_ref(), Since::Earliest, WHOLE).0, kept);
        }
    }
    assert_eq!(fs::read(&file).unwrap(), input, "reading writes nothing");
    takes_the_next(&scratch, there);
    assert_eq!(scratch.names(), ["a.comet"]);
}

pub fn case(u: &mut Unstructured) -> Result<Vec<u8>> {
    let mut log = Vec::new();
    let mut id = u.int_in_range(0..=1_795_415_403_163_846)?;
    if u.ratio(3, 4)? {
        let inode: u8 = u.arbitrary()?;
        log.extend(format!("{{\"born\":{},\"inode\":{inode}}}\n", Cursor::from_micros(id)).bytes());
    }
    for _ in 0..u.int_in_range(0..=8)? {
        id += u.int_in_range(0..=2_000_000)?;
        log.extend_from_slice(&match u.ratio(1, 8)? {
            true => junk(u)?,
            false => line(id, &text(u)?),
        });
    }
    if u.ratio(1, 4)? {
        log.truncate(u.int_in_range(0..=log.len())?);
    }
    Ok(log)
}

fn text(u: &mut Unstructured) -> Result<String> {
    let text = u.arbitrary::<String>()?;
    let most = if u.ratio(1, 6)? { 9_000 } else { 2 };
    Ok(text + &"x".repeat(u.int_in_range(0..=most)?))
}

fn line(id: u64, data: &str) -> Vec<u8> {
    let data = serde_json::to_string(data).unwrap();
    format!("{{\"id\":{},\"data\":{data}}}\n", Cursor::from_micros(id)).into()
}

/// Lines that are almost messages.
fn junk(u: &mut Unstructured) -> Result<Vec<u8>> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        "\"id\":",
        "\"data\":",
        ",",
        "1.5",
        "7",
        "-1.5",
        "1e9",
        "\"x\"",
        "\"\\ud800\"",
        " ",
        "\"born\":",
        "\"inode\":",
        "\"dropped\":",
        "18446744073709.551615",
        "8589934591.999999",
        "\n",
        "\r",
        "\0",
        "null",
    ];
    let mut junk = match u.ratio(1, 3)? {
        true => u.bytes(9)?.to_vec(),
        false => super::joined(u, &pieces, 10)?,
    };
    junk.push(b'\n');
    Ok(junk)
}

/// File times: set by the kernel, long ago, and by a publisher.
fn times(there: &[Message]) -> impl Iterator<Item = FileTime> + use<> {
    let set = |&(id, _): &Message| {
        let cursor = Cursor::from_micros(id);
        FileTime::from_unix_time(cursor.seconds().try_into().unwrap(), cursor.nanoseconds())
    };
    let known = [FileTime::now(), FileTime::from_unix_time(1, 1_500)];
    known.into_iter().chain(there.last().map(set))
}

/// The messages of a log: its complete lines that are an object with one `id` and one `data`.
/// JavaScript must distinguish the `id`. Each message is earlier than the next.
fn messages_of(log: &[u8]) -> Vec<Message> {
    let whole = log.iter().rposition(|&byte| byte == b'\n').map_or(&log[..0], |end| &log[..end]);
    let mut messages: Vec<Message> = Vec::new();
    for line in whole.rsplit(|&byte| byte == b'\n') {
        let found = std::str::from_utf8(line).ok().and_then(message_of);
        let next = messages.last().map_or(u64::MAX, |(id, _)| *id);
        messages.extend(found.filter(|(id, _)| messages.is_empty() || *id < next));
    }
    messages.reverse();
    messages
}

fn message_of(line: &str) -> Option<Message> {
    let object = Object::parse(line).filter(|_| line.starts_with('{'))?;
    let id = micros(object.only("id")?).filter(|&id| id < EXACT)?;
    Some((id, serde_json::from_str(object.only("data")?).ok()?))
}

/// Reading from any cursor returns the later messages, once.
fn is_read(store: &dyn Store, there: &[Message]) {
    for limit in [0, 100, WHOLE] {
        assert_eq!(heard(store, Since::Earliest, limit).0, there);
    }
    assert_eq!(heard(store, Since::Now, WHOLE), (Vec::new(), false));
    let seconds = there.iter().map(|(id, _)| id / 1_000_000).filter(|&second| second > 0).take(3);
    for second in seconds {
        let later = there.iter().filter(|(id, _)| id / 1_000_000 > second).cloned().collect();
        assert_eq!(heard(store, Since::Second(second), 0), (later, false));
    }
    let near = |id: u64| [id.saturating_sub(1), id, id.saturating_add(1)];
    let now = Cursor::now().micros();
    let ids = there.iter().take(2).chain(there.last()).flat_map(|(id, _)| near(*id));
    for (number, id) in ids.chain([0, Cursor::SMALLEST.micros(), now]).enumerate() {
        let limit = [WHOLE, 100, 0][number % 3];
        let (found, gap) = heard(store, Since::Cursor(Cursor::from_micros(id)), limit);
        assert_eq!(found, if gap { there.to_vec() } else { after(there, id) }, "{id}");
    }
}

fn after(there: &[Message], cursor: u64) -> Vec<Message> {
    there.iter().filter(|(id, _)| *id > cursor).cloned().collect()
}

/// The messages that a subscriber receives until there is no news, and whether it was told of a
/// gap. A gap comes at the beginning only.
fn heard(store: &dyn Store, mut since: Since, limit: usize) -> (Vec<Message>, bool) {
    let (mut all, mut first) = (Vec::new(), None);
    loop {
        let read = store.read(&topic(), since, limit).unwrap();
        assert!(first.is_none() || !read.gap, "a gap for ever: {since:?} {read:?}");
        first.get_or_insert(read.gap);
        assert!(read.messages.iter().all(|message| message.id <= read.standing));
        if read.messages.is_empty() && since == Since::Cursor(read.standing) {
            return (all, first == Some(true));
        }
        since = Since::Cursor(read.standing);
        all.extend(read.messages.into_iter().map(|message| (message.id.micros(), message.data)));
    }
}

/// The next message is the last line. It is later than all others, except after the largest
/// cursor. All earlier messages remain.
fn takes_the_next(scratch: &Scratch, mut there: Vec<Message>) {
    let store = scratch.open(KEEP_ALL);
    let last = there.last().map_or(0, |(id, _)| *id);
    let cursor = store.publish(&topic(), Some("the next\n")).unwrap();
    let id = cursor.micros();
    assert!((id > last || last == EXACT - 1) && id % 1_000_000 != 0);
    let line = format!("{{\"id\":{cursor},\"data\":\"the next\\n\"}}\n");
    let log = fs::read(scratch.store().join("a.comet")).unwrap();
    assert!(log == line.as_bytes() || log.ends_with(format!("\n{line}").as_bytes()));
    // A topic at the largest cursor starts again.
    there.retain(|(earlier, _)| *earlier < id);
    there.push((id, "the next\n".to_owned()));
    is_read(store.as_ref(), &there);
}

fn topic() -> Topic {
    Topic::new("a").unwrap()
}

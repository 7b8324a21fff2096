//! A cursor has the form of docs/protocol.md, and it is unchanged after a round trip.

use arbitrary::{Result, Unstructured};
use novcomet::event::{Cursor, Since};

/// A double distinguishes microseconds below this number of seconds: until 2242.
pub const EXACT: u64 = (1 << 33) * 1_000_000;

pub fn holds(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Since::parse(&text) {
        Ok(since) => assert_eq!(Some(since), meant(&text), "{text:?}"),
        Err(error) => assert!(error.status() == 400 && meant(&text).is_none(), "{text:?}"),
    }
    let numbers: Vec<_> = input.chunks_exact(8).take(8).map(number).collect();
    for &number in &numbers {
        comes_back(Cursor::from_micros(number));
        comes_back(Cursor::from_micros(number % EXACT));
    }
    for pair in numbers.windows(2) {
        keeps_order(pair[0], pair[1]);
        is_a_moment(i64::from_le_bytes(pair[0].to_le_bytes()), (pair[1] >> 32).try_into().unwrap());
    }
}

pub fn case(u: &mut Unstructured) -> Result<Vec<u8>> {
    let digits = ["0", "1", "00", "1795415403", ".", "163846", "9", "18446744073709", "551615"];
    match u.int_in_range(0..=5)? {
        0 => u.bytes(16).map(<[u8]>::to_vec),
        1 => Ok(u.arbitrary::<u64>()?.to_string().into()),
        2 => Ok(Cursor::from_micros(u.arbitrary()?).to_string().into()),
        3 => super::joined(u, &["earliest", "latest", "E", "-", "+", "e", " ", "١", "1", "."], 4),
        _ => super::joined(u, &digits, 6),
    }
}

/// The grammar of the wire: nothing, `earliest`, `latest`, or digits with an optional
/// fraction, up to the microseconds that 64 bits hold.
fn meant(text: &str) -> Option<Since> {
    match text {
        "" => Some(Since::Now),
        "earliest" => Some(Since::Earliest),
        "latest" => Some(Since::Latest),
        _ if text.contains('.') => micros(text).map(|it| Since::Cursor(Cursor::from_micros(it))),
        _ => match micros(&format!("{text}.0"))? / 1_000_000 {
            0 => Some(Since::Now),
            second => Some(Since::Second(second)),
        },
    }
}

/// The microseconds of `DIGITS.DIGITS`, to the nearest.
pub fn micros(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.')?;
    let is_number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let digits = format!("{whole}{fraction:0<7.7}");
    digits.parse::<u128>().ok().and_then(|tenths| ((tenths + 5) / 10).try_into().ok())
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn comes_back(cursor: Cursor) {
    let text = cursor.to_string();
    assert_eq!(micros(&text), Some(cursor.micros()));
    assert_eq!(Since::parse(&text).ok(), Some(Since::Cursor(cursor)));
    let json = serde_json::to_string(&cursor).unwrap();
    assert_eq!(json, text);
    let read = serde_json::from_str::<Cursor>(&json).ok();
    assert_eq!(read, Some(cursor).filter(|cursor| cursor.micros() < EXACT));
    if cursor.micros() < EXACT {
        through_javascript(cursor, &json);
    }
}

/// A client reads the number as a double, and prints the shortest text for it.
fn through_javascript(cursor: Cursor, json: &str) {
    let double: f64 = json.parse().unwrap();
    assert_eq!(format!("{double:.6}"), json);
    let printed = double.to_string();
    if cursor.micros() % 1_000_000 != 0 {
        assert_eq!(Since::parse(&printed).ok(), Some(Since::Cursor(cursor)), "{printed}");
    }
}

fn keeps_order(one: u64, other: u64) {
    let [first, second] = [one, other].map(Cursor::from_micros);
    assert_eq!(first.cmp(&second), one.cmp(&other));
    assert_eq!(Since::Cursor(first).includes(second), one < other);
    let next = first.next(second);
    assert!(next >= second.min(Cursor::LARGEST) && next.micros() < EXACT);
    assert!(next > first || one >= EXACT - 1);
}

/// The time of every file is a valid cursor.
fn is_a_moment(seconds: i64, nanoseconds: u32) {
    let cursor = Cursor::at(seconds, nanoseconds);
    assert!(cursor > Cursor::SMALLEST && cursor.micros() % 1_000_000 != 0);
}

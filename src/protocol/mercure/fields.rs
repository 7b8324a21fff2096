//! The fields of a query or a form, and the rule for their texts.

use std::borrow::Cow;

use percent_encoding::percent_decode;
use url::form_urlencoded;

use crate::error::Error;

/// Decodes the fields, in their order.
///
/// # Errors
/// 400 for bytes that are not UTF-8. `form_urlencoded` would replace them by U+FFFD.
pub fn fields(encoded: &[u8]) -> Result<impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)>, Error> {
    match percent_decode(encoded).decode_utf8() {
        Ok(_) => Ok(form_urlencoded::parse(encoded)),
        Err(_) => bad("the parameters are not UTF-8"),
    }
}

/// Whether a topic, a matcher, an id or a type may be `text`.
///
/// # Errors
/// 400 for a control character, and for a format character, which is invisible.
pub fn check(field: &str, text: &str) -> Result<(), Error> {
    let is_hidden = |c: char| c.is_control() || is_format(c);
    match text.chars().any(is_hidden) {
        true => bad(format!("{field} has no control characters and no invisible ones")),
        false => Ok(()),
    }
}

/// The general category Cf of Unicode 16.
fn is_format(character: char) -> bool {
    const FORMAT: [(u32, u32); 21] = [
        (0xad, 0xad),
        (0x600, 0x605),
        (0x61c, 0x61c),
        (0x6dd, 0x6dd),
        (0x70f, 0x70f),
        (0x890, 0x891),
        (0x8e2, 0x8e2),
        (0x180e, 0x180e),
        (0x200b, 0x200f),
        (0x202a, 0x202e),
        (0x2060, 0x2064),
        (0x2066, 0x206f),
        (0xfeff, 0xfeff),
        (0xfff9, 0xfffb),
        (0x110bd, 0x110bd),
        (0x110cd, 0x110cd),
        (0x13430, 0x1343f),
        (0x1bca0, 0x1bca3),
        (0x1d173, 0x1d17a),
        (0xe0001, 0xe0001),
        (0xe0020, 0xe007f),
    ];
    let code = u32::from(character);
    code > 0x7f && FORMAT.iter().any(|&(first, last)| (first..=last).contains(&code))
}

/// A request that breaks the rule in `why`.
pub fn bad<T>(why: impl Into<String>) -> Result<T, Error> {
    Err(Error::bad_request(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_utf8() {
        let all: Vec<_> = fields(b"a=%C3%A9+b&a&").unwrap().collect();
        assert_eq!(all, [("a".into(), "\u{e9} b".into()), ("a".into(), "".into())]);
        for text in ["a=%FF", "%C3&%A9=1"] {
            assert_eq!(fields(text.as_bytes()).err().unwrap().status(), 400, "{text}");
        }
    }

    #[test]
    fn hidden_characters_are_refused() {
        for text in ["", "a b", "é", "日本", "\u{1f600}", "\u{2028}"] {
            assert!(check("a topic", text).is_ok(), "{text:?}");
        }
        for text in ["\0", "\n", "\u{7f}", "\u{85}", "\u{ad}", "\u{200b}", "\u{202e}", "\u{e0041}"]
        {
            assert_eq!(check("a topic", text).unwrap_err().status(), 400, "{text:?}");
        }
    }
}

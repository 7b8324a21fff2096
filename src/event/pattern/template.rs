//! URI Templates (RFC 6570) as Mercure 0.x matches them: a text matches if it looks like an
//! expansion. Neither the names in it nor the lengths of prefixes are compared.

use super::program::Program;
use super::steps::Set;

const UNRESERVED: Set =
    Set::of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~");
const RESERVED: Set = Set::of(":/?#[]@!$&'()*+,;=");
const HEX: Set = Set::of("0123456789abcdefABCDEF");
/// Characters of ASCII that no literal has (RFC 6570 §2.1).
const NO_LITERAL: Set = Set::of(" \"'<>\\^`{|}");

/// `None` if `text` is no URI Template.
pub fn compile(text: &str) -> Option<Program> {
    let mut program = Program::default();
    let mut rest = text;
    while let Some((literal, after)) = rest.split_once('{') {
        let (expression, end) = after.split_once('}')?;
        program.text(checked(literal)?);
        Expression::parse(expression)?.add_to(&mut program);
        rest = end;
    }
    program.text(checked(rest)?);
    Some(program)
}

fn checked(literal: &str) -> Option<&str> {
    let is_literal = |c: char| match u8::try_from(c) {
        Ok(byte) if byte.is_ascii() => !byte.is_ascii_control() && !NO_LITERAL.has(byte),
        _ => !c.is_control() && u32::from(c) & 0xFFFE != 0xFFFE,
    };
    (literal.chars().all(is_literal) && is_encoded(literal)).then_some(literal)
}

/// Whether two hexadecimal digits follow each `%`.
fn is_encoded(text: &str) -> bool {
    let mut parts = text.split('%').map(str::as_bytes);
    parts.next();
    parts.all(|part| part.len() >= 2 && HEX.has(part[0]) && HEX.has(part[1]))
}

/// The content of two braces.
struct Expression {
    operator: Option<char>,
    variables: usize,
    /// Whether a variable is a list (`*`).
    is_exploded: bool,
}

impl Expression {
    fn parse(text: &str) -> Option<Self> {
        let operator = text.chars().next().filter(|c| "+#./;?&".contains(*c));
        let list = &text[operator.map_or(0, char::len_utf8)..];
        let (mut variables, mut is_exploded) = (0, false);
        for variable in list.split(',') {
            let name = match variable.split_once(':') {
                Some((name, length)) => Some(name).filter(|_| is_length(length))?,
                None => variable.strip_suffix('*').unwrap_or(variable),
            };
            is_exploded |= variable.ends_with('*');
            variables += usize::from(is_name(name));
        }
        (variables == list.split(',').count()).then_some(Self { operator, variables, is_exploded })
    }

    /// Anything that it can be expanded to, also if its variables are undefined.
    fn add_to(&self, program: &mut Program) {
        let (first, separator) = match self.operator {
            None | Some('+') => ("", ""),
            Some('#') => ("#", ""),
            // The values have these separators too.
            Some('.') => (".", ""),
            Some('/') => ("/", "/"),
            Some(';') => (";", ";"),
            Some('?') => ("?", "&"),
            Some(_) => ("&", "&"),
        };
        let set = self.values();
        program.optional(|program| {
            program.text(first);
            add_values(program, set);
            let next = |program: &mut Program| {
                program.text(separator);
                add_values(program, set);
            };
            match (separator, self.is_exploded) {
                ("", _) => {}
                (_, true) => program.optional(|program| program.repeated(next)),
                (_, false) => (1..self.variables).for_each(|_| program.optional(next)),
            }
        });
    }

    fn values(&self) -> Set {
        match self.operator {
            Some('+' | '#') => UNRESERVED.and(RESERVED),
            Some(';' | '?' | '&') => UNRESERVED.and(Set::of(",=")),
            _ if self.is_exploded => UNRESERVED.and(Set::of(",=")),
            _ => UNRESERVED.and(Set::of(",")),
        }
    }
}

fn is_length(text: &str) -> bool {
    matches!(text.len(), 1..=4)
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && !text.starts_with('0')
}

fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_%".contains(&byte);
    is_encoded(text) && text.split('.').all(|part| !part.is_empty() && part.bytes().all(is_part))
}

/// Values: any number of these characters and of percent-encoded ones.
fn add_values(program: &mut Program, set: Set) {
    program.optional(|it| {
        it.repeated(|it| {
            it.optional(|it| it.repeated(|it| it.one(set)));
            it.optional(|it| {
                it.text("%");
                it.one(HEX);
                it.one(HEX);
            });
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sections of RFC 6570.
    #[test]
    fn expansion_matches_its_template() {
        for (template, text, matches) in [
            ("https://example.com/books/{id}", "https://example.com/books/1", true),
            ("https://example.com/books/{id}", "https://example.com/books/", true),
            ("https://example.com/books/{id}", "https://example.com/books/1/2", false),
            ("https://example.com/books/{id}", "https://example.com/books/a%2Fb,c", true),
            ("https://example.com/books/{id}", "https://example.com/books/é", false),
            ("https://example.com/books/{id}", "https://example.com/books/%2", false),
            ("https://example.com/{+path}", "https://example.com/a/b?c=d#e", true),
            ("https://example.com/{+path}", "https://example.com/a b", false),
            ("x{#f}", "x#a/b", true),
            ("x{#f}", "xa", false),
            ("x{.a,b}", "x.a.b", true),
            ("x{/a,b}", "x/1/2", true),
            ("x{/a,b}", "x/1/2/3", false),
            ("x{/a*}", "x/1/2/3", true),
            ("x{;a,b}", "x;a=1;b", true),
            ("x{?a,b}", "x?a=1&b=2", true),
            ("x{?a}", "x?a=1&b=2", false),
            ("x{?a}", "x", true),
            ("x?y{&a*}", "x?y&a=1&b=2", true),
            ("{a}x{b}", "1x2x3", true),
            ("{a:3}", "12345", true),
            ("{a*}", "b=1,c=2", true),
        ] {
            assert_eq!(compile(template).unwrap().matches(text), matches, "{template} {text}");
        }
    }

    #[test]
    fn other_text_is_no_template() {
        for text in [
            "{",
            "{}",
            "a}",
            "{a",
            "{a}}",
            "{{a}}",
            "{=a}",
            "{|a}",
            "{a b}",
            "{a:0}",
            "{a:x}",
            "{a:12345}",
            "{a,}",
            "{.}",
            "{a..b}",
            "{%4}",
            "{a} b",
            "%4{a}",
            "{a}'",
            "{a**}",
        ] {
            assert_eq!(compile(text), None, "{text}");
        }
    }
}

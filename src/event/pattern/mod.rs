//! [`Pattern`]: the topics that a subscriber follows, in the notation of its protocol.

mod memory;
mod program;
mod steps;
mod template;
mod url;

use ::url::Url;
use serde::{Deserialize, Serialize};

use self::url::UrlPattern;
use super::Topic;
use crate::error::Error;
use program::{MAX_FORKS, MAX_STEPS, Program};
use steps::Set;

/// The longest pattern, in bytes, as Mercure's reference hub has it.
pub const MAX_PATTERN: usize = 4096;

/// Selects topics. A match takes time in proportion to the length of the topic, whatever
/// the pattern is: mostly one step for each byte, and at most some 2,048.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Source", into = "Source")]
pub struct Pattern {
    source: Source,
    matcher: Matcher,
}

/// What a pattern was made from, and is sent to another process as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
enum Source {
    Every,
    Exact(Topic),
    Segments(String),
    Template(String),
    Url { text: String, base: String },
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Matcher {
    Every,
    Exact(String),
    Prefix(String),
    Program(Program),
    /// The exact text, or a program.
    Template(String, Program),
    Url(Box<UrlPattern>),
}

impl TryFrom<Source> for Pattern {
    type Error = Error;

    fn try_from(source: Source) -> Result<Self, Error> {
        match source {
            Source::Every => Ok(Self::every()),
            Source::Exact(topic) => Ok(Self::exact(topic)),
            Source::Segments(text) => Self::segments(&text),
            Source::Template(text) => Self::template(&text),
            Source::Url { text, base } => Self::url(&text, &base),
        }
    }
}

impl From<Pattern> for Source {
    fn from(pattern: Pattern) -> Self {
        pattern.source
    }
}

impl Pattern {
    /// This topic.
    #[must_use]
    pub fn exact(topic: Topic) -> Self {
        let matcher = Matcher::Exact(topic.as_str().to_owned());
        Self { source: Source::Exact(topic), matcher }
    }

    /// The only topic that it selects, if it was made of one.
    #[must_use]
    pub fn topic(&self) -> Option<&Topic> {
        match &self.source {
            Source::Exact(topic) => Some(topic),
            _ => None,
        }
    }

    /// Every topic: `*` in both generations of Mercure.
    #[must_use]
    pub fn every() -> Self {
        Self { source: Source::Every, matcher: Matcher::Every }
    }

    /// A pattern of segments between slashes. `*` stands for one whole segment, and `**` at
    /// the end for one or more. Without either, a `*` after other characters at the end
    /// stands for any rest. No segment that a `*` stands for is empty.
    ///
    /// # Errors
    /// 400 for a `*` elsewhere, and for the rule that another text breaks.
    pub fn segments(text: &str) -> Result<Self, Error> {
        check(text)?;
        let source = Source::Segments(text.to_owned());
        let matcher = match text.strip_suffix('*') {
            _ if !text.contains('*') => return Topic::new(text).map(Self::exact),
            Some(prefix)
                if !prefix.contains('*') && !prefix.is_empty() && !prefix.ends_with('/') =>
            {
                Matcher::Prefix(prefix.to_owned())
            }
            _ => Matcher::Program(bounded(segments(text)?)?),
        };
        Ok(Self { source, matcher })
    }

    /// A topic selector of Mercure 0.x: `*`, a topic, or a URI Template (RFC 6570). The exact
    /// text matches too. A text that is no URI Template is an exact text only.
    ///
    /// # Errors
    /// 400 for a text that is too long, empty, or has control characters, and for too many
    /// variables.
    pub fn template(text: &str) -> Result<Self, Error> {
        check(text)?;
        if text == "*" {
            return Ok(Self::every());
        }
        if let Some(topic) = Topic::new(text).ok().filter(|_| !text.contains('{')) {
            return Ok(Self::exact(topic));
        }
        let exact = text.to_owned();
        let matcher = match template::compile(text).filter(|_| text.contains('{')) {
            Some(program) => Matcher::Template(exact, bounded(program)?),
            None => Matcher::Exact(exact),
        };
        Ok(Self { source: Source::Template(text.to_owned()), matcher })
    }

    /// A URL Pattern (WHATWG) without regular expressions, against `base`, the hub's URL; `*`
    /// is [`every`](Self::every) topic.
    ///
    /// # Errors
    /// 400 for a pattern that is not valid, has a regular expression, or is too long.
    pub fn url(text: &str, base: &str) -> Result<Self, Error> {
        check(text)?;
        if text == "*" {
            return Ok(Self::every());
        }
        let parsed = Url::parse(base).map_err(|_| refused("the base of a URL pattern is a URL"))?;
        let compiled = UrlPattern::compile(text, parsed).map_err(Error::bad_request)?;
        check_work(&compiled.programs())?;
        let source = Source::Url { text: text.to_owned(), base: base.to_owned() };
        Ok(Self { source, matcher: Matcher::Url(Box::new(compiled)) })
    }

    /// Refuses patterns that together take too much work. A request is matched against every
    /// topic of the store.
    ///
    /// # Errors
    /// 400 for too many variables, wildcards or characters in all.
    pub fn check_together(all: &[Self]) -> Result<(), Error> {
        let work = |(steps, forks), pattern: &Self| {
            let (more_steps, more_forks) = pattern.work();
            (steps + more_steps, forks + more_forks)
        };
        let (steps, forks) = all.iter().fold((0, 0), work);
        match steps <= MAX_STEPS && forks <= MAX_FORKS {
            true => Ok(()),
            false => {
                Err(refused("the patterns have fewer variables, wildcards or characters together"))
            }
        }
    }

    /// Its steps and forks. The parts of a URL are matched by one program each, so the
    /// largest counts.
    fn work(&self) -> (usize, usize) {
        let of = |program: &Program| (program.len(), program.forks());
        match &self.matcher {
            Matcher::Every | Matcher::Exact(_) | Matcher::Prefix(_) => (0, 0),
            Matcher::Program(program) | Matcher::Template(_, program) => of(program),
            Matcher::Url(pattern) => {
                let all = pattern.programs().map(of);
                let most = |part: fn(&(usize, usize)) -> usize| all.iter().map(part).max();
                (most(|it| it.0).unwrap_or(0), most(|it| it.1).unwrap_or(0))
            }
        }
    }

    /// Whether it selects this topic.
    #[must_use]
    pub fn matches(&self, topic: &Topic) -> bool {
        if topic.session().is_some() {
            return false;
        }
        let topic = topic.as_str();
        match &self.matcher {
            Matcher::Every => true,
            Matcher::Exact(text) => topic == text,
            Matcher::Prefix(prefix) => topic.starts_with(prefix),
            Matcher::Program(program) => program.matches(topic),
            Matcher::Template(text, program) => topic == text || program.matches(topic),
            Matcher::Url(pattern) => pattern.matches(topic),
        }
    }
}

fn refused(why: &str) -> Error {
    Error::bad_request(why)
}

fn check(text: &str) -> Result<(), Error> {
    match text.len() {
        0 => Err(refused("a pattern is at least one character")),
        1..=MAX_PATTERN if text.chars().any(char::is_control) => {
            Err(refused("a pattern has no control characters"))
        }
        1..=MAX_PATTERN => Ok(()),
        long => {
            let why = format!("a pattern has at most {MAX_PATTERN} bytes, not {long}");
            Err(Error::bad_request(why))
        }
    }
}

fn check_work(programs: &[&Program]) -> Result<(), Error> {
    match Program::are_bounded(programs) {
        true => Ok(()),
        false => Err(refused("a pattern has fewer variables, wildcards or characters")),
    }
}

fn bounded(program: Program) -> Result<Program, Error> {
    check_work(&[&program]).map(|()| program)
}

const NO_SLASH: Set = Set::ALL.without(Set::of("/"));

fn segments(text: &str) -> Result<Program, Error> {
    let mut program = Program::default();
    let segment = |program: &mut Program| program.repeated(|it| it.one(NO_SLASH));
    let count = text.split('/').count();
    for (at, part) in text.split('/').enumerate() {
        if at > 0 {
            program.text("/");
        }
        match part {
            "*" => segment(&mut program),
            "**" if at + 1 == count => {
                segment(&mut program);
                program.optional(|it| {
                    it.repeated(|it| {
                        it.text("/");
                        segment(it);
                    });
                });
            }
            _ if part.contains('*') => {
                let why = "a * is a whole segment, ** are the last one, and a * after other characters ends a pattern without further ones";
                return Err(refused(why));
            }
            text => program.text(text),
        }
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::ops::Range;

    const BASE: &str = "https://example.com/";

    type Make = fn(&str) -> Result<Pattern, Error>;

    fn topic(text: &str) -> Topic {
        Topic::new(text).unwrap()
    }

    #[test]
    fn segments_are_whole() {
        for (text, name, matches) in [
            ("news", "news", true),
            ("news", "news/1", false),
            ("news*", "news", true),
            ("news*", "newspaper/1", true),
            ("news/*", "news/1", true),
            ("news/*", "news/1/2", false),
            ("news/*", "news/", false),
            ("news/**", "news/1/2", true),
            ("news/**", "news", false),
            ("news/**", "news//", false),
            ("*", "news", true),
            ("*", "news/1", false),
            ("**", "news/1", true),
            ("/**", "/news/1", true),
            ("*/a/*", "é/a/b", true),
            ("*/a/**", "b/a/c/d", true),
        ] {
            let pattern = Pattern::segments(text).unwrap();
            assert_eq!(pattern.matches(&topic(name)), matches, "{text} {name}");
        }
    }

    #[test]
    fn other_asterisk_is_refused() {
        for text in ["a*b", "*a", "a**", "**/a", "a/**/b", "***", "a/b*/c", "*/a*", "a/***"] {
            assert_eq!(Pattern::segments(text).unwrap_err().status(), 400, "{text}");
        }
    }

    #[test]
    fn template_matches_its_own_text_too() {
        for (text, name, matches) in [
            ("*", "any/thing", true),
            ("/books/{id}", "/books/{id}", true),
            ("/books/{id}", "/books/1", true),
            ("/books/{id", "/books/{id", true),
            ("/books/{id", "/books/1", false),
            ("a b{c}", "a b", false),
        ] {
            let pattern = Pattern::template(text).unwrap();
            assert_eq!(pattern.matches(&topic(name)), matches, "{text} {name}");
        }
    }

    #[test]
    fn url_is_against_the_base() {
        let pattern = Pattern::url("/books/:id", BASE).unwrap();
        assert!(pattern.matches(&topic("/books/1")) && !pattern.matches(&topic("/1")));
        assert!(Pattern::url("*", BASE).unwrap().matches(&topic("a b")));
        assert_eq!(Pattern::url("/a", "x").unwrap_err().status(), 400);
    }

    #[test]
    fn long_or_invalid_text_is_refused() {
        let makers: [Make; 3] =
            [Pattern::segments, Pattern::template, |text| Pattern::url(text, BASE)];
        for make in makers {
            for text in ["", "a\0", "a\n*", "\u{85}{a}", &"x".repeat(MAX_PATTERN + 1)] {
                assert_eq!(make(text).unwrap_err().status(), 400, "{text:?}");
            }
        }
        for pattern in [
            Pattern::segments(&"*/".repeat(2048)),
            Pattern::template(&"{a}".repeat(1365)),
            Pattern::url(&"/*".repeat(2048), BASE),
        ] {
            assert_eq!(pattern.unwrap_err().status(), 400);
        }
        assert!(Pattern::template(&"x".repeat(MAX_PATTERN)).is_ok());
    }

    #[test]
    fn costly_patterns_are_refused_together() {
        let costly = Pattern::template(&"{a}".repeat(21)).unwrap();
        let usual = Pattern::url("/books/:id", BASE).unwrap();
        let segments = Pattern::segments("news/*").unwrap();
        assert!(Pattern::check_together(std::slice::from_ref(&costly)).is_ok());
        assert!(Pattern::check_together(&vec![usual; 64]).is_ok());
        assert!(Pattern::check_together(&vec![segments; 100]).is_ok());
        let refused = Pattern::check_together(&vec![costly; 2]).unwrap_err();
        assert_eq!(refused.status(), 400);
    }

    #[test]
    fn pattern_makes_the_round_trip() {
        for pattern in [
            Pattern::every(),
            Pattern::exact(topic("a\"b")),
            Pattern::segments("a").unwrap(),
            Pattern::segments("a/*").unwrap(),
            Pattern::template("/{a}").unwrap(),
            Pattern::url("/:a", BASE).unwrap(),
        ] {
            let text = serde_json::to_string(&pattern).unwrap();
            assert_eq!(serde_json::from_str::<Pattern>(&text).unwrap(), pattern, "{text}");
        }
        assert!(serde_json::from_str::<Pattern>(r#"{"Segments":"a*b"}"#).is_err());
    }

    /// The meaning of a pattern. A slow matcher tries everything.
    #[derive(Clone, Debug)]
    enum Slow {
        Text(String),
        /// Characters, and `%2f`.
        Values(&'static str),
        /// Anything.
        Any,
        /// Anything but nothing and a slash.
        Segment,
        /// The same so many times.
        Times(Vec<Slow>, Range<usize>),
    }
    use Slow::{Any, Segment, Times, Values};

    /// The ends of everything at `start` that `all` match.
    fn ends(all: &[Slow], text: &str, start: usize) -> BTreeSet<usize> {
        let Some((first, rest)) = all.split_first() else { return [start].into() };
        first.ends(text, start).into_iter().flat_map(|end| ends(rest, text, end)).collect()
    }

    impl Slow {
        fn ends(&self, text: &str, start: usize) -> BTreeSet<usize> {
            if let Times(part, times) = self {
                let so_often = |times| ends(&vec![part.clone(); times].concat(), text, start);
                return times.clone().flat_map(so_often).collect();
            }
            let is_end = |end: &usize| text.is_char_boundary(*end) && self.is(&text[start..*end]);
            (start..=text.len()).filter(is_end).collect()
        }

        fn is(&self, text: &str) -> bool {
            match self {
                Slow::Text(wanted) => text == wanted,
                Values(all) => text.replace("%2f", "").chars().all(|c| all.contains(c)),
                Any => true,
                Segment => !text.is_empty() && !text.contains('/'),
                Times(..) => false,
            }
        }
    }

    /// The same numbers each time (Knuth's MMIX).
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(self.0 >> 33).unwrap() % limit
        }

        fn some<T: Clone>(&mut self, all: &[T], most: usize) -> Vec<T> {
            (0..self.below(most + 1)).map(|_| all[self.below(all.len())].clone()).collect()
        }
    }

    /// Compares random patterns of these pieces, which have a text and a meaning, on random
    /// topics. An `N` is another name each time.
    fn compare(pieces: &[(&str, Vec<Slow>)], topics: &[&str], start: &str, make: Make) {
        let mut chance = Chance(pieces.len() as u64);
        let mut matched = 0;
        for _ in 0..20_000 {
            let (mut pattern, mut slow) = (start.to_owned(), vec![text(start)]);
            for (at, (piece, meaning)) in chance.some(pieces, 4).into_iter().enumerate() {
                pattern += &piece.replace('N', &format!("n{at}"));
                slow.extend(meaning);
            }
            let name = start.to_owned() + &chance.some(topics, 7).concat();
            let expected = ends(&slow, &name, 0).contains(&name.len());
            let found = make(&pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
            assert_eq!(found.matches(&topic(&name)), expected, "{pattern} {name}");
            matched += usize::from(expected);
        }
        assert!(matched > 500, "{matched}");
    }

    fn text(text: &str) -> Slow {
        Slow::Text(text.to_owned())
    }

    /// Up to so many values, or nothing.
    fn list(first: &str, next: &str, characters: &'static str, most: usize) -> Vec<Slow> {
        let more = Times(vec![text(next), Values(characters)], 0..most);
        vec![Times(vec![text(first), Values(characters), more], 0..2)]
    }

    #[test]
    fn template_agrees_with_a_slow_matcher() {
        let pieces = [
            ("y", vec![text("y")]),
            ("/", vec![text("/")]),
            ("{a}", vec![Values("xy,.")]),
            ("{a*}", vec![Values("xy,.=")]),
            ("{+a}", vec![Values("xy,.=/?&#")]),
            ("{.a}", list(".", ".", "xy,.", 9)),
            ("{/a}", list("/", "/", "xy,.", 1)),
            ("{/a,b}", list("/", "/", "xy,.", 2)),
            ("{/a*}", list("/", "/", "xy,.=", 9)),
            ("{?a,b}", list("?", "&", "xy,.=", 2)),
            ("{&a*}", list("&", "&", "xy,.=", 9)),
            ("{#a}", list("#", "#", "xy,.=/?&#", 1)),
        ];
        let topics = ["x", "y", "/", "?", "&", "=", ".", "#", "%2f", "%x", "é"];
        compare(&pieces, &topics, "x", Pattern::template);
    }

    #[test]
    fn url_agrees_with_a_slow_matcher() {
        let pieces = [
            ("{a}", vec![text("a")]),
            ("/b", vec![text("/b")]),
            ("/*/", vec![text("/"), Any, text("/")]),
            ("{*}", vec![Any]),
            ("{a*b}", vec![text("a"), Any, text("b")]),
            ("{a}?", vec![Times(vec![text("a")], 0..2)]),
            ("{/ab}*", vec![Times(vec![text("/ab")], 0..9)]),
            ("{/a*}+", vec![Times(vec![text("/a"), Any], 1..5)]),
            ("{/a:N/}", vec![text("/a"), Segment, text("/")]),
            ("/:N?", vec![Times(vec![text("/"), Segment], 0..2)]),
            ("/:N+", vec![Times(vec![text("/"), Segment], 1..9)]),
            ("/:N", vec![text("/"), Segment]),
        ];
        compare(&pieces, &["a", "b", "/"], "/a", |text| Pattern::url(text, BASE));
    }

    #[test]
    fn segments_agree_with_a_slow_matcher() {
        let pieces = [
            ("/a", vec![text("/a")]),
            ("/*", vec![text("/"), Segment]),
            ("/*/b", vec![text("/"), Segment, text("/b")]),
            ("/b/", vec![text("/b/")]),
        ];
        // `**` is the last segment.
        compare(&pieces, &["a", "b", "/"], "a", Pattern::segments);
    }
}

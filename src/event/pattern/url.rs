//! URL Patterns (WHATWG, <https://urlpattern.spec.whatwg.org/>) without regular
//! expressions: names (`:id`), wildcards (`*`), groups (`{…}`), and the modifiers `?`, `+`
//! and `*`. What a pattern leaves out comes from its base URL, or matches everything.

use std::cell::RefCell;
use std::collections::BTreeSet;

use url::Url;

use super::program::Program;
use super::steps::Set;

/// A topic as a URL, against a base.
struct Parsed {
    base: Url,
    topic: String,
    url: Option<Url>,
}

thread_local! {
    /// The last topic: it is matched against many patterns, most of one base.
    static LAST: RefCell<Option<Parsed>> = const { RefCell::new(None) };
}

/// The parts of a URL that are compared, each with its program.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UrlPattern {
    base: Url,
    protocol: Program,
    hostname: Program,
    port: Program,
    pathname: Program,
    search: Program,
    hash: Program,
}

impl UrlPattern {
    /// The error is what is wrong with `text`.
    pub fn compile(text: &str, base: Url) -> Result<Self, String> {
        let tokens = tokens(text)?;
        let parts = Parts::split(&tokens, &base)?;
        let is_path = parts.protocol.matches_any(&["http", "https", "ws", "wss", "ftp", "file"])?;
        let path = if is_path { PATHNAME } else { OPAQUE_PATH };
        Ok(Self {
            protocol: compile(&parts.protocol.0, PROTOCOL)?,
            hostname: compile(&parts.hostname.0, HOSTNAME)?,
            port: compile(&parts.port.0, PORT)?,
            pathname: compile(&parts.pathname.0, path)?,
            search: compile(&parts.search.0, SEARCH)?,
            hash: compile(&parts.hash.0, HASH)?,
            base,
        })
    }

    /// Whether `topic`, against the base URL, is such a URL.
    pub fn matches(&self, topic: &str) -> bool {
        LAST.with_borrow_mut(|last| {
            if last.as_ref().is_none_or(|last| last.topic != topic || last.base != self.base) {
                let url = Url::options().base_url(Some(&self.base)).parse(topic).ok();
                *last = Some(Parsed { base: self.base.clone(), topic: topic.to_owned(), url });
            }
            last.as_ref().and_then(|last| last.url.as_ref()).is_some_and(|url| self.is(url))
        })
    }

    /// The path tells most of them apart.
    fn is(&self, url: &Url) -> bool {
        let port = || url.port().map(|port| port.to_string()).unwrap_or_default();
        self.pathname.matches(url.path())
            && self.protocol.matches(url.scheme())
            && self.hostname.matches(url.host_str().unwrap_or_default())
            && self.port.matches(&port())
            && self.search.matches(url.query().unwrap_or_default())
            && self.hash.matches(url.fragment().unwrap_or_default())
    }

    /// All its programs.
    pub fn programs(&self) -> [&Program; 6] {
        [&self.protocol, &self.hostname, &self.port, &self.pathname, &self.search, &self.hash]
    }
}

/// A part of a pattern's text. An escaped character also separates the parts of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// After a backslash.
    Escaped(char),
    Name(String),
    Asterisk,
    Open,
    Close,
    /// `?` after a name, a wildcard or a group.
    Optional,
    Plus,
}

impl Token {
    /// The character that it stands for.
    fn character(&self) -> Option<char> {
        match self {
            Self::Char(c) | Self::Escaped(c) => Some(*c),
            _ => None,
        }
    }

    fn is(&self, characters: &[char]) -> bool {
        self.character().is_some_and(|c| characters.contains(&c))
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '\\' => Token::Escaped(rest.next().ok_or("a URL pattern does not end in a backslash")?),
            '(' => return Err("a URL pattern has no regular expression here".into()),
            '*' => Token::Asterisk,
            '{' => Token::Open,
            '}' => Token::Close,
            '+' => Token::Plus,
            '?' if can_be_modified(tokens.last()) => Token::Optional,
            ':' if rest.peek().is_some_and(|&next| is_name_start(next)) => {
                let mut name = String::new();
                while let Some(next) = rest.next_if(|&next| is_in_name(next)) {
                    name.push(next);
                }
                Token::Name(name)
            }
            c => Token::Char(c),
        });
    }
    check_names(&tokens)?;
    Ok(tokens)
}

fn can_be_modified(token: Option<&Token>) -> bool {
    matches!(token, Some(Token::Name(_) | Token::Asterisk | Token::Close))
}

fn is_name_start(c: char) -> bool {
    c.is_alphabetic() || "_$".contains(c)
}

fn is_in_name(c: char) -> bool {
    c.is_alphanumeric() || "_$\u{200c}\u{200d}".contains(c)
}

fn check_names(tokens: &[Token]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for token in tokens {
        if let Token::Name(name) = token {
            if !names.insert(name) {
                return Err(format!("a URL pattern has the name {name} once"));
            }
        }
    }
    Ok(())
}

/// The tokens of one part of a URL.
#[derive(Debug, Clone, Default)]
struct Part(Vec<Token>);

impl Part {
    fn of(tokens: &[Token]) -> Self {
        Self(tokens.to_vec())
    }

    /// Exactly this text.
    fn literal(text: &str) -> Self {
        Self(text.chars().map(Token::Escaped).collect())
    }

    fn every() -> Self {
        Self(vec![Token::Asterisk])
    }

    fn matches_any(&self, texts: &[&str]) -> Result<bool, String> {
        let program = compile(&self.0, PROTOCOL)?;
        Ok(texts.iter().any(|text| program.matches(text)))
    }
}

struct Parts {
    protocol: Part,
    hostname: Part,
    port: Part,
    pathname: Part,
    search: Part,
    hash: Part,
}

impl Parts {
    /// Splits a pattern, as the section "constructor string parsing" does, and takes what
    /// stands before its first part from `base`.
    fn split(tokens: &[Token], base: &Url) -> Result<Self, String> {
        match find(tokens, &[':']) {
            Some(end) => Self::absolute(&tokens[..end], &tokens[end + 1..]),
            None => Ok(Self::relative(tokens, base)),
        }
    }

    fn absolute(protocol: &[Token], rest: &[Token]) -> Result<Self, String> {
        let protocol = Part::of(protocol);
        let is_special = protocol.matches_any(&["http", "https", "ws", "wss", "ftp", "file"])?;
        let slashes = rest.iter().take(2).filter(|token| token.is(&['/'])).count();
        let (host, rest) = match rest.get(2..).filter(|_| slashes == 2) {
            Some(rest) => rest.split_at(find(rest, &['/', '?', '#']).unwrap_or(rest.len())),
            None if is_special => return Err("a URL pattern has // after this protocol".into()),
            None => (&rest[..0], rest),
        };
        let (hostname, port) = host_and_port(host)?;
        let port = without_default(port, &protocol);
        let (pathname, search, hash) = path_and_more(rest);
        let pathname = match pathname {
            Some(path) => path,
            None if rest.is_empty() && !host.is_empty() => Part::every(),
            None if is_special => Part::literal("/"),
            None => Part::default(),
        };
        Ok(Self { protocol, hostname, port, pathname, search, hash })
    }

    fn relative(tokens: &[Token], base: &Url) -> Self {
        let (pathname, search, hash) = path_and_more(tokens);
        let search = match find(tokens, &['#']) {
            Some(0) => Part::literal(base.query().unwrap_or_default()),
            _ => search,
        };
        let port = base.port().map(|port| port.to_string());
        Self {
            protocol: Part::literal(base.scheme()),
            hostname: Part::literal(base.host_str().unwrap_or_default()),
            port: Part::literal(&port.unwrap_or_default()),
            pathname: pathname.map_or_else(|| Part::literal(base.path()), |it| below(it, base)),
            search,
            hash,
        }
    }
}

/// The first of these characters that is outside of groups.
fn find(tokens: &[Token], characters: &[char]) -> Option<usize> {
    let mut depth = 0_u32;
    tokens.iter().position(|token| {
        match token {
            Token::Open => depth += 1,
            Token::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && token.is(characters)
    })
}

fn host_and_port(tokens: &[Token]) -> Result<(Part, Part), String> {
    if find(tokens, &['@']).is_some() {
        return Err("a URL pattern has no user name or password here".into());
    }
    let bracket = tokens.iter().rposition(|token| *token == Token::Char(']')).unwrap_or(0);
    Ok(match find(&tokens[bracket..], &[':']) {
        Some(colon) => {
            let (host, port) = tokens.split_at(bracket + colon);
            (Part::of(host), Part::of(&port[1..]))
        }
        None => (Part::of(tokens), Part::default()),
    })
}

/// A URL does not have the default port of its protocol (RFC 3986 §6.2.3).
fn without_default(port: Part, protocol: &Part) -> Part {
    let text = |part: &Part| part.0.iter().map(Token::character).collect::<Option<String>>();
    let default = match text(protocol).map(|it| it.to_ascii_lowercase()).as_deref() {
        Some("http" | "ws") => "80",
        Some("https" | "wss") => "443",
        Some("ftp") => "21",
        _ => return port,
    };
    if text(&port).as_deref() == Some(default) { Part::default() } else { port }
}

/// The parts after the host. A part that is left out before one that is there is empty, and
/// one at the end matches everything.
fn path_and_more(tokens: &[Token]) -> (Option<Part>, Part, Part) {
    let (rest, hash) = match find(tokens, &['#']) {
        Some(at) => (&tokens[..at], Some(Part::of(&tokens[at + 1..]))),
        None => (tokens, None),
    };
    let (path, search) = match find(rest, &['?']) {
        Some(at) => (&rest[..at], Some(Part::of(&rest[at + 1..]))),
        None => (rest, None),
    };
    let search = search.unwrap_or_else(|| match &hash {
        Some(_) => Part::default(),
        None => Part::every(),
    });
    ((!path.is_empty()).then(|| Part::of(path)), search, hash.unwrap_or_else(Part::every))
}

/// A path that does not begin with a slash is below the directory of the base.
fn below(path: Part, base: &Url) -> Part {
    let is_slash = |token: Option<&Token>| token.is_some_and(|token| token.is(&['/']));
    let is_absolute =
        is_slash(path.0.first()) || path.0.first() == Some(&Token::Open) && is_slash(path.0.get(1));
    match base.path().rfind('/') {
        Some(end) if !is_absolute => {
            let mut below = Part::literal(&base.path()[..=end]);
            below.0.extend(path.0);
            below
        }
        _ => path,
    }
}

/// How a part of a URL is read and encoded.
#[derive(Clone, Copy)]
struct Rules {
    /// What a name does not match, and what a modifier takes with it.
    delimiter: Option<char>,
    prefix: Option<char>,
    encode: fn(&str) -> Option<String>,
}

const PROTOCOL: Rules = Rules { delimiter: None, prefix: None, encode: protocol };
const HOSTNAME: Rules = Rules { delimiter: Some('.'), prefix: None, encode: hostname };
const PORT: Rules = Rules { delimiter: None, prefix: None, encode: port };
const PATHNAME: Rules = Rules { delimiter: Some('/'), prefix: Some('/'), encode: pathname };
const OPAQUE_PATH: Rules = Rules { delimiter: None, prefix: None, encode: opaque_path };
const SEARCH: Rules = Rules { delimiter: None, prefix: None, encode: search };
const HASH: Rules = Rules { delimiter: None, prefix: None, encode: hash };

fn protocol(text: &str) -> Option<String> {
    let is_valid = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_valid.then(|| text.to_ascii_lowercase())
}

/// This build of the `url` crate knows no IDNA: an international host is in Punycode.
fn hostname(text: &str) -> Option<String> {
    let is_forbidden = |c: char| c.is_whitespace() || c.is_control() || "#/<>?@\\^|%".contains(c);
    (text.is_ascii() && !text.contains(is_forbidden)).then(|| text.to_ascii_lowercase())
}

fn port(text: &str) -> Option<String> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.to_owned())
}

/// A URL whose setters encode the parts.
fn dummy() -> Option<Url> {
    Url::parse("https://example.com/").ok()
}

/// The two characters keep a text from being the beginning of a path.
fn pathname(text: &str) -> Option<String> {
    let mut url = dummy()?;
    match text.strip_prefix('/') {
        Some(_) => url.set_path(text),
        None => url.set_path(&format!("/-{text}")),
    }
    let skipped = if text.starts_with('/') { 0 } else { "/-".len() };
    url.path().get(skipped..).map(str::to_owned)
}

fn opaque_path(text: &str) -> Option<String> {
    Some(Url::parse(&format!("data:{text}")).ok()?.path().to_owned())
}

fn search(text: &str) -> Option<String> {
    let mut url = dummy()?;
    url.set_query(Some(text));
    url.query().map(str::to_owned)
}

fn hash(text: &str) -> Option<String> {
    let mut url = dummy()?;
    url.set_fragment(Some(text));
    url.fragment().map(str::to_owned)
}

/// The program of one part of a URL.
fn compile(tokens: &[Token], rules: Rules) -> Result<Program, String> {
    let mut compiler = Compiler { rules, program: Program::default(), text: String::new() };
    let mut rest = tokens;
    while let Some((token, after)) = rest.split_first() {
        rest = match token {
            Token::Char(c) | Token::Escaped(c) => {
                let is_prefix = matches!(token, Token::Char(c) if rules.prefix == Some(*c));
                match after.first() {
                    Some(Token::Name(_) | Token::Asterisk) if is_prefix => {
                        compiler.group(&c.to_string(), after.first(), "", &after[1..])?
                    }
                    _ => {
                        compiler.text.push(*c);
                        after
                    }
                }
            }
            Token::Name(_) | Token::Asterisk => compiler.group("", Some(token), "", after)?,
            Token::Open => compiler.braces(after)?,
            Token::Close | Token::Optional | Token::Plus => return Err(stray(token)),
        };
    }
    compiler.end()
}

fn stray(token: &Token) -> String {
    let character = match token {
        Token::Close => '}',
        Token::Optional => '?',
        _ => '+',
    };
    format!("a URL pattern has \\{character} for a {character} that modifies nothing")
}

struct Compiler {
    rules: Rules,
    program: Program,
    /// Text that is not in the program yet.
    text: String,
}

impl Compiler {
    /// After an opening brace: text, at most one name or wildcard, text.
    fn braces<'a>(&mut self, tokens: &'a [Token]) -> Result<&'a [Token], String> {
        let (prefix, rest) = text_of(tokens);
        let (what, rest) = match rest.split_first() {
            Some((token @ (Token::Name(_) | Token::Asterisk), rest)) => (Some(token), rest),
            _ => (None, rest),
        };
        let (suffix, rest) = text_of(rest);
        match rest.split_first() {
            Some((Token::Close, rest)) => self.group(&prefix, what, &suffix, rest),
            _ => Err("a group of a URL pattern has text and at most one name or *".into()),
        }
    }

    /// Adds a group with the modifier that begins `rest`.
    fn group<'a>(
        &mut self,
        prefix: &str,
        what: Option<&Token>,
        suffix: &str,
        rest: &'a [Token],
    ) -> Result<&'a [Token], String> {
        let (modifier, rest) = match rest.split_first() {
            Some((token @ (Token::Optional | Token::Plus | Token::Asterisk), rest)) => {
                (Some(token), rest)
            }
            _ => (None, rest),
        };
        if what.is_none() && modifier.is_none() {
            self.text.push_str(prefix);
            return Ok(rest);
        }
        self.flush()?;
        let (prefix, suffix) = (self.encode(prefix)?, self.encode(suffix)?);
        let delimiter = self.rules.delimiter;
        let body = |program: &mut Program| {
            program.text(&prefix);
            add(program, what, delimiter);
            program.text(&suffix);
        };
        match modifier {
            None => body(&mut self.program),
            Some(Token::Optional) => self.program.optional(body),
            Some(Token::Plus) => self.program.repeated(body),
            Some(_) => self.program.optional(|program| program.repeated(body)),
        }
        Ok(rest)
    }

    fn encode(&self, text: &str) -> Result<String, String> {
        match text.is_empty() {
            true => Ok(String::new()),
            false => (self.rules.encode)(text)
                .ok_or_else(|| format!("no URL has {text} where the pattern has it")),
        }
    }

    fn flush(&mut self) -> Result<(), String> {
        let text = self.encode(&self.text)?;
        self.program.text(&text);
        self.text.clear();
        Ok(())
    }

    fn end(mut self) -> Result<Program, String> {
        self.flush()?;
        Ok(self.program)
    }
}

/// The text at the beginning, and what follows.
fn text_of(tokens: &[Token]) -> (String, &[Token]) {
    let is_special = |token: &Token| token.character().is_none();
    let end = tokens.iter().position(is_special).unwrap_or(tokens.len());
    (tokens[..end].iter().filter_map(Token::character).collect(), &tokens[end..])
}

/// A name matches at least one character that is not the delimiter, a wildcard anything.
fn add(program: &mut Program, what: Option<&Token>, delimiter: Option<char>) {
    match (what, delimiter) {
        (Some(Token::Name(_)), Some('/')) => program.repeated(|it| it.one(NO_SLASH)),
        (Some(Token::Name(_)), Some(_)) => program.repeated(|it| it.one(NO_DOT)),
        (Some(Token::Name(_)), None) => program.repeated(|it| it.one(Set::ALL)),
        (Some(_), _) => program.optional(|it| it.repeated(|it| it.one(Set::ALL))),
        (None, _) => {}
    }
}

const NO_SLASH: Set = Set::ALL.without(Set::of("/"));
const NO_DOT: Set = Set::ALL.without(Set::of("."));

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Result<UrlPattern, String> {
        UrlPattern::compile(text, Url::parse("https://hub.example/dir/mercure?a=b").unwrap())
    }

    /// What a browser's `new URLPattern(pattern, base).test(topic, base)` says.
    #[test]
    fn topic_matches_as_in_a_browser() {
        for (text, topic, matches) in [
            ("https://example.com/books/:id", "https://example.com/books/1", true),
            ("https://example.com/books/:id", "https://EXAMPLE.com:443/books/1", true),
            ("https://example.com/books/:id", "https://example.com/books/1?x#y", true),
            ("https://example.com/books/:id", "https://example.com/books/", false),
            ("https://example.com/books/:id", "https://example.com/books/1/2", false),
            ("https://example.com/books/:id", "http://example.com/books/1", false),
            ("https://example.com/books/:id", "https://example.com:8080/books/1", false),
            ("https://example.com/books/:id?", "https://example.com/books", true),
            ("https://example.com/books/:id+", "https://example.com/books/1/2", true),
            ("https://example.com/books/:id*", "https://example.com/books", true),
            ("https://example.com/books/*", "https://example.com/books/1/2", true),
            ("https://example.com/books/*", "https://example.com/books", false),
            ("https://example.com/books{/old}?/:id", "https://example.com/books/old/1", true),
            ("https://example.com/books{/old}?/:id", "https://example.com/books/1", true),
            ("https://example.com", "https://example.com/any?x#y", true),
            ("https://example.com/", "https://example.com/any", false),
            ("https://example.com?q=*", "https://example.com/?q=1", true),
            ("https://example.com?q=*", "https://example.com/x?q=1", false),
            ("https://example.com#x", "https://example.com/?y#x", false),
            ("https://example.com/a#x", "https://example.com/a#x", true),
            ("https://example.com:8*/", "https://example.com:8080/", true),
            ("https://example.com:443/", "https://example.com/", true),
            ("https://:sub.example.com/", "https://a.example.com/", true),
            ("https://:sub.example.com/", "https://a.b.example.com/", false),
            ("https://*.example.com/", "https://a.b.example.com/", true),
            ("http{s}?://example.com/", "http://example.com/", true),
            ("*://example.com/a/:b", "wss://example.com/a/b", true),
            ("https://example.com/ä", "https://example.com/%C3%A4", true),
            ("https://example.com/%C3%A4", "https://example.com/ä", true),
            ("/books/:id", "https://hub.example/books/1", true),
            ("/books/:id", "/books/1", true),
            ("/books/:id", "https://example.com/books/1", false),
            ("books/:id", "books/1", true),
            ("books/:id", "/dir/books/1", true),
            ("books/:id", "/books/1", false),
            ("?a=*", "/dir/mercure?a=1", true),
            ("#x", "/dir/mercure?a=b#x", true),
            ("#x", "/dir/mercure#x", false),
            (r"urn\:uuid\::id", "urn:uuid:1-2", true),
            (r"urn\:uuid\::id", "urn:isbn:1", false),
            (r"/x\?q=:a", "/x?q=1", true),
            ("/x", "https://[", false),
        ] {
            let compiled = pattern(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(compiled.matches(topic), matches, "{text} {topic}");
        }
    }

    #[test]
    fn invalid_pattern_is_refused() {
        for text in [
            "/(a|b)",
            r"/:id(\d+)",
            "/{",
            "/{a",
            "/}",
            "/{:a:b}",
            "/a{b{c}}",
            "/a+",
            "/:a/:a",
            r"/a\",
            "https:/x",
            "https://bücher.example/",
            "https://u@example.com/",
            "https://exa mple.com/",
            "/a:/b",
            "https://example.com:8a/",
        ] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }
}

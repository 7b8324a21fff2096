//! A program that reads a text once: the automaton of a pattern, run as Thompson did (1968).
//! It keeps all places in the pattern that the text so far can be at, so nothing is tried
//! twice. The work is at most the steps of the program for each byte of the text.

/// The most steps of a pattern. The longest topic has 1,024 bytes, and a literal takes a
/// step for each.
pub const MAX_STEPS: usize = 2048;

/// The most forks of a pattern: a name has one, a wildcard two, a variable of a template
/// six. With so many, a hostile pattern takes some milliseconds for the longest topic.
pub const MAX_FORKS: usize = 128;

/// Some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Set([u128; 2]);

impl Set {
    /// Every byte.
    pub const ALL: Self = Self([u128::MAX; 2]);

    /// These ASCII characters.
    pub const fn of(characters: &str) -> Self {
        let (bytes, mut bits, mut at) = (characters.as_bytes(), 0, 0);
        while at < bytes.len() {
            bits |= 1 << bytes[at];
            at += 1;
        }
        Self([bits, 0])
    }

    /// The bytes of both.
    pub const fn and(self, other: Self) -> Self {
        Self([self.0[0] | other.0[0], self.0[1] | other.0[1]])
    }

    /// Every byte but these.
    pub const fn without(self, other: Self) -> Self {
        Self([self.0[0] & !other.0[0], self.0[1] & !other.0[1]])
    }

    /// Whether `byte` is one of them.
    pub fn has(self, byte: u8) -> bool {
        self.0[usize::from(byte >> 7)] >> (byte & 127) & 1 == 1
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Step {
    /// Reads this byte.
    Byte(u8),
    /// Reads a byte of the set.
    One(Set),
    /// Goes on here and there.
    Fork(usize),
}

/// The steps of a program. After the last one, the text has to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program(Vec<Step>);

impl Program {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn forks(&self) -> usize {
        self.0.iter().filter(|step| matches!(step, Step::Fork(_))).count()
    }

    /// Whether these together keep to [`MAX_STEPS`] and [`MAX_FORKS`].
    pub fn are_bounded(all: &[&Self]) -> bool {
        all.iter().map(|one| one.len()).sum::<usize>() <= MAX_STEPS
            && all.iter().map(|one| one.forks()).sum::<usize>() <= MAX_FORKS
    }

    /// Reads this text.
    pub fn text(&mut self, text: &str) {
        self.0.extend(text.bytes().map(Step::Byte));
    }

    /// Reads one byte of the set.
    pub fn one(&mut self, set: Set) {
        self.0.push(Step::One(set));
    }

    /// Reads `part`, or nothing.
    pub fn optional(&mut self, part: impl FnOnce(&mut Self)) {
        let fork = self.len();
        self.0.push(Step::Fork(0));
        part(self);
        self.0[fork] = Step::Fork(self.len());
    }

    /// Reads `part` once or more.
    pub fn repeated(&mut self, part: impl FnOnce(&mut Self)) {
        let start = self.len();
        part(self);
        self.0.push(Step::Fork(start));
    }

    /// Whether this is the whole text.
    pub fn matches(&self, text: &str) -> bool {
        self.run(text.as_bytes()).0
    }

    /// The same, and how many places were looked at.
    fn run(&self, text: &[u8]) -> (bool, usize) {
        let mut places = Places::new(self.len());
        places.add(&self.0, 0);
        for &byte in text {
            let here = places.next_round();
            for &at in &here {
                let is_read = match self.0.get(at) {
                    Some(Step::Byte(wanted)) => *wanted == byte,
                    Some(Step::One(set)) => set.has(byte),
                    _ => false,
                };
                if is_read {
                    places.add(&self.0, at + 1);
                }
            }
            if places.now.is_empty() {
                break;
            }
            places.spare = here;
        }
        (places.now.contains(&self.len()), places.work)
    }
}

/// The places in a program that a text can be at.
struct Places {
    now: Vec<usize>,
    /// The round in which a place was last added.
    added: Vec<usize>,
    round: usize,
    pending: Vec<usize>,
    /// An empty list with its memory.
    spare: Vec<usize>,
    work: usize,
}

impl Places {
    fn new(steps: usize) -> Self {
        let (now, pending, spare) = (Vec::new(), Vec::new(), Vec::new());
        Self { now, added: vec![0; steps + 1], round: 1, pending, spare, work: 0 }
    }

    /// Begins a round without places, and returns those of the last one.
    fn next_round(&mut self) -> Vec<usize> {
        self.round += 1;
        self.spare.clear();
        std::mem::replace(&mut self.now, std::mem::take(&mut self.spare))
    }

    /// Adds a place, and those that it forks to.
    fn add(&mut self, steps: &[Step], place: usize) {
        self.pending.push(place);
        while let Some(at) = self.pending.pop() {
            self.work += 1;
            if std::mem::replace(&mut self.added[at], self.round) == self.round {
                continue;
            }
            match steps.get(at) {
                Some(Step::Fork(there)) => self.pending.extend([*there, at + 1]),
                _ => self.now.push(at),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each place is added at most three times in a round: from the place before, and by
    /// two forks.
    #[test]
    fn work_is_bounded_by_steps_and_text() {
        let nested = |it: &mut Program| it.repeated(|it| it.optional(|it| it.text("a")));
        let mut hostile = Program::default();
        while hostile.forks() + 5 <= MAX_FORKS {
            hostile.optional(|it| it.repeated(nested));
            hostile.text(&"a".repeat(60));
            hostile.optional(|it| it.one(Set::ALL));
        }
        assert!(Program::are_bounded(&[&hostile]) && hostile.len() > MAX_STEPS / 2);
        for text in ["a".repeat(4096), "a".repeat(4095) + "b", "b".repeat(4096)] {
            let (_, work) = hostile.run(text.as_bytes());
            assert!(work <= 3 * (hostile.len() + 1) * (text.len() + 1), "{work}");
        }
        assert!(!Program::are_bounded(&[&hostile, &hostile]));
    }

    #[test]
    fn repeated_nothing_ends() {
        let mut program = Program::default();
        program.repeated(|it| it.optional(|it| it.text("ab")));
        assert!(program.matches("") && program.matches("abab") && !program.matches("aba"));
    }

    #[test]
    fn set_has_its_bytes() {
        let set = Set::of("a/~").and(Set::ALL.without(Set::of("a/~b")));
        assert!(set.has(b'a') && set.has(0xFF) && set.has(0) && !set.has(b'b'));
    }
}

//! A program that reads a text once: the automaton of a pattern, run as Thompson did (1968).
//! It keeps all places in the pattern that the text so far can be at, so nothing is tried
//! twice. The work is at most the steps of the program for each byte of the text. What a byte
//! leads to is remembered, so for the next text it is mostly one step.

use super::memory::Memory;
use super::steps::{Set, Step};

/// The most steps of a pattern. The longest topic has 1,024 bytes, and a literal takes a
/// step for each.
pub const MAX_STEPS: usize = 2048;

/// The most forks of a pattern: a name has one, a wildcard two, a variable of a template
/// six. With so many, a hostile pattern takes some milliseconds for the longest topic.
pub const MAX_FORKS: usize = 128;

/// The steps of a program. After the last one, the text has to end.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Program(Vec<Step>, Memory);

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
        self.1.of(&self.0).matches(&self.0, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::super::steps::{Places, run};
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
            let mut places = Places::start(&hostile.0);
            let matches = run(&hostile.0, &mut places, text.as_bytes());
            let work = places.work;
            assert!(work <= 3 * (hostile.len() + 1) * (text.len() + 1), "{work}");
            assert_eq!(hostile.matches(&text), matches);
            assert_eq!(hostile.matches(&text), matches, "from memory");
        }
        assert!(!Program::are_bounded(&[&hostile, &hostile]));
    }

    #[test]
    fn repeated_nothing_ends() {
        let mut program = Program::default();
        program.repeated(|it| it.optional(|it| it.text("ab")));
        assert!(program.matches("") && program.matches("abab") && !program.matches("aba"));
    }
}

//! The steps of a program, and the places in it that a text can be at. The program is run as
//! Thompson did (1968): nothing is tried twice.

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
pub enum Step {
    /// Reads this byte.
    Byte(u8),
    /// Reads a byte of the set.
    One(Set),
    /// Goes on here and there.
    Fork(usize),
}

impl Step {
    pub fn reads(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => *wanted == byte,
            Self::One(set) => set.has(byte),
            Self::Fork(_) => false,
        }
    }
}

/// Whether `text` leads from `places` to the end.
pub fn run(steps: &[Step], places: &mut Places, text: &[u8]) -> bool {
    for &byte in text {
        places.read(steps, byte);
        if places.now.is_empty() {
            break;
        }
    }
    places.now.contains(&steps.len())
}

/// The places in a program that a text can be at.
pub struct Places {
    pub now: Vec<usize>,
    /// The round in which a place was last added.
    added: Vec<usize>,
    round: usize,
    pending: Vec<usize>,
    /// An empty list with its memory.
    spare: Vec<usize>,
    /// How many places have been looked at.
    pub work: usize,
}

impl Places {
    fn new(steps: usize) -> Self {
        let (now, pending, spare) = (Vec::new(), Vec::new(), Vec::new());
        Self { now, added: vec![0; steps + 1], round: 1, pending, spare, work: 0 }
    }

    /// At these places, which are all that they fork to.
    pub fn at(steps: &[Step], now: &[usize]) -> Self {
        Self { now: now.to_vec(), ..Self::new(steps.len()) }
    }

    /// At the beginning of the program.
    pub fn start(steps: &[Step]) -> Self {
        let mut places = Self::new(steps.len());
        places.add(steps, 0);
        places
    }

    /// Goes on by one byte.
    pub fn read(&mut self, steps: &[Step], byte: u8) {
        let here = self.next_round();
        for &at in &here {
            if steps.get(at).is_some_and(|step| step.reads(byte)) {
                self.add(steps, at + 1);
            }
        }
        self.spare = here;
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

    #[test]
    fn set_has_its_bytes() {
        let set = Set::of("a/~").and(Set::ALL.without(Set::of("a/~b")));
        assert!(set.has(b'a') && set.has(0xFF) && set.has(0) && !set.has(b'b'));
    }
}

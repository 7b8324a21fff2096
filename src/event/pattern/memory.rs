//! What a program has learned from the texts before: an automaton with one state for all
//! places that a text can be at, made as far as it was needed.

use std::cell::{Cell, RefCell, RefMut};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use super::steps::{Places, Step, run};

/// The most states, and the most places in all of them: some 200 kB for a hostile pattern. A
/// text that leads to a further one is matched place by place.
const MAX_STATES: usize = 256;
const MAX_PLACES: usize = 16_384;

/// The most bytes of all automata of a process. Many subscribers wait in one.
const MAX_HELD: usize = 16 << 20;

thread_local! {
    /// The bytes of all automata.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// Of a state and a class of bytes that no text had so far.
const UNKNOWN: u16 = u16::MAX;

/// The automaton of a program, once it has read a text. It is no part of what the program
/// is: a copy begins without it.
#[derive(Default)]
pub struct Memory(RefCell<Option<Box<Automaton>>>);

impl Memory {
    /// That of a program with these steps.
    pub fn of(&self, steps: &[Step]) -> RefMut<'_, Automaton> {
        RefMut::map(self.0.borrow_mut(), |known| {
            &mut **known.get_or_insert_with(|| Box::new(Automaton::new(steps)))
        })
    }
}

impl Clone for Memory {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Memory")
    }
}

impl PartialEq for Memory {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memory {}

impl PartialOrd for Memory {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Memory {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

impl Hash for Memory {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

/// The states that texts have led to.
pub struct Automaton {
    /// The class of each byte. The program does not tell the bytes of a class apart.
    class: [u8; 256],
    classes: usize,
    /// The places of each state, in order. The first state is the beginning.
    states: Vec<Rc<[usize]>>,
    is_end: Vec<bool>,
    number: BTreeMap<Rc<[usize]>, u16>,
    /// How many places all states have.
    held: usize,
    /// The bytes of all states.
    bytes: usize,
    /// The state after each state and class.
    next: Vec<u16>,
}

impl Automaton {
    fn new(steps: &[Step]) -> Self {
        let (class, classes) = classes(steps);
        let (states, is_end, number) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut new =
            Self { class, classes, states, is_end, number, held: 0, bytes: 0, next: Vec::new() };
        new.state(Places::start(steps).now, steps);
        new
    }

    /// The number of the state with these places; `None` if there are too many.
    fn state(&mut self, mut places: Vec<usize>, steps: &[Step]) -> Option<u16> {
        places.sort_unstable();
        if let Some(known) = self.number.get(places.as_slice()) {
            return Some(*known);
        }
        let new = u16::try_from(self.states.len()).ok()?;
        let held = self.held + places.len();
        let bytes = self.classes * size_of::<u16>() + places.len() * size_of::<usize>();
        if self.states.len() >= MAX_STATES || held > MAX_PLACES || !self.take(bytes) {
            return None;
        }
        self.held = held;
        let places = Rc::from(places);
        self.number.insert(Rc::clone(&places), new);
        self.is_end.push(places.contains(&steps.len()));
        self.states.push(places);
        self.next.resize(self.states.len() * self.classes, UNKNOWN);
        Some(new)
    }

    /// Takes so many bytes of those that a process has. The first state is always there.
    fn take(&mut self, bytes: usize) -> bool {
        let all = HELD.get() + bytes;
        let may = all <= MAX_HELD || self.states.is_empty();
        if may {
            HELD.set(all);
            self.bytes += bytes;
        }
        may
    }

    /// Whether this is the whole text.
    pub fn matches(&mut self, steps: &[Step], text: &[u8]) -> bool {
        let mut at = 0;
        for (read, &byte) in text.iter().enumerate() {
            let way = usize::from(at) * self.classes + usize::from(self.class[usize::from(byte)]);
            if self.next[way] == UNKNOWN {
                let mut places = Places::at(steps, &self.states[usize::from(at)]);
                places.read(steps, byte);
                match self.state(places.now.clone(), steps) {
                    Some(next) => self.next[way] = next,
                    None => return run(steps, &mut places, &text[read + 1..]),
                }
            }
            at = self.next[way];
            if self.states[usize::from(at)].is_empty() {
                return false;
            }
        }
        self.is_end[usize::from(at)]
    }
}

impl Drop for Automaton {
    fn drop(&mut self) {
        HELD.set(HELD.get() - self.bytes);
    }
}

/// The class of each byte, and how many there are.
fn classes(steps: &[Step]) -> ([u8; 256], usize) {
    let (mut class, mut count) = ([0; 256], 1);
    let told: BTreeSet<_> = steps.iter().filter(|step| !matches!(step, Step::Fork(_))).collect();
    for step in told {
        // Those of a class that this step reads are a class of their own.
        let mut parts = [None; 512];
        count = 0;
        for byte in 0..=u8::MAX {
            let of = &mut class[usize::from(byte)];
            let part = &mut parts[usize::from(*of) * 2 + usize::from(step.reads(byte))];
            *of = *part.get_or_insert_with(|| {
                count += 1;
                u8::try_from(count - 1).unwrap_or(u8::MAX)
            });
        }
    }
    (class, count)
}

#[cfg(test)]
mod tests {
    use super::super::steps::Set;
    use super::*;

    fn text(text: &str) -> impl Iterator<Item = Step> + use<'_> {
        text.bytes().map(Step::Byte)
    }

    /// One that may hold nothing more matches all the same, and what is dropped is free again.
    #[test]
    fn process_holds_so_many_bytes() {
        let steps: Vec<_> = text("abc").collect();
        let before = HELD.get();
        let mut automaton = Automaton::new(&steps);
        assert!(automaton.matches(&steps, b"abc") && HELD.get() > before);
        HELD.set(HELD.get() + MAX_HELD);
        let other = &mut Automaton::new(&steps);
        let first = HELD.get();
        assert!(other.matches(&steps, b"abc") && !other.matches(&steps, b"ab"));
        assert_eq!((other.states.len(), HELD.get()), (1, first));
        HELD.set(HELD.get() - MAX_HELD);
        drop(automaton);
        assert_eq!(HELD.get(), before + other.bytes);
    }

    #[test]
    fn bytes_that_are_read_alike_are_one_class() {
        let steps: Vec<_> = text("aa").chain([Step::One(Set::of("abc")), Step::Fork(2)]).collect();
        let (class, count) = classes(&steps);
        let of = |byte: u8| class[usize::from(byte)];
        assert_eq!(count, 3);
        assert!(of(b'b') == of(b'c') && of(b'a') != of(b'b'));
        assert!(of(0) == of(255) && of(0) != of(b'b') && of(0) != of(b'a'));
    }

    /// It agrees with the steps that it has learned from, also once it learns no more.
    #[test]
    fn memory_is_bounded_and_true() {
        let mut steps = Vec::new();
        for _ in 0..20 {
            let start = steps.len();
            steps.extend([Step::One(Set::ALL), Step::Fork(start)]);
            steps.extend(text(&"ab".repeat(40)));
        }
        let automaton = &mut Automaton::new(&steps);
        for number in 0..300 {
            let text = "ab".repeat(number * 7 % 900) + &"b".repeat(number % 5);
            let expected = run(&steps, &mut Places::start(&steps), text.as_bytes());
            assert_eq!(automaton.matches(&steps, text.as_bytes()), expected, "{number}");
            assert!(automaton.states.len() <= MAX_STATES && automaton.held <= MAX_PLACES);
        }
        assert!(automaton.states.len() == MAX_STATES || automaton.held > MAX_PLACES / 2);
    }
}

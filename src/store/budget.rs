//! How much one answer may hold, however many topics it is about.

use crate::event::{Message, Topic};

/// What a message takes in an answer, in bytes as they are sent: never less than
/// its text has.
pub type Size<'a> = &'a dyn Fn(&Topic, &Message) -> usize;

/// The bytes that are left of an answer. The first message always fits: an
/// answer that could not hold it would never bring it.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    left: usize,
    size: Size<'a>,
    is_untouched: bool,
    is_spent: bool,
}

impl<'a> Budget<'a> {
    /// For an answer of about so many bytes.
    #[must_use]
    pub fn new(bytes: usize, size: Size<'a>) -> Self {
        Self { left: bytes, size, is_untouched: true, is_spent: false }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left
    }

    /// Whether no message has been taken yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.is_untouched
    }

    /// Whether the answer takes nothing more. A small message does not get past
    /// a large one for which there was no room: that one would wait for ever.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Ends the answer: the store has worked for it long enough.
    pub fn spend(&mut self) {
        self.is_spent = true;
    }

    /// Takes a message, if there is room for it.
    pub fn take(&mut self, topic: &Topic, message: &Message) -> bool {
        let size = (self.size)(topic, message);
        let fits = !self.is_spent && (self.is_untouched || size <= self.left);
        self.is_spent = !fits;
        if fits {
            self.left = self.left.saturating_sub(size);
            self.is_untouched = false;
        }
        fits
    }

    /// Takes the messages for which there is room, and drops the others;
    /// whether there were any.
    pub fn cut(&mut self, topic: &Topic, messages: &mut Vec<Message>) -> bool {
        let fit = messages.iter().take_while(|message| self.take(topic, message)).count();
        let more = fit < messages.len();
        messages.truncate(fit);
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Cursor;

    fn cut(budget: &mut Budget, sizes: &[usize]) -> (Vec<usize>, bool) {
        let message = |&size: &usize| Message::new(Cursor::SMALLEST, "x".repeat(size));
        let mut messages: Vec<_> = sizes.iter().map(message).collect();
        let more = budget.cut(&Topic::new("a").unwrap(), &mut messages);
        (messages.iter().map(|message| message.data.len()).collect(), more)
    }

    #[test]
    fn topics_share_one_budget() {
        let mut budget = Budget::new(10, &|_, message| message.data.len());
        assert_eq!(cut(&mut budget, &[4, 4]), (vec![4, 4], false));
        assert_eq!(cut(&mut budget, &[3]), (vec![], true));
        assert_eq!(cut(&mut budget, &[1]), (vec![], true), "a small one got past");
        assert_eq!(cut(&mut budget, &[]), (vec![], false));
    }

    #[test]
    fn the_first_message_always_fits() {
        let mut budget = Budget::new(0, &|_, message| message.data.len());
        assert_eq!(cut(&mut budget, &[9, 1]), (vec![9], true));
        assert!(budget.is_spent());
    }
}

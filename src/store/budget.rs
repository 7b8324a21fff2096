//! The limit for the size of one answer, for all its topics together.

use crate::event::{Message, Topic};

/// The bytes of a message in an answer, as they are sent: at least those of its text.
pub type Size<'a> = &'a dyn Fn(&Topic, &Message) -> usize;

/// The bytes that are left of an answer. The first message always fits, because no
/// later answer could hold it either.
#[derive(Clone, Copy)]
pub struct Budget<'a> {
    left: usize,
    size: Size<'a>,
    is_untouched: bool,
    is_spent: bool,
}

impl<'a> Budget<'a> {
    /// A budget for an answer of about `bytes`.
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

    /// Whether the answer takes no more messages. After a large message did not fit, a
    /// small one must not pass it, because the large one might never be sent.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.is_spent
    }

    /// Ends the answer, because the store has done enough work for it.
    pub fn spend(&mut self) {
        self.is_spent = true;
    }

    /// Takes a message if it fits.
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

    /// Takes the messages that fit and drops the others. Returns whether it dropped
    /// any.
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
        assert_eq!(cut(&mut budget, &[1]), (vec![], true), "a small message passed");
        assert_eq!(cut(&mut budget, &[]), (vec![], false));
    }

    #[test]
    fn first_message_always_fits() {
        let mut budget = Budget::new(0, &|_, message| message.data.len());
        assert_eq!(cut(&mut budget, &[9, 1]), (vec![9], true));
        assert!(budget.is_spent());
    }
}

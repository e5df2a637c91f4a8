//! What a peer was sent because it has asked for it, and has not read yet. Bounding that is left to
//! `channel`; what a user sends of its own accord is as much as the user likes.

use std::collections::VecDeque;

#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// Number of the message and its bytes, in order.
    unwritten: VecDeque<(u64, usize)>,
    bytes: usize,
}

impl Answers {
    /// Message `sequence` of `bytes` is an answer, and queued.
    pub fn add(&mut self, sequence: u64, bytes: usize) {
        self.unwritten.push_back((sequence, bytes));
        self.bytes += bytes;
    }

    /// Bytes of those that wait, now that all messages up to `completed` have been written.
    pub fn waiting(&mut self, completed: u64) -> usize {
        while let Some(&(number, bytes)) = self.unwritten.front()
            && number <= completed
        {
            self.unwritten.pop_front();
            self.bytes -= bytes;
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_wait_until_they_are_written() {
        let mut answers = Answers::default();
        assert_eq!(answers.waiting(9), 0);
        answers.add(10, 100);
        answers.add(12, 1);
        assert_eq!(answers.waiting(9), 101);
        assert_eq!(answers.waiting(11), 1);
        assert_eq!(answers.waiting(12), 0);
    }
}

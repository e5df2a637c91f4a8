//! A growable byte buffer that is consumed from the front. Its memory is always initialised, so
//! that room can be handed out as a plain slice without `unsafe` and without clearing it anew for
//! every message.

/// Memory first allocated.
const FIRST: usize = 4 * 1024;
/// Memory an empty buffer keeps.
const KEEP: usize = 256 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Buffer {
    memory: Vec<u8>,
    head: usize,
    tail: usize,
}

impl Buffer {
    pub fn len(&self) -> usize {
        self.tail - self.head
    }

    pub fn is_empty(&self) -> bool {
        self.head == self.tail
    }

    pub fn filled(&self) -> &[u8] {
        &self.memory[self.head..self.tail]
    }

    /// The filled part, to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.head..self.tail]
    }

    /// `n` bytes of room behind the filled part.
    pub fn room(&mut self, n: usize) -> &mut [u8] {
        if self.memory.len() - self.tail < n {
            self.make_room(n);
        }
        &mut self.memory[self.tail..self.tail + n]
    }

    /// The first `n` bytes of the room are filled now.
    pub fn fill(&mut self, n: usize) {
        assert!(
            n <= self.memory.len() - self.tail,
            "filled more than there was room for"
        );
        self.tail += n;
    }

    pub fn append(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Drops `n` bytes from the front.
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "consumed more than was filled");
        self.head += n;
        if self.head < self.tail {
            return;
        }
        self.head = 0;
        self.tail = 0;
        if self.memory.len() > KEEP {
            self.memory = Vec::new();
        }
    }

    #[cold]
    fn make_room(&mut self, n: usize) {
        // Moving costs what was consumed at least, so every byte is moved once on average.
        if self.head >= self.len() {
            self.memory.copy_within(self.head..self.tail, 0);
            self.tail -= self.head;
            self.head = 0;
        }
        let needed = self.tail + n;
        if needed > self.memory.len() {
            self.memory
                .resize(needed.max(self.memory.len() * 2).max(FIRST), 0);
        }
    }

    #[cfg(test)]
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(steps in prop::collection::vec(
            (any::<u8>(), 0usize..9000, 0usize..9000), 0..20)
        ) {
            let (mut buffer, mut model) = (Buffer::default(), Vec::new());
            for (byte, appended, consumed) in steps {
                let bytes = vec![byte; appended];
                buffer.append(&bytes);
                model.extend_from_slice(&bytes);
                prop_assert_eq!(buffer.filled(), &model[..]);
                let consumed = consumed.min(model.len());
                buffer.consume(consumed);
                model.drain(..consumed);
                prop_assert_eq!(buffer.filled(), &model[..]);
                prop_assert_eq!(buffer.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn room_that_is_not_filled_changes_nothing() {
        let mut buffer = Buffer::default();
        buffer.append(b"ab");
        buffer.room(100).fill(b'x');
        assert_eq!(buffer.filled(), b"ab");
        buffer.room(100)[0] = b'c';
        buffer.fill(1);
        assert_eq!(buffer.filled(), b"abc");
    }

    #[test]
    fn a_steady_flow_reuses_its_memory() {
        let mut buffer = Buffer::default();
        buffer.append(&[0; 100]);
        for _ in 0..10_000 {
            buffer.append(&[0; 1000]);
            buffer.consume(1000);
        }
        assert!(buffer.capacity() <= 2 * FIRST);
    }

    #[test]
    fn the_memory_of_a_large_content_is_given_back_once_it_is_consumed() {
        let mut buffer = Buffer::default();
        buffer.append(&vec![0; 8 << 20]);
        buffer.consume(8 << 20);
        assert_eq!(buffer.capacity(), 0);
        buffer.append(&[1; KEEP]);
        buffer.consume(KEEP);
        assert_eq!(buffer.capacity(), KEEP);
    }
}

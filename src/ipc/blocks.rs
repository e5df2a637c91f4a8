//! Private blocks for what has come in a peer's area: copied once, looked at by JavaScript, and
//! used again when that has let go. One pool for the process, of which a bounded part lies idle.

use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::sys::area::View;
use crate::sys::block::Block;

/// Bytes that may lie idle: some large messages' worth, for garbage is collected in bursts.
const MOST_IDLE: usize = 64 << 20;
/// A block may be so many times as large as what it is used for.
const MOST_WASTE: usize = 2;
/// No size is told from the next below this.
const GRANULE: usize = 64 * 1024;

/// The size to allocate for `len` bytes: up to a quarter more, so that the next message, which is
/// about as long, fits, too.
pub(crate) fn size_class(len: usize) -> usize {
    let power = len.checked_next_power_of_two().unwrap_or(1 << 63);
    len.next_multiple_of((power / 8).max(GRANULE))
}

/// Idle blocks, the one that has been idle for longest first.
#[derive(Debug)]
struct Pool {
    idle: Vec<(Block, Instant)>,
    bytes: usize,
    /// Blocks in use, which will lie idle some day.
    used: usize,
}

impl Pool {
    const fn new() -> Pool {
        Pool {
            idle: Vec::new(),
            bytes: 0,
            used: 0,
        }
    }

    /// The smallest that is large enough; of several the last used, whose bytes may still be in a
    /// cache.
    fn take(&mut self, size: usize) -> Option<Block> {
        let fits = |block: &Block| (size..=MOST_WASTE * size).contains(&block.size());
        let best = self
            .idle
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, (block, _))| fits(block))
            .min_by_key(|(_, (block, _))| block.size())
            .map(|(index, _)| index)?;
        let (block, _) = self.idle.remove(best);
        self.bytes -= block.size();
        Some(block)
    }

    fn put(&mut self, block: Block, now: Instant) {
        if block.size() > MOST_IDLE {
            return;
        }
        while self.bytes + block.size() > MOST_IDLE {
            self.drop_oldest();
        }
        self.bytes += block.size();
        self.idle.push((block, now));
    }

    /// Gives back what has been idle since before `limit`.
    fn trim(&mut self, limit: Instant) {
        while self.idle.first().is_some_and(|(_, since)| *since <= limit) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let (block, _) = self.idle.remove(0);
        self.bytes -= block.size();
    }
}

fn pool() -> MutexGuard<'static, Pool> {
    static POOL: Mutex<Pool> = Mutex::new(Pool::new());
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives idle blocks back to the system that nobody has used for `age`. Returns whether some are
/// left, or will be when whoever uses them lets go.
pub fn trim(age: Duration) -> bool {
    let mut pool = pool();
    if let Some(limit) = Instant::now().checked_sub(age) {
        pool.trim(limit);
    }
    pool.used > 0 || !pool.idle.is_empty()
}

/// A copy of a peer's bytes. Dropping it puts its memory into the pool.
#[derive(Debug)]
pub struct Copied {
    block: Option<Block>,
    len: usize,
}

impl Copied {
    /// Copies the first `len` bytes of a view, which has as many.
    ///
    /// # Errors
    /// `EINVAL` for no bytes, `ENOMEM`.
    pub fn of(view: &View, len: usize) -> Result<Copied, Errno> {
        #[cfg(test)]
        shortage::strike()?;
        let size = size_class(len);
        let idle = pool().take(size);
        let mut block = match idle {
            Some(block) => block,
            None => Block::new(size)?,
        };
        view.copy_to(&mut block, len);
        pool().used += 1;
        let block = Some(block);
        Ok(Copied { block, len })
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.block
            .as_ref()
            .map_or(NonNull::dangling(), Block::start)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.block
            .as_ref()
            .map_or(&[], |block| block.bytes(self.len))
    }

    /// How many bytes.
    pub fn size(&self) -> usize {
        self.len
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            let mut pool = pool();
            pool.used -= 1;
            pool.put(block, Instant::now());
        }
    }
}

/// Lets a test's thread run out of memory.
#[cfg(test)]
pub(crate) mod shortage {
    use std::cell::Cell;

    use nix::errno::Errno;

    thread_local! {
        static LEFT: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    }

    /// There is memory for so many more copies, and then none for so many attempts.
    pub fn after(copies: u32, attempts: u32) {
        LEFT.set((copies, attempts));
    }

    pub(super) fn strike() -> Result<(), Errno> {
        match LEFT.get() {
            (0, 0) => Ok(()),
            (0, attempts) => {
                LEFT.set((0, attempts - 1));
                Err(Errno::ENOMEM)
            }
            (copies, attempts) => {
                LEFT.set((copies - 1, attempts));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::area::Area;

    const MEGABYTE: usize = 1 << 20;

    fn block(size: usize) -> Block {
        Block::new(size).unwrap()
    }

    proptest! {
        #[test]
        fn a_size_class_is_at_most_a_quarter_larger_and_the_class_of_itself(len in 1usize..1 << 32) {
            let class = size_class(len);
            prop_assert!(class >= len);
            prop_assert!(class <= (len + len / 4).max(GRANULE.max(len.next_multiple_of(GRANULE))));
            prop_assert_eq!(size_class(class), class);
        }
    }

    #[test]
    fn the_smallest_block_that_fits_is_used_and_none_that_is_far_too_large() {
        let (mut pool, now) = (Pool::new(), Instant::now());
        for megabytes in [8, 2, 3] {
            pool.put(block(megabytes * MEGABYTE), now);
        }
        assert!(pool.take(MEGABYTE / 2).is_none());
        assert_eq!(pool.take(2 * MEGABYTE).unwrap().size(), 2 * MEGABYTE);
        assert_eq!(pool.take(2 * MEGABYTE).unwrap().size(), 3 * MEGABYTE);
        assert!(pool.take(2 * MEGABYTE).is_none());
        assert_eq!(pool.bytes, 8 * MEGABYTE);
    }

    #[test]
    fn what_lies_idle_is_bounded_and_given_back_after_a_while() {
        let (mut pool, now) = (Pool::new(), Instant::now());
        for second in 0..20 {
            let then = now + Duration::from_secs(second);
            pool.put(block(8 * MEGABYTE), then);
            assert!(pool.bytes <= MOST_IDLE);
        }
        assert_eq!(pool.idle.len(), 8);
        pool.put(block(MOST_IDLE + 1), now);
        assert_eq!(pool.idle.len(), 8);
        pool.trim(now + Duration::from_secs(15));
        assert_eq!((pool.idle.len(), pool.bytes), (4, 32 * MEGABYTE));
        pool.trim(now + Duration::from_secs(19));
        assert_eq!((pool.idle.len(), pool.bytes), (0, 0));
    }

    #[test]
    fn blocks_in_use_are_to_be_looked_after_for_they_will_lie_idle() {
        let (area, file) = Area::create(300_000).unwrap();
        let view = View::open(&file, 300_000).unwrap();
        area.fill(b"hello");
        let copied = Copied::of(&view, 5).unwrap();
        assert!(trim(Duration::ZERO));
        drop(copied);
    }

    #[test]
    fn a_copy_has_exactly_what_was_there_and_shows_nothing_of_an_earlier_one() {
        let (area, file) = Area::create(300_000).unwrap();
        let view = View::open(&file, 300_000).unwrap();
        for (len, byte) in [(300_000, 1), (299_000, 2), (280_000, 3)] {
            area.fill(&vec![byte; len]);
            let copied = Copied::of(&view, len).unwrap();
            assert_eq!(copied.bytes(), vec![byte; len]);
            assert_eq!(
                copied.start().as_ptr().cast_const(),
                copied.bytes().as_ptr()
            );
        }
    }
}

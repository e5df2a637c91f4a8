//! Private memory in large pieces: anonymous mappings, with huge pages where there are any, because
//! for a buffer of some megabytes the page faults cost more than filling it. Who keeps one for the
//! next use is said above.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// The size of a huge page on nearly all machines; where it is another, nothing is lost but time.
const HUGE_PAGE: usize = 2 << 20;

/// Some memory of one's own. Its bytes are zero at first.
#[derive(Debug)]
pub struct Block {
    mapping: NonNull<c_void>,
    mapped: NonZeroUsize,
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: the memory belongs to the value and to no thread.
unsafe impl Send for Block {}

impl Block {
    /// Memory of `size` bytes.
    ///
    /// # Errors
    /// `EINVAL` for no bytes, `ENOMEM`.
    pub fn new(size: usize) -> Result<Block, Errno> {
        let wanted = NonZeroUsize::new(size).ok_or(Errno::EINVAL)?;
        // More addresses than are wanted, so that it can begin where a huge page does; what is not
        // used of them never becomes memory.
        let spare = if size < HUGE_PAGE { 0 } else { HUGE_PAGE };
        let mapped = wanted.checked_add(spare).ok_or(Errno::ENOMEM)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address the kernel chooses.
        let mapping = unsafe { mmap_anonymous(None, mapped, access, MapFlags::MAP_PRIVATE) }?;
        let mut start = mapping.cast::<u8>();
        if spare > 0 {
            let before = start.as_ptr().align_offset(HUGE_PAGE);
            // SAFETY: less than HUGE_PAGE bytes on, with `size` bytes behind it.
            start = unsafe { start.add(before) };
            // SAFETY: within our own mapping. Without huge pages it works, too.
            let _ = unsafe { madvise(start.cast(), size, MmapAdvise::MADV_HUGEPAGE) };
        }
        Ok(Block {
            mapping,
            mapped,
            start,
            size,
        })
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// How many bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// The first `len` bytes.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn bytes(&self, len: usize) -> &[u8] {
        assert!(len <= self.size);
        // SAFETY: mapped and readable until drop; whoever writes by pointer holds the value.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: our own mapping, unmapped once.
        let _ = unsafe { munmap(self.mapping, self.mapped.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_can_be_written_to_its_end_and_large_ones_begin_at_a_huge_page() {
        for size in [
            1,
            4096,
            300_000,
            HUGE_PAGE - 1,
            HUGE_PAGE,
            HUGE_PAGE + 1,
            10_000_001,
        ] {
            let block = Block::new(size).unwrap();
            assert_eq!(block.size(), size);
            assert!(block.bytes(size).iter().all(|&byte| byte == 0));
            // SAFETY: the last byte of memory that nobody else looks at.
            unsafe { block.start().as_ptr().add(size - 1).write(7) };
            assert_eq!(block.bytes(size)[size - 1], 7);
            if size >= HUGE_PAGE {
                assert_eq!(block.start().as_ptr().align_offset(HUGE_PAGE), 0);
            }
        }
        assert_eq!(Block::new(0).unwrap_err(), Errno::EINVAL);
        assert_eq!(Block::new(usize::MAX).unwrap_err(), Errno::ENOMEM);
        assert_eq!(Block::new(usize::MAX / 2).unwrap_err(), Errno::ENOMEM);
    }
}

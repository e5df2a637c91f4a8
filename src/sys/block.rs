//! Private memory in large pieces: anonymous mappings whose pages are there from the beginning,
//! because for a buffer of some megabytes a fault for each page costs more than filling it. Who keeps
//! one for the next use is said above.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// The size of a huge page on nearly all machines; where it is another, nothing is lost but time.
const HUGE_PAGE: usize = 2 << 20;
/// No page is smaller.
const PAGE: usize = 4096;
/// Ordinary pages for as many bytes as a huge one has take about as long.
const QUICK: Duration = Duration::from_millis(1);

/// Whether huge pages are quicker than others, as far as is known: a clear win where memory is just
/// there, but several times slower in a virtual machine whose host provides it only when it is
/// touched, for a huge page is mostly taken from what nobody has touched before.
static HUGE_PAGES_ARE_QUICK: AtomicBool = AtomicBool::new(true);

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
        if size >= HUGE_PAGE && HUGE_PAGES_ARE_QUICK.load(Ordering::Relaxed) {
            return Block::of_huge_pages(wanted);
        }
        let mapping = map(wanted, MapFlags::MAP_POPULATE)?;
        Ok(Block {
            mapping,
            mapped: wanted,
            start: mapping.cast(),
            size,
        })
    }

    fn of_huge_pages(wanted: NonZeroUsize) -> Result<Block, Errno> {
        // More addresses than are wanted, so that it can begin where a huge page does; what is not
        // used of them never becomes memory.
        let mapped = wanted.checked_add(HUGE_PAGE).ok_or(Errno::ENOMEM)?;
        let (mapping, size) = (map(mapped, MapFlags::empty())?, wanted.get());
        let before = mapping.cast::<u8>().as_ptr().align_offset(HUGE_PAGE);
        // SAFETY: less than HUGE_PAGE bytes on, with `size` bytes behind it.
        let start = unsafe { mapping.cast::<u8>().add(before) };
        let since = Instant::now();
        // SAFETY: within our own mapping. Where it is refused, the pages are ordinary ones.
        let _ = unsafe { madvise(start.cast(), size, MmapAdvise::MADV_HUGEPAGE) };
        for offset in (0..size).step_by(PAGE) {
            // SAFETY: within our own mapping, which nobody else uses yet.
            unsafe { start.add(offset).write_volatile(0) };
        }
        if since.elapsed() > QUICK * size.div_ceil(HUGE_PAGE) as u32 {
            HUGE_PAGES_ARE_QUICK.store(false, Ordering::Relaxed);
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
        assert!(len <= self.size());
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

fn map(len: NonZeroUsize, flags: MapFlags) -> Result<NonNull<c_void>, Errno> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address the kernel chooses.
    unsafe { mmap_anonymous(None, len, access, MapFlags::MAP_PRIVATE | flags) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_zero_and_can_be_written_to_its_end_with_huge_pages_and_without() {
        for size in [
            1,
            4096,
            300_000,
            HUGE_PAGE - 1,
            HUGE_PAGE,
            HUGE_PAGE + 1,
            10_000_001,
        ] {
            let wanted = NonZeroUsize::new(size).unwrap();
            for block in [Block::new(size), Block::of_huge_pages(wanted)] {
                let block = block.unwrap();
                assert_eq!(block.size(), size);
                assert!(block.bytes(size).iter().all(|&byte| byte == 0));
                // SAFETY: the last byte of memory that nobody else looks at.
                unsafe { block.start().as_ptr().add(size - 1).write(7) };
                assert_eq!(block.bytes(size)[size - 1], 7);
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(Block::new(0).unwrap_err(), Errno::EINVAL);
        assert_eq!(Block::new(usize::MAX).unwrap_err(), Errno::ENOMEM);
        assert_eq!(Block::new(usize::MAX / 2).unwrap_err(), Errno::ENOMEM);
    }
}

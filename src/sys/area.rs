//! Areas: memory that one process fills again and again and another can only read. An anonymous
//! file (`memfd`) whose size is sealed, and which nobody can map for writing once its maker has.
//! Which areas there are, and when one may be filled again, is said above.

use std::ffi::CStr;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use super::block::Block;
use super::features;
use super::sealed::{self, Mapping};

/// What `/proc` calls the files.
const NAME: &CStr = c"brood-area";

/// What keeps the maker from pulling pages away, which would make reading them a SIGBUS.
const FIXED_SIZE: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

/// `F_SEAL_FUTURE_WRITE`: no writing but by the mappings that are there already.
const FUTURE_WRITE: SealFlag = SealFlag::from_bits_retain(0x10);

/// The maker's side of an area. Its bytes are arbitrary at first after a reuse, zero before.
#[derive(Debug)]
pub struct Area(Mapping);

// SAFETY: the mapping belongs to the value and to no thread; it is accessed by pointer only, by
// whoever has taken the area.
unsafe impl Send for Area {}
// SAFETY: see above.
unsafe impl Sync for Area {}

/// The reader's side. The maker can change the bytes at any time: they are copied out once, and
/// only the copy is looked at.
#[derive(Debug)]
pub struct View(Mapping);

// SAFETY: the mapping belongs to the value and to no thread, and is only read, by pointer.
unsafe impl Send for View {}

impl Area {
    /// Makes an area of `len` bytes, and the descriptor by which the other side opens it.
    ///
    /// # Errors
    /// `EINVAL` for no bytes, `EMFILE`, `ENFILE`, `ENOMEM`, `ENOSPC`; `ENOSYS` where the kernel
    /// has no way to make one (before Linux 5.1).
    pub fn create(len: usize) -> Result<(Area, OwnedFd), Errno> {
        let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
        if !features::SEAL_FUTURE_WRITE.is_usable() {
            return Err(Errno::ENOSYS);
        }
        let file = sealed::create(NAME)?;
        let size = libc::off_t::try_from(len.get()).map_err(|_| Errno::EFBIG)?;
        ftruncate(&file, size)?;
        // All pages at once: a fault for each would cost more than filling them.
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let mapping = Mapping::new(&file, len, access, flags)?;
        // Of a lack of memory the mapping says nothing.
        if !sealed::is_whole(&file, &fstat(&file)?)? {
            return Err(Errno::ENOMEM);
        }
        let seals = FIXED_SIZE | FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
        match fcntl(&file, FcntlArg::F_ADD_SEALS(seals)) {
            Ok(_) => Ok((Area(mapping), file)),
            Err(Errno::EINVAL) => {
                features::SEAL_FUTURE_WRITE.write_off();
                Err(Errno::ENOSYS)
            }
            Err(errno) => Err(errno),
        }
    }

    /// The first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.0.start().cast()
    }

    /// How many bytes.
    pub fn size(&self) -> usize {
        self.0.size()
    }

    /// Puts a copy of `bytes` at the area's start.
    ///
    /// # Panics
    /// If they are more than it has.
    pub fn fill(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.size());
        // SAFETY: as many bytes are mapped and writable. `bytes` may lie in this very area, if it
        // is a part of what JavaScript fills; then it is moved as it should be.
        unsafe { ptr::copy(bytes.as_ptr(), self.start().as_ptr(), bytes.len()) };
    }
}

impl View {
    /// A peer's area of at most `most` bytes, for reading.
    ///
    /// # Errors
    /// `EPERM` when its size or what memory it has can change, `EINVAL` when it has no bytes,
    /// `EFBIG` when it has too many, `ENODATA` when some of them are no memory yet, `ENOMEM`.
    pub fn open(file: &OwnedFd, most: usize) -> Result<View, Errno> {
        let status = sealed::status_of(file, FIXED_SIZE | FUTURE_WRITE)?;
        let size = usize::try_from(status.st_size).map_err(|_| Errno::EFBIG)?;
        let len = NonZeroUsize::new(size).ok_or(Errno::EINVAL)?;
        if size > most {
            return Err(Errno::EFBIG);
        }
        if !sealed::is_whole(file, &status)? {
            return Err(Errno::ENODATA);
        }
        Mapping::new(file, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED).map(View)
    }

    /// How many bytes it has.
    pub fn size(&self) -> usize {
        self.0.size()
    }

    /// Copies the first `len` bytes to the start of `block`.
    ///
    /// # Panics
    /// If either has fewer.
    pub fn copy_to(&self, block: &mut Block, len: usize) {
        assert!(len <= self.size() && len <= block.size());
        // SAFETY: as many bytes are mapped on both sides, which are different memory; that the
        // maker may write meanwhile makes the copy arbitrary bytes at worst.
        unsafe {
            ptr::copy_nonoverlapping(self.0.start().cast().as_ptr(), block.start().as_ptr(), len);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use nix::sys::mman::{MmapAdvise, madvise, mmap};
    use nix::sys::uio::pwrite;

    use super::*;

    const LEN: usize = 300_001;

    fn read(view: &View, len: usize) -> Vec<u8> {
        let mut block = Block::new(len).unwrap();
        view.copy_to(&mut block, len);
        block.bytes(len).to_vec()
    }

    #[test]
    fn what_the_maker_puts_there_is_read_again_and_again() {
        let (area, file) = Area::create(LEN).unwrap();
        let view = View::open(&file, LEN).unwrap();
        drop(file);
        assert_eq!((area.size(), view.size()), (LEN, LEN));
        for round in 1..4 {
            let content: Vec<u8> = (0..LEN).map(|i| (i * round) as u8).collect();
            area.fill(&content);
            assert_eq!(read(&view, LEN), content);
            assert_eq!(read(&view, 10), content[..10]);
        }
    }

    #[test]
    fn nobody_but_the_maker_can_write_to_it_or_change_its_size() {
        let (_area, file) = Area::create(LEN).unwrap();
        assert_eq!(pwrite(&file, b"x", 0), Err(Errno::EPERM));
        assert_eq!(ftruncate(&file, 1), Err(Errno::EPERM));
        assert_eq!(ftruncate(&file, 2 * LEN as i64), Err(Errno::EPERM));
        let len = NonZeroUsize::new(LEN).unwrap();
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, which is refused.
        let mapped = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, &file, 0) };
        assert_eq!(mapped.unwrap_err(), Errno::EPERM);
    }

    #[test]
    fn what_could_shrink_or_is_too_large_or_is_no_memory_is_not_opened() {
        let (_area, file) = Area::create(LEN).unwrap();
        assert_eq!(View::open(&file, LEN - 1).unwrap_err(), Errno::EFBIG);
        let (unsealed, _mapping) = sealed::writable(LEN).unwrap();
        assert_eq!(View::open(&unsealed, LEN).unwrap_err(), Errno::EPERM);
        let ordinary = File::open("/proc/self/exe").unwrap().into();
        assert_eq!(View::open(&ordinary, LEN).unwrap_err(), Errno::EPERM);
        let empty = sealed::create(NAME).unwrap();
        fcntl(&empty, FcntlArg::F_ADD_SEALS(FIXED_SIZE | FUTURE_WRITE)).unwrap();
        assert_eq!(View::open(&empty, LEN).unwrap_err(), Errno::EINVAL);
        assert_eq!(Area::create(0).unwrap_err(), Errno::EINVAL);
    }

    #[test]
    fn what_has_holes_or_could_get_some_is_not_opened() {
        let (file, mapping) = sealed::writable(LEN).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(FIXED_SIZE)).unwrap();
        assert_eq!(View::open(&file, LEN).unwrap_err(), Errno::EPERM);
        fcntl(&file, FcntlArg::F_ADD_SEALS(FUTURE_WRITE)).unwrap();
        View::open(&file, LEN).unwrap();
        // SAFETY: our own mapping, which nobody looks at.
        let punched = unsafe { madvise(mapping.start(), 4096, MmapAdvise::MADV_REMOVE) };
        assert_eq!(punched, Err(Errno::EPERM));
        let sparse = sealed::create(NAME).unwrap();
        ftruncate(&sparse, LEN as i64).unwrap();
        pwrite(&sparse, b"x", 0).unwrap();
        fcntl(&sparse, FcntlArg::F_ADD_SEALS(FIXED_SIZE | FUTURE_WRITE)).unwrap();
        assert_eq!(View::open(&sparse, LEN).unwrap_err(), Errno::ENODATA);
    }

    #[test]
    fn huge_pages_that_may_run_out_are_not_opened() {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB;
        let Ok(file) = memfd_create(NAME, flags) else {
            return; // This kernel has none.
        };
        ftruncate(&file, 1 << 30).unwrap();
        fcntl(&file, FcntlArg::F_ADD_SEALS(FIXED_SIZE | FUTURE_WRITE)).unwrap();
        assert_eq!(View::open(&file, 1 << 30).unwrap_err(), Errno::EPERM);
    }
}

//! A few words of memory that two processes share: a memfd whose size both sides can rely on,
//! because it is sealed, mapped as an owned value. What the words mean is said above.

use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU32;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

/// `MFD_NOEXEC_SEAL` (Linux 6.3): the memory can never be run. Some systems demand it
/// (`vm.memfd_noexec`), older kernels do not know it.
const NEVER_EXECUTABLE: MFdFlags = MFdFlags::from_bits_retain(0x8);

/// What keeps the other side from pulling the mapped pages away (a read would end in `SIGBUS`).
const FIXED_SIZE: SealFlag = SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW);

/// Shared words, all zero at first. The memory is unmapped with the value and lives as long as
/// any mapping or descriptor of it.
#[derive(Debug)]
pub struct SharedMemory {
    base: NonNull<c_void>,
    words: NonZeroUsize,
}

// SAFETY: the mapping belongs to the value and to no thread, and is accessed by atomics only.
unsafe impl Send for SharedMemory {}
// SAFETY: see above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Makes shared memory of `words` words. The descriptor, close-on-exec, is for the other
    /// side: it can be mapped, but neither resized nor sealed further.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`; `ENOSYS` where a seccomp filter forbids memfds.
    pub fn create(name: &str, words: NonZeroUsize) -> Result<(SharedMemory, OwnedFd), Errno> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let memfd = match memfd_create(name, flags | NEVER_EXECUTABLE) {
            Err(Errno::EINVAL) => memfd_create(name, flags),
            other => other,
        }?;
        ftruncate(&memfd, size(words)? as i64)?;
        let seals = FIXED_SIZE | SealFlag::F_SEAL_SEAL;
        fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals))?;
        Ok((SharedMemory::map(&memfd, words)?, memfd))
    }

    /// Maps memory that another process has made. The descriptor is not needed afterwards.
    ///
    /// # Errors
    /// `EINVAL` when it is no memfd or not of `words` words, `EPERM` when it could be resized or
    /// not be written, `ENOMEM`.
    pub fn open(memfd: impl AsFd, words: NonZeroUsize) -> Result<SharedMemory, Errno> {
        // First the seals, then the size: it cannot change any more.
        let seals = fcntl(&memfd, FcntlArg::F_GET_SEALS)?;
        if !SealFlag::from_bits_retain(seals).contains(FIXED_SIZE) {
            return Err(Errno::EPERM);
        }
        if u64::try_from(fstat(&memfd)?.st_size) != Ok(size(words)? as u64) {
            return Err(Errno::EINVAL);
        }
        SharedMemory::map(memfd, words)
    }

    fn map(memfd: impl AsFd, words: NonZeroUsize) -> Result<SharedMemory, Errno> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let length = NonZeroUsize::new(size(words)?).ok_or(Errno::EINVAL)?;
        // SAFETY: a new mapping at an address of the kernel's choice, of a file that cannot shrink.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, memfd, 0) }?;
        Ok(SharedMemory { base, words })
    }
}

fn size(words: NonZeroUsize) -> Result<usize, Errno> {
    let bytes = words.get().checked_mul(size_of::<AtomicU32>());
    bytes.ok_or(Errno::EOVERFLOW)
}

impl Deref for SharedMemory {
    type Target = [AtomicU32];

    fn deref(&self) -> &[AtomicU32] {
        // SAFETY: the mapping has this size for as long as the value lives, is aligned to a page,
        // and every bit pattern is a valid AtomicU32; nobody holds a plain reference into it.
        unsafe { slice::from_raw_parts(self.base.cast().as_ptr(), self.words.get()) }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        let length = self.words.get() * size_of::<AtomicU32>();
        // SAFETY: our own mapping, used by nobody any more. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.base, length) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::Ordering::Relaxed;

    use nix::fcntl::FdFlag;

    use super::*;

    const WORDS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

    fn memfd(size: i64, seals: SealFlag) -> OwnedFd {
        let memfd = memfd_create("test", MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&memfd, size).unwrap();
        fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        memfd
    }

    #[test]
    fn both_sides_see_the_same_words() {
        let (ours, memfd) = SharedMemory::create("test", WORDS).unwrap();
        let theirs = SharedMemory::open(&memfd, WORDS).unwrap();
        drop(memfd);
        assert_eq!(theirs.len(), 1024);
        assert!(theirs.iter().all(|word| word.load(Relaxed) == 0));
        ours[1023].store(7, Relaxed);
        theirs[0].store(8, Relaxed);
        assert_eq!(theirs[1023].load(Relaxed), 7);
        assert_eq!(ours[0].load(Relaxed), 8);
        drop(ours);
        assert_eq!(theirs[1023].load(Relaxed), 7);
    }

    #[test]
    fn what_is_handed_over_can_be_neither_resized_nor_sealed_nor_inherited() {
        let (_ours, memfd) = SharedMemory::create("test", WORDS).unwrap();
        assert_eq!(ftruncate(&memfd, 0), Err(Errno::EPERM));
        assert_eq!(ftruncate(&memfd, 8192), Err(Errno::EPERM));
        let more = FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
        assert_eq!(fcntl(&memfd, more), Err(Errno::EPERM));
        let flags = fcntl(&memfd, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & FdFlag::FD_CLOEXEC.bits(), FdFlag::FD_CLOEXEC.bits());
    }

    #[test]
    fn memory_that_could_be_pulled_away_is_not_mapped() {
        for seals in [
            SealFlag::empty(),
            SealFlag::F_SEAL_SHRINK,
            SealFlag::F_SEAL_GROW,
        ] {
            let refused = SharedMemory::open(memfd(4096, seals), WORDS);
            assert_eq!(refused.unwrap_err(), Errno::EPERM);
        }
        let file = File::open("/proc/self/exe").unwrap();
        assert_eq!(SharedMemory::open(file, WORDS).unwrap_err(), Errno::EINVAL);
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(
            SharedMemory::open(reader, WORDS).unwrap_err(),
            Errno::EINVAL
        );
    }

    #[test]
    fn memory_of_another_size_or_without_write_access_is_not_mapped() {
        for size in [0, 4092, 4100, 8192] {
            let refused = SharedMemory::open(memfd(size, FIXED_SIZE), WORDS);
            assert_eq!(refused.unwrap_err(), Errno::EINVAL);
        }
        let sealed = memfd(4096, FIXED_SIZE | SealFlag::F_SEAL_WRITE);
        assert_eq!(SharedMemory::open(sealed, WORDS).unwrap_err(), Errno::EPERM);
    }

    #[test]
    fn the_mapping_goes_with_the_value() {
        let name = format!("brood-unmapped-{}", std::process::id());
        let mapped = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().filter(|line| line.contains(&name)).count()
        };
        let (ours, memfd) = SharedMemory::create(&name, WORDS).unwrap();
        let theirs = SharedMemory::open(memfd, WORDS).unwrap();
        assert_eq!(mapped(), 2);
        drop((ours, theirs));
        assert_eq!(mapped(), 0);
    }
}

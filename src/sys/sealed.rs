//! Memory that two processes share without trusting each other: anonymous files (`memfd`), sealed
//! before they are given away so that nobody can change their size or content any more, and private
//! mappings of them. How many there may be is decided above.

use std::ffi::{CStr, c_void};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::{FileStat, fstat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::sys::uio::pread;
use nix::unistd::{Whence, ftruncate, lseek, write};

/// Without these a peer could make our memory change, or reading it a SIGBUS.
fn required_seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE
}

/// What `/proc` calls the files.
const NAME: &CStr = c"brood";

/// Some memory of a file. Dropping it unmaps it.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

/// Memory of one's own may be read and written.
const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

impl Mapping {
    /// The first byte.
    pub fn start(&self) -> NonNull<c_void> {
        self.start
    }

    /// How many bytes.
    pub fn size(&self) -> usize {
        self.len.get()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped and readable until drop or `vacate`, which takes the value mutably; what
        // is mapped privately from a sealed file changes only through us.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len.get()) }
    }

    /// Takes the memory away but keeps the addresses: whoever still uses them faults, and nothing
    /// else is mapped there before the drop.
    ///
    /// # Errors
    /// `ENOMEM`; then the memory is still mapped.
    pub fn vacate(&self) -> Result<(), Errno> {
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: replaces exactly our own mapping.
        let result = unsafe {
            libc::mmap(
                self.start.as_ptr(),
                self.len.get(),
                libc::PROT_NONE,
                flags,
                -1,
                0,
            )
        };
        if result == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(())
    }

    pub(super) fn new(
        file: impl AsFd,
        len: NonZeroUsize,
        protection: ProtFlags,
        flags: MapFlags,
    ) -> Result<Mapping, Errno> {
        // SAFETY: a new mapping at an address the kernel chooses.
        let start = unsafe { mmap(None, len, protection, flags, file, 0) }?;
        Ok(Mapping { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, unmapped once.
        let _ = unsafe { munmap(self.start, self.len.get()) };
    }
}

/// A sealed file with a copy of `bytes`.
///
/// # Errors
/// `EINVAL` for no bytes, `EMFILE`, `ENFILE`, `ENOMEM`, `ENOSPC`.
pub fn copy(bytes: &[u8]) -> Result<OwnedFd, Errno> {
    NonZeroUsize::new(bytes.len()).ok_or(Errno::EINVAL)?;
    let file = create(NAME)?;
    let mut rest = bytes;
    while !rest.is_empty() {
        // Written, not copied into a mapping: no page fault for each page.
        let written = write(&file, rest)?;
        rest = &rest[written..];
    }
    seal(&file)?;
    Ok(file)
}

/// A file of `len` bytes, all zero, and its memory, for a sender to fill in place.
///
/// # Errors
/// As [`copy`].
pub fn writable(len: usize) -> Result<(OwnedFd, Mapping), Errno> {
    let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
    let file = create(NAME)?;
    ftruncate(
        &file,
        libc::off_t::try_from(len.get()).map_err(|_| Errno::EFBIG)?,
    )?;
    // All pages at once: a fault for each would cost more than filling them.
    let mapping = Mapping::new(
        &file,
        len,
        READ_WRITE,
        MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE,
    )?;
    // Of a lack of memory the mapping says nothing.
    if !is_whole(&file, &fstat(&file)?)? {
        return Err(Errno::ENOMEM);
    }
    Ok((file, mapping))
}

/// Seals a file made by [`writable`], once its memory is vacated or unmapped.
///
/// # Errors
/// `EBUSY` while it is still mapped.
pub fn seal(file: &OwnedFd) -> Result<(), Errno> {
    let seals = required_seals() | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals)).map(drop)
}

/// A peer's sealed file of exactly `len` bytes, as memory of our own: what is written to it stays
/// here.
///
/// # Errors
/// `EPERM` when the file is not sealed as it must be or is none that can be, `EINVAL` when its size
/// is another, `ENODATA` when some of it is no memory yet, `ENOMEM`.
pub fn map(file: &OwnedFd, len: usize) -> Result<Mapping, Errno> {
    let len = NonZeroUsize::new(len).ok_or(Errno::EINVAL)?;
    let status = status_of(file, required_seals())?;
    if usize::try_from(status.st_size) != Ok(len.get()) {
        return Err(Errno::EINVAL);
    }
    if !is_whole(file, &status)? {
        return Err(Errno::ENODATA);
    }
    Mapping::new(file, len, READ_WRITE, MapFlags::MAP_PRIVATE)
}

/// What is known of a peer's file with these seals, which keep it so.
///
/// # Errors
/// `EPERM` when it has others or is no ordinary memory.
pub(super) fn status_of(file: &OwnedFd, seals: SealFlag) -> Result<FileStat, Errno> {
    let present = fcntl(file, FcntlArg::F_GET_SEALS).map_err(|_| Errno::EPERM)?;
    if !SealFlag::from_bits_retain(present).contains(seals) {
        return Err(Errno::EPERM);
    }
    // Huge pages of hugetlbfs may have run out when they are read, in spite of the seals: a SIGBUS.
    if fstatfs(file)?.filesystem_type() != TMPFS_MAGIC {
        return Err(Errno::EPERM);
    }
    fstat(file)
}

/// Whether all of a file is memory already. Reading a hole would need memory of the reader's, and
/// where there is none be a SIGBUS; that no more can be made is a matter of the seals against writing.
pub(super) fn is_whole(file: &OwnedFd, status: &FileStat) -> Result<bool, Errno> {
    const UNIT: i64 = 512;
    match lseek(file, 0, Whence::SeekHole) {
        Ok(first_hole) => Ok(first_hole == status.st_size),
        // Not known to this kernel (gVisor). Memory beyond the end of the file counts, too.
        Err(Errno::EINVAL) => Ok(status.st_blocks.saturating_mul(UNIT) >= status.st_size),
        Err(errno) => Err(errno),
    }
}

/// What a file that [`map`] would take has at its start, where there is no room for a mapping.
///
/// # Errors
/// `EINVAL` when it is shorter.
pub fn read(file: &OwnedFd, into: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while done < into.len() {
        match pread(file, &mut into[done..], done as libc::off_t) {
            Ok(0) => return Err(Errno::EINVAL),
            Ok(read) => done += read,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// An empty file; `name` is what `/proc` calls it.
pub(super) fn create(name: &CStr) -> Result<OwnedFd, Errno> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::fcntl::{FallocateFlags, fallocate};

    use super::*;

    const LEN: usize = 100_001;

    fn content() -> Vec<u8> {
        (0..LEN).map(|i| i as u8).collect()
    }

    #[test]
    fn a_copy_arrives_and_what_the_receiver_writes_stays_with_it() {
        let file = copy(&content()).unwrap();
        let one = map(&file, LEN).unwrap();
        let other = map(&file, LEN).unwrap();
        assert_eq!(one.bytes(), content());
        let mut bytes = vec![0; LEN];
        read(&file, &mut bytes).unwrap();
        assert_eq!(bytes, content());
        assert_eq!(read(&file, &mut vec![0; LEN + 1]), Err(Errno::EINVAL));
        // SAFETY: the mapping is writable and nobody else looks at it meanwhile.
        unsafe { one.start().cast::<u8>().write(99) };
        assert_eq!((one.bytes()[0], other.bytes()[0]), (99, 0));
    }

    #[test]
    fn memory_filled_in_place_can_be_sealed_once_it_is_vacated() {
        let (file, mapping) = writable(LEN).unwrap();
        // SAFETY: LEN bytes are mapped and writable.
        unsafe {
            std::ptr::copy_nonoverlapping(content().as_ptr(), mapping.start().as_ptr().cast(), LEN)
        };
        assert_eq!(seal(&file), Err(Errno::EBUSY));
        mapping.vacate().unwrap();
        seal(&file).unwrap();
        assert_eq!(map(&file, LEN).unwrap().bytes(), content());
    }

    #[test]
    fn a_file_that_its_sender_can_still_change_is_not_mapped() {
        let (unsealed, _mapping) = writable(LEN).unwrap();
        assert_eq!(map(&unsealed, LEN).unwrap_err(), Errno::EPERM);
        for missing in required_seals() {
            let (file, mapping) = writable(LEN).unwrap();
            drop(mapping);
            fcntl(&file, FcntlArg::F_ADD_SEALS(required_seals() - missing)).unwrap();
            assert_eq!(map(&file, LEN).unwrap_err(), Errno::EPERM, "{missing:?}");
        }
        let ordinary = File::open("/proc/self/exe").unwrap().into();
        assert_eq!(map(&ordinary, LEN).unwrap_err(), Errno::EPERM);
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert_eq!(map(&pipe.into(), LEN).unwrap_err(), Errno::EPERM);
    }

    #[test]
    fn what_has_holes_is_not_mapped() {
        let file = create(NAME).unwrap();
        ftruncate(&file, LEN as i64).unwrap();
        write(&file, b"x").unwrap();
        seal(&file).unwrap();
        assert_eq!(map(&file, LEN).unwrap_err(), Errno::ENODATA);
        // As much memory as it has bytes, but behind them.
        let file = create(NAME).unwrap();
        let len = LEN as i64;
        fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, len, 2 * len).unwrap();
        ftruncate(&file, len).unwrap();
        seal(&file).unwrap();
        assert_eq!(map(&file, LEN).unwrap_err(), Errno::ENODATA);
    }

    #[test]
    fn a_size_other_than_announced_is_refused() {
        let file = copy(&content()).unwrap();
        for len in [0, 1, LEN - 1, LEN + 1, usize::MAX] {
            assert_eq!(map(&file, len).unwrap_err(), Errno::EINVAL);
        }
        assert_eq!(copy(b"").unwrap_err(), Errno::EINVAL);
        assert!(writable(0).is_err());
    }
}

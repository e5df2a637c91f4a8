//! A descriptor in reserve: where none is left, a handle can still be sent. Its sender gives up its
//! own in the same breath, so that for a moment one more is needed, and losing a connection for
//! that would be a pity.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::dup3;

use super::descriptor;

/// One for the whole process; what it is does not matter.
static SPARE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Sees to it that there is one, if that can be had.
pub fn keep() {
    fill(&mut spare());
}

/// A close-on-exec duplicate of a descriptor number that stays the caller's, in the place of the
/// one in reserve if need be.
///
/// # Errors
/// `EBADF` when it is not open, `EMFILE` when the reserve is used up, too.
pub fn duplicate(fd: RawFd) -> Result<OwnedFd, Errno> {
    let mut spare = spare();
    match descriptor::duplicate(fd) {
        Err(Errno::EMFILE) => replace(spare.take().ok_or(Errno::EMFILE)?, fd),
        other => {
            fill(&mut spare);
            other
        }
    }
}

/// Makes `place` a duplicate of `fd`.
fn replace(mut place: OwnedFd, fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: only borrowed for the length of the call, which fails for a closed number.
    let source = unsafe { BorrowedFd::borrow_raw(fd) };
    dup3(source, &mut place, OFlag::O_CLOEXEC)?;
    Ok(place)
}

fn fill(spare: &mut Option<OwnedFd>) {
    if spare.is_none() {
        *spare = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)
            .ok()
            .map(OwnedFd::from);
    }
}

fn spare() -> MutexGuard<'static, Option<OwnedFd>> {
    SPARE.lock().unwrap_or_else(PoisonError::into_inner)
}

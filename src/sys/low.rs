//! A few descriptors with low numbers, kept so that a child can be given a small descriptor table:
//! it first shares ours, then leaves with a copy of only the numbers below a bound. Copying (and
//! closing) thousands of entries would make a spawn dearer with every child that is alive. What a
//! child is to get from above the bound is lent a low number for the length of the launch.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, TryLockError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::dup3;

use super::launch::Slot;
use super::null;

/// Tables up to this size are simply copied.
pub(super) const SMALL: RawFd = 64;
/// Numbers below are for standard streams, which somebody may close and reopen.
pub(super) const FIRST: RawFd = 3;
/// Standard streams and a channel.
const KEPT: usize = 4;

/// Opened by the first launch, before there is a crowd of descriptors.
static RESERVE: Mutex<Option<Reserve>> = Mutex::new(None);

struct Reserve {
    /// Stands in the places that are not lent.
    null: &'static OwnedFd,
    places: Vec<OwnedFd>,
}

/// A loan: the slots' descriptors have low numbers until it is dropped.
pub(super) struct Loan {
    /// The child needs no descriptor from here on.
    pub(super) bound: RawFd,
    reserve: Option<MutexGuard<'static, Option<Reserve>>>,
    used: usize,
}

/// Sees to it that all of `slots` are below a low bound. `None` when that cannot be had: there are
/// too many, one is not open, or another thread is using the reserve.
pub(super) fn lower(slots: &mut [Slot]) -> Option<Loan> {
    let count = slots.len() as RawFd;
    let mut loan = Loan {
        bound: count,
        reserve: None,
        used: 0,
    };
    let reserve = reserve();
    let is_high = |slot: &Slot| slot.source().is_some_and(|fd| fd >= SMALL.max(count));
    if slots.iter().any(is_high) {
        let mut lowered = slots.to_vec();
        loan.reserve = Some(reserve.ok()?);
        for slot in lowered.iter_mut().filter(|slot| is_high(slot)) {
            loan.lend(slot).ok()?;
        }
        slots.copy_from_slice(&lowered);
    }
    let sources = slots.iter().filter_map(Slot::source);
    loan.bound = sources.fold(count, |bound, fd| bound.max(fd + 1));
    Some(loan)
}

impl Loan {
    fn lend(&mut self, slot: &mut Slot) -> Result<(), Errno> {
        let reserve = self.reserve.as_mut().and_then(|guard| guard.as_mut());
        let place = reserve.and_then(|reserve| reserve.places.get_mut(self.used));
        let (Some(place), Slot::Own(source) | Slot::Inherit(source)) = (place, slot) else {
            return Err(Errno::EMFILE);
        };
        self.used += 1;
        // SAFETY: only borrowed for the length of the call, which fails for a closed number.
        let borrowed = unsafe { BorrowedFd::borrow_raw(*source) };
        dup3(borrowed, place, OFlag::O_CLOEXEC)?;
        *source = place.as_raw_fd();
        Ok(())
    }
}

impl Drop for Loan {
    /// Takes the places back: a pipe of the child ends only when nobody holds it any more.
    fn drop(&mut self) {
        let Some(reserve) = self.reserve.as_mut().and_then(|guard| guard.as_mut()) else {
            return;
        };
        for place in &mut reserve.places[..self.used] {
            let _ = dup3(reserve.null, place, OFlag::O_CLOEXEC);
        }
    }
}

/// The reserve, which no other thread uses as long as the guard lives.
fn reserve() -> Result<MutexGuard<'static, Option<Reserve>>, Errno> {
    let mut guard = match RESERVE.try_lock() {
        Ok(guard) => guard,
        Err(TryLockError::Poisoned(poison)) => poison.into_inner(),
        Err(TryLockError::WouldBlock) => return Err(Errno::EBUSY),
    };
    if guard.is_none() {
        *guard = Some(Reserve::open()?);
    }
    Ok(guard)
}

impl Reserve {
    fn open() -> Result<Reserve, Errno> {
        let null = null::read_only().ok_or(Errno::EMFILE)?;
        let places = (0..KEPT).map(|_| duplicate(null));
        let places = places.collect::<Result<_, _>>()?;
        Ok(Reserve { null, places })
    }
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Errno> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(FIRST))?;
    // SAFETY: fcntl returned a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

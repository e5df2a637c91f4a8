//! `/dev/null`, opened once for all children: opening it for each took longer than all else that is
//! done about their standard streams.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::low::{FIRST, SMALL};

/// A descriptor of `/dev/null`, for reading only or for both. `None` when it cannot be opened, or
/// was opened so late that its number is not low, or got the number of a standard stream, which
/// somebody may reopen.
pub fn descriptor(read_only: bool) -> Option<RawFd> {
    static READ_ONLY: OnceLock<Option<OwnedFd>> = OnceLock::new();
    static READ_WRITE: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let (place, flags) = match read_only {
        true => (&READ_ONLY, OFlag::O_RDONLY),
        false => (&READ_WRITE, OFlag::O_RDWR),
    };
    let opened = place.get_or_init(|| {
        let null = open("/dev/null", flags | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        (FIRST..SMALL).contains(&null.as_raw_fd()).then_some(null)
    });
    opened.as_ref().map(AsRawFd::as_raw_fd)
}

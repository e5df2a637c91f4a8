//! `/dev/null`, opened once for all children: opening it for each took longer than all else that is
//! done about their standard streams.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::low::{FIRST, SMALL};

/// For reading. `None` when it could not be opened, or was opened so late that its number is not
/// low, or got the number of a standard stream, which somebody may reopen.
pub fn read_only() -> Option<&'static OwnedFd> {
    static NULL: OnceLock<Option<OwnedFd>> = OnceLock::new();
    NULL.get_or_init(|| open_null(OFlag::O_RDONLY)).as_ref()
}

/// For reading and writing; `None` as above.
pub fn read_write() -> Option<&'static OwnedFd> {
    static NULL: OnceLock<Option<OwnedFd>> = OnceLock::new();
    NULL.get_or_init(|| open_null(OFlag::O_RDWR)).as_ref()
}

fn open_null(access: OFlag) -> Option<OwnedFd> {
    let null = open("/dev/null", access | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let is_usable = (FIRST..SMALL).contains(&null.as_raw_fd());
    is_usable.then_some(null)
}

//! Where the kernel cannot make areas, in a process of its own, for the feature is written off for
//! all of it: nothing is asked of the kernel again, and the diagnostics say so.

use brood::sys::area::Area;
use brood::sys::features::{self, SEAL_FUTURE_WRITE};
use nix::errno::Errno;

#[test]
fn a_kernel_without_the_seal_is_asked_once() {
    assert!(Area::create(4096).is_ok());
    SEAL_FUTURE_WRITE.write_off();
    assert_eq!(Area::create(4096).unwrap_err(), Errno::ENOSYS);
    let missing = features::all().into_iter().filter(|f| !f.is_usable());
    assert_eq!(
        missing.map(|f| f.name()).collect::<Vec<_>>(),
        ["F_SEAL_FUTURE_WRITE"]
    );
}

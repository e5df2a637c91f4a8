//! The process's own environment as execve wants it, without copying its strings.

use std::ffi::{CStr, c_char};

use super::strings::Strings;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// The process's environment, in which the entries of `overrides` (`NAME=value` joined by NUL)
/// come first and replace those of the same name.
///
/// The entries are borrowed from libc: the caller is on the thread that alone changes the
/// environment (Node's main thread, as long as there is no worker thread that might share it) and
/// lets go of the value before it does.
pub fn inherited(overrides: Vec<u8>) -> Strings {
    let names: Vec<&[u8]> = overrides.split(|&byte| byte == 0).map(name_of).collect();
    let mut kept = Vec::with_capacity(64);
    // SAFETY: environ is null or a null-terminated array of C strings; nobody changes it while we
    // read, see above.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let is_replaced = || names.contains(&name_of(CStr::from_ptr(*entry).to_bytes()));
            if overrides.is_empty() || !is_replaced() {
                kept.push(*entry);
            }
            entry = entry.add(1);
        }
    }
    // SAFETY: the entries are C strings that stay until the environment is changed, see above.
    unsafe { Strings::with_foreign(overrides, &kept) }
}

fn name_of(entry: &[u8]) -> &[u8] {
    let end = memchr::memchr(b'=', entry).unwrap_or(entry.len());
    &entry[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_override_replaces_the_entry_of_the_same_name() {
        let plain = inherited(Vec::new());
        let path = plain.variable(b"PATH").map(<[u8]>::to_vec);
        assert!(path.is_some());
        let changed = inherited(b"PATH=/nowhere\0BROOD_TEST=1".to_vec());
        assert_eq!(changed.variable(b"PATH"), Some(&b"/nowhere"[..]));
        assert_eq!(changed.variable(b"BROOD_TEST"), Some(&b"1"[..]));
        assert_eq!(changed.len(), plain.len() + 1);
    }
}

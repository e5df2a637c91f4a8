//! The string arrays of execve: one buffer of NUL-terminated strings and one array of pointers
//! into it, whatever the number of strings.

use std::ffi::{CStr, c_char};
use std::ptr;

use memchr::memchr_iter;

/// A null-terminated array of C strings with its strings. The array has one spare place in front,
/// so that an interpreter can be put before the arguments without moving them.
#[derive(Debug)]
pub struct Strings {
    /// What the pointers lead to, unless they lead to the process's own environment. Never
    /// touched again: its address must not change.
    #[expect(dead_code, reason = "owned for the pointers")]
    bytes: Vec<u8>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers lead into `bytes`, which moves along, or into the process's environment,
// which any thread may read; nothing in here is bound to a thread.
unsafe impl Send for Strings {}

impl Strings {
    /// Elements joined by NUL; an empty block is one empty string.
    pub fn from_block(mut bytes: Vec<u8>) -> Strings {
        bytes.push(0);
        Strings::from_terminated(bytes)
    }

    /// Elements that each end with NUL; no bytes, no elements.
    pub fn from_terminated(bytes: Vec<u8>) -> Strings {
        debug_assert!(bytes.last().is_none_or(|&last| last == 0));
        let mut pointers = Vec::with_capacity(2 + bytes.len() / 16);
        pointers.push(ptr::null());
        let mut start = 0;
        for end in memchr_iter(0, &bytes) {
            pointers.push(bytes[start..].as_ptr().cast());
            start = end + 1;
        }
        pointers.push(ptr::null());
        Strings { bytes, pointers }
    }

    /// No element at all.
    pub fn empty() -> Strings {
        Strings::from_terminated(Vec::new())
    }

    /// The strings of `block` (elements joined by NUL, possibly none) and after them those of
    /// `others`.
    ///
    /// # Safety
    /// Every pointer of `others` leads to a NUL-terminated string that outlives the value.
    pub(super) unsafe fn with_foreign(mut block: Vec<u8>, others: &[*const c_char]) -> Strings {
        if !block.is_empty() {
            block.push(0);
        }
        let mut strings = Strings::from_terminated(block);
        strings.pointers.pop();
        strings.pointers.extend_from_slice(others);
        strings.pointers.push(ptr::null());
        strings
    }

    /// The strings joined by NUL, as [`Strings::from_block`] takes them.
    pub fn to_block(&self) -> Vec<u8> {
        let mut block = Vec::new();
        for string in self.iter() {
            block.extend_from_slice(string.to_bytes_with_nul());
        }
        block.pop();
        block
    }

    /// How many strings there are.
    pub fn len(&self) -> usize {
        self.pointers.len() - 2
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        let elements = &self.pointers[1..self.pointers.len() - 1];
        // SAFETY: every element leads to a NUL-terminated string that lives as long as self.
        elements
            .iter()
            .map(|&pointer| unsafe { CStr::from_ptr(pointer) })
    }

    /// The value of the first string that begins with `name` and `=`, as getenv has it.
    pub fn variable(&self, name: &[u8]) -> Option<&[u8]> {
        self.iter()
            .find_map(|entry| value_of(entry.to_bytes(), name))
    }

    /// The array, from its first string to the null at its end.
    pub(super) fn as_ptr(&self) -> *const *const c_char {
        self.pointers[1..].as_ptr()
    }

    /// The array with its spare place in front.
    pub(super) fn as_mut_ptr_with_spare(&mut self) -> *mut *const c_char {
        self.pointers.as_mut_ptr()
    }
}

/// The value of `entry` when it is `name=value`.
pub(super) fn value_of<'a>(entry: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = entry.strip_prefix(name)?;
    rest.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(strings: &Strings) -> Vec<&[u8]> {
        strings.iter().map(CStr::to_bytes).collect()
    }

    #[test]
    fn a_block_keeps_empty_strings() {
        let strings = Strings::from_block(b"a\0\0c".to_vec());
        assert_eq!(listed(&strings), [&b"a"[..], b"", b"c"]);
        assert_eq!(listed(&Strings::from_block(Vec::new())), [b""]);
        assert!(Strings::empty().is_empty());
    }

    #[test]
    fn a_variable_is_found_by_its_whole_name_and_the_first_wins() {
        let strings = Strings::from_block(b"PATHS=x\0PATH=/a:/b\0PATH=/c".to_vec());
        assert_eq!(strings.variable(b"PATH"), Some(&b"/a:/b"[..]));
        assert_eq!(strings.variable(b"PAT"), None);
    }
}

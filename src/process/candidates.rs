//! The paths a program's name may stand for, built before the clone: as execvp tries them, with
//! the `PATH` of the child. Those in front that are not there are left out, for looking costs half
//! of what an exec that fails does.

use std::ffi::CStr;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::sys::strings::Strings;

/// What libc searches when there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

/// The paths to try for `file`, in order; `path` is the child's `PATH`. `looks` says that the child
/// will see the same files as we do; not so with other credentials.
pub(super) fn candidates<'p>(
    file: &[u8],
    path: impl FnOnce() -> Option<&'p [u8]>,
    looks: bool,
) -> Result<Strings, Errno> {
    if file.is_empty() {
        return Err(Errno::ENOENT);
    }
    if file.contains(&b'/') {
        return Ok(Strings::from_block(file.to_vec()));
    }
    if file.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let path = path().unwrap_or(DEFAULT_PATH);
    let mut paths = Vec::with_capacity(path.len() + (path.len() / 8 + 2) * (file.len() + 2));
    for directory in path.split(|&byte| byte == b':') {
        if directory.len() >= PATH_MAX {
            continue;
        }
        // An empty element is the working directory.
        if !directory.is_empty() {
            paths.extend_from_slice(directory);
            paths.push(b'/');
        }
        paths.extend_from_slice(file);
        paths.push(0);
    }
    let skipped = if looks { missing(&paths) } else { 0 };
    paths.drain(..skipped);
    Ok(Strings::from_terminated(paths))
}

/// How many bytes at the beginning are absolute paths that execvp would pass over. None when no
/// path is any good: the child then finds out which error that is.
fn missing(paths: &[u8]) -> usize {
    let mut skipped = 0;
    for path in paths.split_inclusive(|&byte| byte == 0) {
        let is_missing = path.first() == Some(&b'/')
            && CStr::from_bytes_with_nul(path).is_ok_and(|path| {
                matches!(
                    access(path, AccessFlags::F_OK),
                    Err(Errno::ENOENT | Errno::ENOTDIR)
                )
            });
        if !is_missing {
            return skipped;
        }
        skipped += path.len();
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(file: &str, path: Option<&str>) -> Vec<String> {
        let strings = candidates(file.as_bytes(), || path.map(str::as_bytes), false).unwrap();
        let text = strings.iter().map(|s| s.to_str().unwrap().to_owned());
        text.collect()
    }

    #[test]
    fn a_name_is_looked_for_in_every_directory() {
        assert_eq!(listed("ls", Some("/a:/b")), ["/a/ls", "/b/ls"]);
        assert_eq!(listed("ls", None), ["/bin/ls", "/usr/bin/ls"]);
    }

    #[test]
    fn paths_that_are_not_there_are_left_out_unless_all_are() {
        let found = |path: &[u8]| candidates(b"sh", || Some(path), true).unwrap().len();
        assert_eq!(found(b"/nowhere:/bin/sh:/bin:/nowhere"), 2);
        assert_eq!(found(b"/nowhere:/nonexistent"), 2);
        assert_eq!(found(b"/nowhere::/bin"), 2);
    }

    #[test]
    fn an_empty_directory_is_the_working_directory() {
        assert_eq!(listed("ls", Some(":/b:")), ["ls", "/b/ls", "ls"]);
        assert_eq!(listed("ls", Some("")), ["ls"]);
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        assert_eq!(listed("./ls", Some("/a")), ["./ls"]);
    }

    #[test]
    fn impossible_names_are_refused() {
        assert_eq!(candidates(b"", || None, false).unwrap_err(), Errno::ENOENT);
        let long = vec![b'x'; 256];
        assert_eq!(
            candidates(&long, || None, false).unwrap_err(),
            Errno::ENAMETOOLONG
        );
    }
}

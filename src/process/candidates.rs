//! The paths a program's name may stand for, built before the clone: as execvp tries them, with
//! the `PATH` of the child.

use nix::errno::Errno;

use crate::sys::strings::Strings;

/// What libc searches when there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

/// The paths to try for `file`, in order.
pub(super) fn candidates(file: &[u8], path: Option<&[u8]>) -> Result<Strings, Errno> {
    if file.is_empty() {
        return Err(Errno::ENOENT);
    }
    if file.contains(&b'/') {
        return Ok(Strings::from_block(file.to_vec()));
    }
    if file.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let path = path.unwrap_or(DEFAULT_PATH);
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
    Ok(Strings::from_terminated(paths))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(file: &str, path: Option<&str>) -> Vec<String> {
        let strings = candidates(file.as_bytes(), path.map(str::as_bytes)).unwrap();
        let text = strings.iter().map(|s| s.to_str().unwrap().to_owned());
        text.collect()
    }

    #[test]
    fn a_name_is_looked_for_in_every_directory() {
        assert_eq!(listed("ls", Some("/a:/b")), ["/a/ls", "/b/ls"]);
        assert_eq!(listed("ls", None), ["/bin/ls", "/usr/bin/ls"]);
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
        assert_eq!(candidates(b"", None).unwrap_err(), Errno::ENOENT);
        let long = vec![b'x'; 256];
        assert_eq!(candidates(&long, None).unwrap_err(), Errno::ENAMETOOLONG);
    }
}

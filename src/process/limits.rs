//! What a child may use: translates what a user asks for into what the child does about it
//! between clone and exec.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::sys::launch;

/// The kernel's own bound on processor numbers (`CONFIG_NR_CPUS` of the largest builds).
const PROCESSORS: usize = 8192;

/// Limits of a child; the default limits nothing.
#[derive(Debug, Default)]
pub struct Limits {
    /// Resource number, soft limit, hard limit.
    pub resources: Vec<(u32, u64, u64)>,
    /// The nice value, absolute.
    pub nice: Option<i32>,
    /// The processors it may run on.
    pub processors: Option<Vec<usize>>,
    /// The out-of-memory score adjustment.
    pub oom_score_adj: Option<i32>,
    /// The directory of a cgroup (version 2) that was delegated to us.
    pub cgroup: Option<Vec<u8>>,
}

impl Limits {
    pub(super) fn prepare(self) -> Result<launch::Limits, Errno> {
        Ok(launch::Limits {
            resources: self.resources,
            nice: self.nice,
            processors: self.processors.map(|list| mask(&list)).transpose()?,
            oom_score: self.oom_score_adj.map(|score| score.to_string()),
            cgroup: self.cgroup.map(|path| open_cgroup(&path)).transpose()?,
        })
    }
}

fn mask(processors: &[usize]) -> Result<Vec<usize>, Errno> {
    let highest = processors.iter().copied().max().ok_or(Errno::EINVAL)?;
    if highest >= PROCESSORS {
        return Err(Errno::EINVAL);
    }
    let bits = usize::BITS as usize;
    let mut words = vec![0; highest / bits + 1];
    for &processor in processors {
        words[processor / bits] |= 1 << (processor % bits);
    }
    Ok(words)
}

fn open_cgroup(path: &[u8]) -> Result<std::os::fd::OwnedFd, Errno> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    open(Path::new(OsStr::from_bytes(path)), flags, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_processors_becomes_a_mask() {
        assert_eq!(mask(&[0, 2]).unwrap(), [5]);
        assert_eq!(mask(&[65]).unwrap(), [0, 2]);
    }

    #[test]
    fn no_processor_and_impossible_ones_are_refused() {
        assert_eq!(mask(&[]), Err(Errno::EINVAL));
        assert_eq!(mask(&[1 << 40]), Err(Errno::EINVAL));
    }
}

//! What is to be run and how, as the layers above say it. Strings come as blocks, elements joined
//! by NUL, so that many of them cost one allocation.

use std::os::fd::RawFd;

use super::limits::Limits;

/// A program to run.
#[derive(Debug, Default)]
pub struct Command {
    /// A path, or a name to look for in the child's `PATH`.
    pub file: Vec<u8>,
    /// A block with the arguments, the program's name first.
    pub arguments: Vec<u8>,
    /// The child's environment.
    pub environment: Environment,
    /// The child's working directory, if not ours.
    pub directory: Option<Vec<u8>>,
    /// What the child's descriptors 0, 1, 2 and so on are. Missing ones of the first three are
    /// ignored, and no other descriptor reaches the child.
    pub stdio: Vec<Stdio>,
    /// Whether the child leads a session of its own.
    pub detached: bool,
    /// The user the child runs as.
    pub uid: Option<u32>,
    /// The group the child runs as.
    pub gid: Option<u32>,
    /// Whether the child is killed when this process ends, however that happens.
    pub die_with_parent: bool,
    /// What the child may use.
    pub limits: Limits,
}

/// An environment.
#[derive(Debug, PartialEq, Eq)]
pub enum Environment {
    /// Ours, with a block of entries that replace those of the same name. For the thread that
    /// alone changes the environment.
    Inherited {
        /// Entries `NAME=value`.
        overrides: Vec<u8>,
    },
    /// A block of entries `NAME=value`; an empty block is an empty environment.
    Only(Vec<u8>),
}

impl Default for Environment {
    fn default() -> Environment {
        Environment::Inherited {
            overrides: Vec::new(),
        }
    }
}

/// One of the child's descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stdio {
    /// `/dev/null` for 0, 1 and 2, nothing for the rest.
    Ignore,
    /// One end of a new socket pair; the other is ours.
    Pipe,
    /// As `Pipe`, with more room for what the child has sent and we have not read.
    Channel,
    /// A descriptor of ours.
    Inherit(RawFd),
}

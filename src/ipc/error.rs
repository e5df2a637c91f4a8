//! What a peer can do wrong, one variant each. The texts are meant for the `error` event of the
//! child that did it; turning them into JavaScript errors is left to `binding`.

use std::error::Error;
use std::fmt;

use nix::errno::Errno;

/// Why a channel can receive nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveError {
    /// A message is longer than the limit. `size` is what is known of it: the announced length,
    /// or the bytes of an endless line so far.
    MessageTooLarge {
        /// Bytes announced or seen.
        size: usize,
        /// The limit that was exceeded.
        limit: usize,
    },
    /// A length prefix of zero.
    EmptyFrame,
    /// The peer closed the channel in the middle of a message.
    TruncatedFrame {
        /// Bytes of the unfinished message that did arrive.
        received: usize,
    },
    /// More descriptors arrived than messages that could own them.
    UnexpectedDescriptors {
        /// How many waited for an owner.
        waiting: usize,
        /// The limit that was exceeded.
        limit: usize,
    },
    /// The peer keeps asking for replies (to handles it announces) and does not read them.
    UnreadReplies {
        /// Bytes of replies that wait.
        waiting: usize,
        /// The limit that was exceeded.
        limit: usize,
    },
    /// A frame of brood's own protocol that no brood sends; what is wrong with it.
    Frame(&'static str),
    /// The kernel refused to read.
    System(Errno),
}

impl fmt::Display for ReceiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MessageTooLarge { size, limit } => {
                write!(
                    f,
                    "peer sent a message of {size} bytes or more, the limit is {limit}"
                )
            }
            Self::EmptyFrame => write!(f, "peer sent a message length of zero"),
            Self::TruncatedFrame { received } => {
                write!(
                    f,
                    "peer closed the channel {received} bytes into an unfinished message"
                )
            }
            Self::UnexpectedDescriptors { waiting, limit } => write!(
                f,
                "peer sent {waiting} descriptors that belong to no message, the limit is {limit}"
            ),
            Self::UnreadReplies { waiting, limit } => {
                write!(
                    f,
                    "peer left {waiting} bytes of replies unread, the limit is {limit}"
                )
            }
            Self::Frame(what) => write!(f, "peer sent a frame that {what}"),
            Self::System(errno) => write!(f, "reading the channel failed: {}", errno.desc()),
        }
    }
}

impl Error for ReceiveError {}

//! The messages of a lane, the socket between the dispatcher and one brood worker: sixteen bytes,
//! each message sent by one call and so received by one, together with its descriptors. Sending
//! and receiving are left to the two ends.

use std::error::Error;
use std::fmt;

/// Bytes of every message.
pub const FRAME: usize = 16;

/// Most connections, or permits, of one message.
pub const MAX_CONNECTIONS: usize = 64;

const BOARD: u32 = 1;
const CONNECTIONS: u32 = 2;
const LISTENER: u32 = 3;
const PERMITS: u32 = 4;

/// One message: four little-endian words, which are its kind, a listener's number, a sequence
/// number and how many it is about, descriptors for most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Always the first message and never another; its one descriptor is the scoreboard.
    Board,
    /// Connections, whose descriptors come in the order of their sequence numbers: `first`,
    /// `first + 1` and so on, wrapping around.
    Connections {
        /// The listener that has accepted them.
        listener: u32,
        /// Sequence number of the first.
        first: u32,
        /// How many, 1 to [`MAX_CONNECTIONS`].
        count: u32,
    },
    /// A listening socket, whose descriptor comes with it: before the first permits for it, and
    /// again after the worker has closed it.
    Listener {
        /// Its number.
        listener: u32,
    },
    /// The worker may accept so many connections of a listening socket it has got, each under a
    /// sequence number as above. No descriptor comes with it.
    Permits {
        /// The listener.
        listener: u32,
        /// Sequence number of the first.
        first: u32,
        /// How many, 1 to [`MAX_CONNECTIONS`].
        count: u32,
    },
}

/// What can be wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// It has not [`FRAME`] bytes but so many.
    Length(usize),
    /// A kind nobody knows.
    Kind(u32),
    /// So many do not belong to a message of this kind.
    Count(u32),
    /// A board with a listener, or a board or listener with a sequence number.
    NotEmpty,
}

impl Frame {
    /// How many descriptors come with it.
    pub fn descriptors(self) -> usize {
        match self {
            Frame::Board | Frame::Listener { .. } => 1,
            Frame::Connections { count, .. } => count as usize,
            Frame::Permits { .. } => 0,
        }
    }

    /// The message's bytes.
    pub fn encode(self) -> [u8; FRAME] {
        let words = match self {
            Frame::Board => [BOARD, 0, 0, 1],
            Frame::Connections {
                listener,
                first,
                count,
            } => [CONNECTIONS, listener, first, count],
            Frame::Listener { listener } => [LISTENER, listener, 0, 1],
            Frame::Permits {
                listener,
                first,
                count,
            } => [PERMITS, listener, first, count],
        };
        let mut bytes = [0; FRAME];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The message that `bytes` are.
    ///
    /// # Errors
    /// When they are none.
    pub fn decode(bytes: &[u8]) -> Result<Frame, FrameError> {
        let bytes: &[u8; FRAME] = bytes
            .try_into()
            .map_err(|_| FrameError::Length(bytes.len()))?;
        let word = |i: usize| u32::from_le_bytes(std::array::from_fn(|byte| bytes[4 * i + byte]));
        let (listener, first, count) = (word(1), word(2), word(3));
        match word(0) {
            BOARD | LISTENER if count != 1 => Err(FrameError::Count(count)),
            BOARD if (listener, first) != (0, 0) => Err(FrameError::NotEmpty),
            BOARD => Ok(Frame::Board),
            LISTENER if first != 0 => Err(FrameError::NotEmpty),
            LISTENER => Ok(Frame::Listener { listener }),
            CONNECTIONS | PERMITS if !(1..=MAX_CONNECTIONS).contains(&(count as usize)) => {
                Err(FrameError::Count(count))
            }
            PERMITS => Ok(Frame::Permits {
                listener,
                first,
                count,
            }),
            CONNECTIONS => Ok(Frame::Connections {
                listener,
                first,
                count,
            }),
            kind => Err(FrameError::Kind(kind)),
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(f, "a message of {bytes} bytes instead of {FRAME}"),
            Self::Kind(kind) => write!(f, "a message of the unknown kind {kind}"),
            Self::Count(count) => write!(f, "a message that announces {count} of its kind"),
            Self::NotEmpty => write!(f, "a scoreboard or listener that claims to be a connection"),
        }
    }
}

impl Error for FrameError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_four_little_endian_words() {
        let frame = Frame::Connections {
            listener: 0x0102_0304,
            first: u32::MAX,
            count: 64,
        };
        let bytes = [2, 0, 0, 0, 4, 3, 2, 1, 255, 255, 255, 255, 64, 0, 0, 0];
        assert_eq!(frame.encode(), bytes);
        let board = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
        assert_eq!(Frame::Board.encode(), board);
    }

    fn words(words: [u32; 4]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_wrong_is_named() {
        for length in (0..40).filter(|&length| length != FRAME) {
            let decoded = Frame::decode(&vec![1; length]);
            assert_eq!(decoded, Err(FrameError::Length(length)));
        }
        for kind in [0, 5, 256, u32::MAX] {
            let decoded = Frame::decode(&words([kind, 0, 0, 1]));
            assert_eq!(decoded, Err(FrameError::Kind(kind)));
        }
        for (kind, count) in [CONNECTIONS, PERMITS]
            .into_iter()
            .flat_map(|kind| [0, 65, u32::MAX].map(|count| (kind, count)))
        {
            let decoded = Frame::decode(&words([kind, 0, 0, count]));
            assert_eq!(decoded, Err(FrameError::Count(count)));
        }
        for (kind, count) in [(BOARD, 0), (BOARD, 2), (LISTENER, 0), (LISTENER, 2)] {
            let decoded = Frame::decode(&words([kind, 0, 0, count]));
            assert_eq!(decoded, Err(FrameError::Count(count)));
        }
        for (kind, listener, first) in [(BOARD, 1, 0), (BOARD, 0, 1), (LISTENER, 1, 1)] {
            let decoded = Frame::decode(&words([kind, listener, first, 1]));
            assert_eq!(decoded, Err(FrameError::NotEmpty));
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(listener: u32, first: u32, count in 1u32..=64) {
            let frame = Frame::Connections { listener, first, count };
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
            let frame = Frame::Permits { listener, first, count };
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
            let frame = Frame::Listener { listener };
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(frame));
            prop_assert_eq!(Frame::decode(&Frame::Board.encode()), Ok(Frame::Board));
        }

        #[test]
        fn what_is_decoded_has_one_encoding(kind in 0u32..6, rest: [u32; 2], count in 0u32..70) {
            let bytes = words([kind, rest[0], rest[1], count]);
            if let Ok(frame) = Frame::decode(&bytes) {
                prop_assert_eq!(&frame.encode()[..], bytes);
                prop_assert!(frame.descriptors() <= MAX_CONNECTIONS);
            }
        }
    }
}

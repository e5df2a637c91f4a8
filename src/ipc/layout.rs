//! The layout of brood's own frames, which replace Node's protocol once both ends have agreed to
//! (`upgrade`): a header of sixteen bytes, then the payload it announces. Pure; who may send which
//! frame when is left to `batch_queue` and `batch_reader`.
//!
//! All numbers are little-endian. Byte 0 is the kind, byte 1 zero, then the number of descriptors
//! that travel with the frame's first byte (16 bits), the bytes of payload, the number of messages
//! in it, and the frame's number (32 bits each). Frames with messages are numbered from zero;
//! any other carries the number of the frame it is about.

use super::Framing;
use super::error::ReceiveError;

/// Bytes of a header.
pub(crate) const HEADER: usize = 16;
/// Most bytes of payload in a frame of several messages.
pub(crate) const MAX_BATCH: usize = 64 * 1024;
/// Most descriptors one frame may have, below what Linux lets travel with one message.
pub(crate) const MAX_DESCRIPTORS: usize = 128;
/// Bytes of the length before each serialized value.
pub(crate) const VALUE_PREFIX: usize = 4;
/// Bytes of an entry in the table behind the value of a [`Kind::Placed`].
pub(crate) const PIECE: usize = 12;
/// Most entries of such a table.
pub(crate) const MAX_PIECES: usize = 128;

/// What a frame carries, or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Messages alone.
    Messages(Framing),
    /// Messages that have a handle each.
    Handles(Framing),
    /// One serialized value with the memory its buffers lie in.
    Shared,
    /// One serialized value, and a table of where its buffers lie: a [`Piece`] for each.
    Placed,
    /// What was in this area of the receiver's is copied.
    Release,
    /// The sender will not use this area of its own any more.
    Drop,
    /// All frames with descriptors up to this number have arrived.
    Acknowledge,
    /// The descriptors of this frame are missing.
    Refuse,
    /// The descriptors of a refused frame, again.
    Again,
    /// The descriptors of a refused frame will not come: its messages are void.
    GiveUp,
    /// The receiver has given this frame up.
    Abandon,
    /// Replies to the handle that was sent last by Node's protocol.
    StockAcknowledge,
    StockRefuse,
}

const KINDS: [Kind; 15] = [
    Kind::Messages(Framing::JsonLines),
    Kind::Messages(Framing::Advanced),
    Kind::Handles(Framing::JsonLines),
    Kind::Handles(Framing::Advanced),
    Kind::Shared,
    Kind::Acknowledge,
    Kind::Refuse,
    Kind::Again,
    Kind::GiveUp,
    Kind::Abandon,
    Kind::StockAcknowledge,
    Kind::StockRefuse,
    Kind::Placed,
    Kind::Release,
    Kind::Drop,
];

impl Kind {
    /// How the messages in it are encoded, if it has any.
    pub fn encoding(self) -> Option<Framing> {
        match self {
            Kind::Messages(encoding) | Kind::Handles(encoding) => Some(encoding),
            Kind::Shared | Kind::Placed => Some(Framing::Advanced),
            _ => None,
        }
    }

    /// Whether only peers that have agreed on areas send it.
    pub fn needs_areas(self) -> bool {
        matches!(self, Kind::Placed | Kind::Release | Kind::Drop)
    }

    fn code(self) -> u8 {
        KINDS
            .iter()
            .position(|&kind| kind == self)
            .map_or(0, |at| at as u8 + 1)
    }

    fn from_code(code: u8) -> Option<Kind> {
        KINDS.get(usize::from(code).checked_sub(1)?).copied()
    }
}

/// What the bytes of an area are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// A buffer's.
    Bytes,
    /// Of a text in UTF-8.
    Utf8,
    /// Of a text with a byte for each unit.
    Latin1,
}

/// Where a large buffer or text of a message lies, beside the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// In sealed memory of its own, the next of the frame's descriptors.
    File,
    /// At the start of one of the sender's areas. A new one's is the next of the descriptors.
    Area {
        number: u32,
        length: u32,
        content: Content,
        is_new: bool,
    },
}

const CONTENTS: [Content; 3] = [Content::Bytes, Content::Utf8, Content::Latin1];

impl Piece {
    /// As it stands in the table: the number of the area, the length, where it lies, what it is,
    /// and two bytes of zero.
    pub fn encode(&self) -> [u8; PIECE] {
        let (number, length, place, content) = match *self {
            Piece::File => (0, 0, 0, Content::Bytes),
            Piece::Area {
                number,
                length,
                content,
                is_new,
            } => (number, length, 1 + u8::from(is_new), content),
        };
        let content = CONTENTS.iter().position(|&known| known == content);
        let mut bytes = [0; PIECE];
        bytes[..4].copy_from_slice(&number.to_le_bytes());
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8] = place;
        bytes[9] = content.unwrap_or_default() as u8;
        bytes
    }

    /// Reads an entry; `None` for what [`encode`](Self::encode) does not write, or no bytes.
    pub fn decode(bytes: &[u8; PIECE]) -> Option<Piece> {
        let number_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let content = *CONTENTS.get(usize::from(bytes[9]))?;
        let piece = match bytes[8] {
            0 => Piece::File,
            place @ 1..=2 => Piece::Area {
                number: number_at(0),
                length: number_at(4),
                content,
                is_new: place == 2,
            },
            _ => return None,
        };
        let is_empty = matches!(piece, Piece::Area { length: 0, .. });
        (!is_empty && piece.encode() == *bytes).then_some(piece)
    }

    /// Whether one of the frame's descriptors belongs to it.
    pub fn has_descriptor(&self) -> bool {
        !matches!(self, Piece::Area { is_new: false, .. })
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    pub descriptors: u16,
    pub length: u32,
    pub messages: u32,
    pub number: u32,
}

impl Header {
    /// The header of a frame that only says something about frame `number`.
    pub fn control(kind: Kind, number: u32, descriptors: u16) -> Header {
        Header {
            kind,
            descriptors,
            length: 0,
            messages: 0,
            number,
        }
    }

    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = self.kind.code();
        bytes[2..4].copy_from_slice(&self.descriptors.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.messages.to_le_bytes());
        bytes[12..].copy_from_slice(&self.number.to_le_bytes());
        bytes
    }

    /// Reads a header and checks all that can be told from it alone; `limit` is the longest
    /// message's.
    pub fn decode(bytes: &[u8; HEADER], limit: usize) -> Result<Header, ReceiveError> {
        let number_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let kind = Kind::from_code(bytes[0]).filter(|_| bytes[1] == 0);
        let header = Header {
            kind: kind.ok_or(ReceiveError::Frame("is of an unknown kind"))?,
            descriptors: u16::from_le_bytes([bytes[2], bytes[3]]),
            length: number_at(4),
            messages: number_at(8),
            number: number_at(12),
        };
        header.check(limit)?;
        Ok(header)
    }

    fn check(&self, limit: usize) -> Result<(), ReceiveError> {
        let (length, messages) = (self.length as usize, self.messages as usize);
        let descriptors = usize::from(self.descriptors);
        let expects_descriptors = match self.kind {
            Kind::Handles(_) => descriptors == messages,
            Kind::Shared => descriptors > 0 && messages == 1,
            Kind::Placed => messages == 1,
            Kind::Again => descriptors > 0,
            _ => descriptors == 0,
        };
        if !expects_descriptors || descriptors > MAX_DESCRIPTORS {
            return Err(ReceiveError::Frame("has a wrong number of descriptors"));
        }
        let Some(encoding) = self.kind.encoding() else {
            return match (length, messages) {
                (0, 0) => Ok(()),
                _ => Err(ReceiveError::Frame("carries what its kind does not")),
            };
        };
        let framing = match encoding {
            Framing::JsonLines => 1,
            Framing::Advanced => VALUE_PREFIX,
        };
        // An empty message is refused where messages are told apart.
        if messages == 0 || length < messages.saturating_mul(framing) {
            return Err(ReceiveError::Frame("has a wrong number of messages"));
        }
        let most = if self.kind == Kind::Placed {
            limit + framing + MAX_PIECES * PIECE
        } else if messages == 1 {
            limit + framing
        } else {
            MAX_BATCH
        };
        if length > most {
            let (size, limit) = (length, most);
            return Err(ReceiveError::MessageTooLarge { size, limit });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_piece_that_is_accepted_is_what_its_sender_wrote(
            bytes: [u8; PIECE],
            place in 0u8..4,
            content in 0u8..4,
            zero: bool,
        ) {
            let mut bytes = bytes;
            if zero {
                bytes = [0; PIECE];
            }
            bytes[8..].copy_from_slice(&[place, content, 0, 0]);
            if let Some(piece) = Piece::decode(&bytes) {
                prop_assert_eq!(piece.encode(), bytes);
            }
        }

        #[test]
        fn every_piece_can_be_read_again(number: u32, length in 1u32.., index in 0usize..3, is_new: bool) {
            let content = CONTENTS[index];
            let area = Piece::Area { number, length, content, is_new };
            for piece in [area, Piece::File] {
                prop_assert_eq!(Piece::decode(&piece.encode()), Some(piece));
            }
        }

        #[test]
        fn whatever_is_accepted_is_what_its_sender_wrote(bytes: [u8; HEADER], kind in 0u8..20) {
            let mut bytes = bytes;
            bytes[0] = kind;
            bytes[1] = 0;
            if let Ok(header) = Header::decode(&bytes, 1000) {
                prop_assert_eq!(header.encode(), bytes);
            }
        }
    }

    #[test]
    fn every_kind_has_a_code_of_its_own() {
        for kind in KINDS {
            assert_eq!(Kind::from_code(kind.code()), Some(kind));
        }
        assert_eq!(Kind::from_code(0), None);
        assert_eq!(Kind::from_code(KINDS.len() as u8 + 1), None);
    }

    fn refused(change: impl FnOnce(&mut Header)) -> bool {
        let mut header = Header {
            kind: Kind::Handles(Framing::JsonLines),
            descriptors: 2,
            length: 20,
            messages: 2,
            number: 7,
        };
        change(&mut header);
        Header::decode(&header.encode(), 100).is_err()
    }

    #[test]
    fn a_header_that_contradicts_itself_is_refused() {
        assert!(!refused(|_| {}));
        assert!(refused(|header| header.descriptors = 1));
        assert!(refused(|header| header.messages = 0));
        assert!(refused(|header| header.length = 1));
        assert!(refused(|header| header.length = MAX_BATCH as u32 + 1));
        assert!(refused(
            |header| header.kind = Kind::Messages(Framing::JsonLines)
        ));
        assert!(refused(|header| header.kind = Kind::Shared));
        assert!(refused(|header| header.kind = Kind::Placed));
        assert!(refused(|header| header.kind = Kind::Release));
        assert!(refused(|header| header.kind = Kind::Acknowledge));
        assert!(refused(|header| {
            header.kind = Kind::Messages(Framing::Advanced);
            (header.descriptors, header.messages, header.length) = (0, 1, 105);
        }));
    }
}

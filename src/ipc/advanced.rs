//! `advanced` framing: length prefixes, and just enough of V8's serialization format to recognise
//! the control messages. Everything else is left to V8's deserializer.
//!
//! The format: header FF and a version, then one tagged value. An object is 'o', then keys and
//! values, then '{' and the number of properties. A string is '"' (Latin-1), 'c' (UTF-16LE) or 'S'
//! (UTF-8), its length in bytes as a base-128 number, its bytes; zero bytes before a tag pad.

use super::control::Control;
use super::error::ReceiveError;

/// Bytes of the length before each payload.
pub(crate) const PREFIX: usize = 4;

/// Stock readers take the length for a signed number.
pub(crate) const MAX_PAYLOAD: usize = i32::MAX as usize;

/// What the serializer of Node 20 to 26 (format version 15) makes of the replies to a handle.
pub(crate) const ACK: &[u8] = b"\xff\x0fo\"\x03cmd\"\x0fNODE_HANDLE_ACK{\x01";
pub(crate) const NACK: &[u8] = b"\xff\x0fo\"\x03cmd\"\x10NODE_HANDLE_NACK{\x01";

/// Finds the frames that are whole in `bytes[start..]` and appends the ends of their payloads to
/// `ends`; `start` becomes that of the unfinished one.
pub(crate) fn split(
    bytes: &[u8],
    start: &mut usize,
    limit: usize,
    ends: &mut Vec<u32>,
) -> Result<(), ReceiveError> {
    while let Some((prefix, rest)) = bytes[*start..].split_first_chunk::<PREFIX>() {
        let size = u32::from_be_bytes(*prefix) as usize;
        if size == 0 {
            return Err(ReceiveError::EmptyFrame);
        }
        if size > limit {
            return Err(ReceiveError::MessageTooLarge { size, limit });
        }
        if rest.len() < size {
            break;
        }
        *start += PREFIX + size;
        ends.push(*start as u32);
    }
    Ok(())
}

/// The control message that this payload is, if its object begins with a `cmd` that says so; Node
/// writes it first.
pub(crate) fn control(payload: &[u8]) -> Option<Control> {
    let mut cursor = Cursor(payload);
    cursor.tag(0xff)?;
    cursor.number()?;
    cursor.tag(b'o')?;
    if !cursor.string()?.is("cmd") {
        return None;
    }
    let cmd = cursor.string()?;
    [Control::Handle, Control::Ack, Control::Nack]
        .into_iter()
        .find(|c| cmd.is(c.cmd()))
}

/// A string in one of the three encodings.
enum Text<'a> {
    /// Latin-1 or UTF-8: the same for the ASCII we look for.
    Narrow(&'a [u8]),
    /// UTF-16, little-endian.
    Wide(&'a [u8]),
}

impl Text<'_> {
    /// Whether it is this ASCII text.
    fn is(&self, ascii: &str) -> bool {
        match self {
            Text::Narrow(bytes) => *bytes == ascii.as_bytes(),
            Text::Wide(bytes) => {
                let units = bytes.chunks(2).map(|unit| (unit[0], unit.get(1).copied()));
                units.eq(ascii.bytes().map(|byte| (byte, Some(0))))
            }
        }
    }
}

/// The unread rest of a payload. Every method returns `None` for what it does not understand.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A tag after any padding.
    fn any_tag(&mut self) -> Option<u8> {
        loop {
            match self.byte()? {
                0 => {}
                tag => return Some(tag),
            }
        }
    }

    fn tag(&mut self, wanted: u8) -> Option<()> {
        (self.any_tag()? == wanted).then_some(())
    }

    /// A base-128 number, least significant group first.
    fn number(&mut self) -> Option<usize> {
        let mut number = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number as usize);
            }
        }
        None
    }

    fn string(&mut self) -> Option<Text<'a>> {
        let tag = self.any_tag()?;
        let length = self.number()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        match tag {
            b'"' | b'S' => Some(Text::Narrow(bytes)),
            b'c' => Some(Text::Wide(bytes)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(text: &str) -> Vec<u8> {
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        [&[b'c', units.len() as u8][..], &units].concat()
    }

    #[test]
    fn what_node_writes_is_recognised() {
        assert_eq!(control(ACK), Some(Control::Ack));
        assert_eq!(control(NACK), Some(Control::Nack));
        let handle =
            b"\xff\x0fo\"\x03cmd\"\x0bNODE_HANDLE\"\x04type\"\x0anet.Socket\"\x03msg0{\x03";
        assert_eq!(control(handle), Some(Control::Handle));
    }

    #[test]
    fn two_byte_and_utf8_strings_are_understood() {
        let payload = [
            b"\xff\x0eo\0",
            &wide("cmd")[..],
            b"\0",
            &wide("NODE_HANDLE_NACK"),
        ]
        .concat();
        assert_eq!(control(&payload), Some(Control::Nack));
        assert_eq!(
            control(b"\xff\x0foS\x03cmdS\x0bNODE_HANDLE"),
            Some(Control::Handle)
        );
    }

    #[test]
    fn what_is_not_understood_is_no_control_message() {
        for payload in [
            &b""[..],
            b"\xff",
            b"\xff\x0f",
            b"\xff\xff\xff\xff\xff\xff\xffo",
            b"\xff\x0f\"\x0bNODE_HANDLE",
            b"\xff\x0fo\"\x04type\"\x01x\"\x03cmd\"\x0bNODE_HANDLE",
            b"\xff\x0fo\"\x03cmd\"\x0cNODE_HANDLE_",
            b"\xff\x0fo\"\x03cmd\"\xffNODE_HANDLE",
            b"\xff\x0fo\"\x03cmdI\x02",
            b"\xff\x0foc\x03cmd",
        ] {
            assert_eq!(control(payload), None, "{payload:?}");
        }
    }

    #[test]
    fn every_prefix_of_a_control_message_is_read_without_panic() {
        for end in 0..NACK.len() {
            let whole = end >= NACK.len() - 2;
            assert_eq!(control(&NACK[..end]).is_some(), whole, "{end} bytes");
        }
    }

    #[test]
    fn a_length_of_zero_or_above_the_limit_is_refused_before_the_payload_is_there() {
        let mut ends = Vec::new();
        let (mut start, bytes) = (0, b"\0\0\0\x01x\0\0\0\0");
        assert_eq!(
            split(bytes, &mut start, 9, &mut ends),
            Err(ReceiveError::EmptyFrame)
        );
        assert_eq!(
            (start, &ends[..]),
            (5, &[5][..]),
            "the frame before it is kept"
        );
        let refused = Err(ReceiveError::MessageTooLarge { size: 10, limit: 9 });
        assert_eq!(split(b"\0\0\0\x0a", &mut 0, 9, &mut ends), refused);
        assert_eq!(split(b"\0\0\0\x09", &mut 0, 9, &mut ends), Ok(()));
    }
}

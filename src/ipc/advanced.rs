//! `advanced` framing: length prefixes, and which payloads are control messages. Everything else is
//! left to V8's deserializer.

use super::control::Control;
use super::error::ReceiveError;
use super::v8_value::V8Reader;

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
    let mut value = V8Reader::new(payload)?;
    value.begin_object()?;
    if !value.string()?.is("cmd") {
        return None;
    }
    let cmd = value.string()?;
    [Control::Handle, Control::Ack, Control::Nack]
        .into_iter()
        .find(|c| cmd.is(c.cmd()))
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

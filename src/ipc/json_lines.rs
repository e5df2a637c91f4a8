//! JSON framing: finds the lines of a chunk and the control messages among them. Everything that
//! is not a control message is passed over unparsed; JavaScript parses it.

use std::fmt;
use std::ops::Range;

use memchr::memmem::Finder;
use memchr::{memchr_iter, memmem};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use super::control::Control;
use super::error::ReceiveError;

/// What Node's `JSON.stringify` makes of the replies to a handle.
pub(crate) const ACK: &[u8] = br#"{"cmd":"NODE_HANDLE_ACK"}"#;
pub(crate) const NACK: &[u8] = br#"{"cmd":"NODE_HANDLE_NACK"}"#;

/// Finds the newlines in `bytes[from..]` and appends their positions to `ends`. `start` is the
/// start of the line that `from` lies in; returns that of the unfinished line at the end.
pub(crate) fn split(
    bytes: &[u8],
    from: usize,
    start: &mut usize,
    limit: usize,
    ends: &mut Vec<u32>,
) -> Result<(), ReceiveError> {
    for found in memchr_iter(b'\n', &bytes[from..]) {
        let end = from + found;
        check(end - *start, limit)?;
        ends.push(end as u32);
        *start = end + 1;
    }
    check(bytes.len() - *start, limit)
}

fn check(size: usize, limit: usize) -> Result<(), ReceiveError> {
    if size <= limit {
        Ok(())
    } else {
        Err(ReceiveError::MessageTooLarge { size, limit })
    }
}

/// Searches lines for control messages.
#[derive(Debug)]
pub(crate) struct ControlSearch {
    name: Finder<'static>,
}

impl ControlSearch {
    pub fn new() -> Self {
        ControlSearch {
            name: Finder::new(Control::NEEDLE),
        }
    }

    /// Appends the control messages among the lines `first..` of `ends` to `controls`. The search
    /// is one pass over all lines together, unless `thorough`: then names written with escapes
    /// (`\u004eODE_HANDLE`) are found, too. That is worth while only when a control message is
    /// likely, and no peer known to us needs it.
    pub fn search(
        &self,
        bytes: &[u8],
        ends: &[u32],
        first: usize,
        thorough: bool,
        controls: &mut Vec<(usize, Control)>,
    ) {
        let mut next = first;
        while let Some(index) = self.next_candidate(bytes, ends, next, thorough) {
            if let Some(control) = control(&bytes[line(ends, index)]) {
                controls.push((index, control));
            }
            next = index + 1;
        }
    }

    /// The first line from `next` on that may be a control message.
    fn next_candidate(
        &self,
        bytes: &[u8],
        ends: &[u32],
        next: usize,
        thorough: bool,
    ) -> Option<usize> {
        if next == ends.len() {
            return None;
        }
        if thorough {
            return (next..ends.len()).find(|&index| {
                let line = &bytes[line(ends, index)];
                self.name.find(line).is_some() || memmem::find(line, br"\u00").is_some()
            });
        }
        let from = line(ends, next).start;
        let until = line(ends, ends.len() - 1).end;
        let position = from + self.name.find(&bytes[from..until])?;
        Some(next + ends[next..].partition_point(|&end| (end as usize) < position))
    }
}

/// Where line `index` lies, given that the first begins at 1.
pub(crate) fn line(ends: &[u32], index: usize) -> Range<usize> {
    let before = if index == 0 {
        0
    } else {
        ends[index - 1] as usize
    };
    before + 1..ends[index] as usize
}

/// The control message that this line is, if any. As in JavaScript, the last `cmd` of an object
/// counts, and neither order nor whitespace matters.
pub(crate) fn control(line: &[u8]) -> Option<Control> {
    let mut json = serde_json::Deserializer::from_slice(line);
    let control = json.deserialize_map(Envelope).ok()?;
    json.end().ok()?;
    control
}

/// Reads an object for its `cmd` alone.
struct Envelope;

impl<'de> Visitor<'de> for Envelope {
    type Value = Option<Control>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut control = None;
        while let Some(is_cmd) = map.next_key_seed(Text(|key: &str| key == "cmd"))? {
            if is_cmd {
                control = map.next_value_seed(Text(Control::from_cmd))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(control)
    }
}

/// Reads a string and passes it on without keeping it. Anything else is an error.
struct Text<F>(F);

impl<'de, R, F: FnOnce(&str) -> R> DeserializeSeed<'de> for Text<F> {
    type Value = R;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<R, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de, R, F: FnOnce(&str) -> R> Visitor<'de> for Text<F> {
    type Value = R;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<R, E> {
        Ok((self.0)(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> (Vec<u8>, Vec<u32>) {
        let bytes = [b"[", text.as_bytes()].concat();
        let mut ends = Vec::new();
        split(&bytes, 1, &mut 1, usize::MAX, &mut ends).unwrap();
        (bytes, ends)
    }

    fn found(text: &str, thorough: bool) -> Vec<(usize, Control)> {
        let (bytes, ends) = lines(text);
        let mut controls = Vec::new();
        ControlSearch::new().search(&bytes, &ends, 0, thorough, &mut controls);
        controls
    }

    #[test]
    fn what_node_writes_is_recognised() {
        assert_eq!(control(ACK), Some(Control::Ack));
        assert_eq!(control(NACK), Some(Control::Nack));
        let handle = br#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":{"cmd":"x"},"key":"4"}"#;
        assert_eq!(control(handle), Some(Control::Handle));
    }

    #[test]
    fn key_order_and_whitespace_do_not_matter() {
        let line = b" { \"msg\" : [1, {\"cmd\": 2}], \"cmd\"\t:\r\n\"NODE_HANDLE\" } ";
        assert_eq!(control(line), Some(Control::Handle));
    }

    #[test]
    fn the_last_of_several_cmds_counts() {
        assert_eq!(control(br#"{"cmd":"NODE_HANDLE","cmd":"x"}"#), None);
        assert_eq!(
            control(br#"{"cmd":"x","cmd":"NODE_HANDLE"}"#),
            Some(Control::Handle)
        );
    }

    #[test]
    fn the_name_elsewhere_in_a_message_means_nothing() {
        for line in [
            r#""NODE_HANDLE""#,
            r#"["cmd","NODE_HANDLE"]"#,
            r#"{"msg":{"cmd":"NODE_HANDLE"}}"#,
            r#"{"cmd":"NODE_HANDLE_"}"#,
            r#"{"cmd":"xNODE_HANDLE"}"#,
            r#"{"cmd":["NODE_HANDLE"]}"#,
            r#"{"NODE_HANDLE":"cmd"}"#,
            r#"{"cmd":"NODE_HANDLE"} {}"#,
            r#"{"cmd":"NODE_HANDLE""#,
        ] {
            assert_eq!(control(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn unpaired_surrogates_and_numbers_out_of_range_elsewhere_do_not_hide_a_handle() {
        let line = br#"{"msg":{"\ud800":"\udfff","n":1e999},"cmd":"NODE_HANDLE"}"#;
        assert_eq!(control(line), Some(Control::Handle));
        let deep = [
            &b"{\"msg\":"[..],
            &[b'['; 5000],
            &[b']'; 5000],
            b",\"cmd\":\"NODE_HANDLE\"}",
        ];
        assert_eq!(control(&deep.concat()), Some(Control::Handle));
    }

    #[test]
    fn control_messages_are_found_by_their_index_among_other_lines() {
        let text = format!(
            "1\n{}\n\"NODE_HANDLE\"\n\n{{\"cmd\":\"NODE_HANDLE\"}}\n{}\n2\n",
            std::str::from_utf8(ACK).unwrap(),
            std::str::from_utf8(NACK).unwrap(),
        );
        let expected = [(1, Control::Ack), (4, Control::Handle), (5, Control::Nack)];
        assert_eq!(found(&text, false), expected);
        assert_eq!(found(&text, true), expected);
    }

    #[test]
    fn a_name_split_over_two_lines_is_not_found() {
        assert_eq!(found("{\"cmd\":\"NODE_\nHANDLE\"}\n", false), []);
    }

    #[test]
    fn an_escaped_name_is_found_by_the_thorough_search_only() {
        let text = "3\n{\"\\u0063md\":\"\\u004eODE_HANDLE_ACK\"}\n";
        assert_eq!(found(text, false), []);
        assert_eq!(found(text, true), [(1, Control::Ack)]);
    }

    #[test]
    fn a_line_is_refused_one_byte_above_the_limit_finished_or_not() {
        let mut ends = Vec::new();
        assert_eq!(split(b"\n1234", 0, &mut 0, 4, &mut ends), Ok(()));
        assert_eq!(split(b"\n1234\n", 0, &mut 0, 4, &mut ends), Ok(()));
        let refused = Err(ReceiveError::MessageTooLarge { size: 5, limit: 4 });
        assert_eq!(split(b"\n12345", 0, &mut 0, 4, &mut ends), refused);
        ends.clear();
        assert_eq!(split(b"\n12345\n", 0, &mut 0, 4, &mut ends), refused);
        assert_eq!(ends, [0], "the line before it is kept");
    }
}

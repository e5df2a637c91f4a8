//! Just enough of V8's serialization format for the messages that are read and written without V8:
//! plain objects of strings, small integers and booleans. Pure; everything else in the format is
//! "not understood" and left to V8.
//!
//! The format: header FF and a version, then one tagged value. An object is 'o', then keys and
//! values, then '{' and the number of properties. A string is '"' (Latin-1), 'c' (UTF-16LE) or 'S'
//! (UTF-8), its length in bytes as a base-128 number, its bytes; zero bytes before a tag pad. An
//! integer is 'I' and a base-128 number with the sign in its lowest bit; a boolean 'T' or 'F'.

use std::borrow::Cow;

/// The version that Node 20 to 26 write.
const VERSION: u8 = 15;

/// A string in one of the three encodings.
#[derive(Clone, Copy, Debug)]
pub struct V8Text<'a> {
    encoding: Encoding,
    bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Latin1,
    Utf8,
    Utf16,
}

impl<'a> V8Text<'a> {
    /// Whether it is this ASCII text.
    pub fn is(&self, ascii: &str) -> bool {
        self.as_str() == ascii
    }

    /// The text; what is not valid becomes U+FFFD.
    pub fn as_str(&self) -> Cow<'a, str> {
        match self.encoding {
            Encoding::Latin1 if self.bytes.is_ascii() => String::from_utf8_lossy(self.bytes),
            Encoding::Latin1 => self.bytes.iter().map(|&byte| char::from(byte)).collect(),
            Encoding::Utf8 => String::from_utf8_lossy(self.bytes),
            Encoding::Utf16 => {
                let units = self.bytes.chunks(2).map(|unit| {
                    let high = unit.get(1).copied().unwrap_or_default();
                    u16::from_le_bytes([unit[0], high])
                });
                let text = char::decode_utf16(units);
                text.map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect()
            }
        }
    }
}

/// The unread rest of a serialized value. Every method returns `None` for what it does not
/// understand, after which nothing more should be read.
#[derive(Debug)]
pub struct V8Reader<'a>(&'a [u8]);

impl<'a> V8Reader<'a> {
    /// Reads the header.
    pub fn new(payload: &'a [u8]) -> Option<Self> {
        let mut reader = V8Reader(payload);
        reader.tag(0xff)?;
        reader.number()?;
        Some(reader)
    }

    /// The beginning of an object; [`name`](Self::name) and a value follow by turns.
    pub fn begin_object(&mut self) -> Option<()> {
        self.tag(b'o')
    }

    /// The next property's name; `None` at the end of the object, too.
    pub fn name(&mut self) -> Option<V8Text<'a>> {
        self.string()
    }

    /// A string as it stands.
    pub fn string(&mut self) -> Option<V8Text<'a>> {
        let encoding = match self.any_tag()? {
            b'"' => Encoding::Latin1,
            b'S' => Encoding::Utf8,
            b'c' => Encoding::Utf16,
            _ => return None,
        };
        let length = self.number()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(V8Text { encoding, bytes })
    }

    /// A small integer.
    pub fn integer(&mut self) -> Option<i32> {
        self.tag(b'I')?;
        let zigzag = self.number()?;
        Some((zigzag >> 1) as i32 ^ -((zigzag & 1) as i32))
    }

    /// A boolean.
    pub fn boolean(&mut self) -> Option<bool> {
        match self.any_tag()? {
            b'T' => Some(true),
            b'F' => Some(false),
            _ => None,
        }
    }

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
    fn number(&mut self) -> Option<u32> {
        let mut number = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.byte()?;
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

/// Writes a serialized value.
#[derive(Debug)]
pub struct V8Writer(Vec<u8>);

impl Default for V8Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl V8Writer {
    /// Begins with the header.
    pub fn new() -> Self {
        V8Writer(vec![0xff, VERSION])
    }

    /// Begins an object; names and values follow by turns.
    pub fn begin_object(&mut self) -> &mut Self {
        self.0.push(b'o');
        self
    }

    /// Ends an object that has this many properties.
    pub fn end_object(&mut self, properties: u32) -> &mut Self {
        self.0.push(b'{');
        self.number(properties)
    }

    /// A string.
    pub fn string(&mut self, text: &str) -> &mut Self {
        if text.is_ascii() {
            self.0.push(b'"');
            self.number(text.len() as u32);
            self.0.extend_from_slice(text.as_bytes());
            return self;
        }
        let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        // V8 reads two-byte strings at even positions only; padding goes before the tag.
        let header = 1 + base_128_size(units.len() as u32);
        if (self.0.len() + header) % 2 == 1 {
            self.0.push(0);
        }
        self.0.push(b'c');
        self.number(units.len() as u32);
        self.0.extend_from_slice(&units);
        self
    }

    /// An integer.
    pub fn integer(&mut self, value: i32) -> &mut Self {
        self.0.push(b'I');
        self.number(((value << 1) ^ (value >> 31)) as u32)
    }

    /// The payload.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn number(&mut self, mut value: u32) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }
}

fn base_128_size(value: u32) -> usize {
    (32 - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read_again() {
        for text in ["", "key", "caf\u{e9}", "\u{20ac} and \u{1f600}"] {
            for number in [0, 1, -1, 63, 64, -64, -65, i32::MAX, i32::MIN] {
                let mut writer = V8Writer::new();
                writer.begin_object().string("text").string(text);
                writer.string("number").integer(number).end_object(2);
                let bytes = writer.into_bytes();
                let mut reader = V8Reader::new(&bytes).unwrap();
                reader.begin_object().unwrap();
                assert!(reader.name().unwrap().is("text"));
                assert_eq!(reader.string().unwrap().as_str(), text);
                assert!(reader.name().unwrap().is("number"));
                assert_eq!(reader.integer(), Some(number));
                assert!(reader.name().is_none());
            }
        }
    }

    #[test]
    fn every_prefix_is_read_without_panic() {
        let mut writer = V8Writer::new();
        writer.begin_object().string("\u{20ac}").integer(-5);
        let bytes = writer.end_object(1).0.clone();
        for end in 0..bytes.len() {
            let read = || {
                let mut reader = V8Reader::new(&bytes[..end])?;
                reader.begin_object()?;
                reader.name()?;
                reader.integer()
            };
            assert_eq!(read().is_some(), end >= bytes.len() - 2, "{end} bytes");
        }
    }
}

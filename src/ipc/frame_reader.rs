//! Splits a byte stream into frames. Owns the receive buffer; every byte is scanned once, however
//! the stream is cut into reads. Where the bytes and descriptors come from, and what control
//! messages do, is left to `channel`.

use std::mem;
use std::ops::Range;

use super::Framing;
use super::control::Control;
use super::error::ReceiveError;
use super::json_lines::ControlSearch;
use super::upgrade::{self, Negotiation, Step, Terms};
use super::{advanced, json_lines};

/// Memory first allocated; an idle reader keeps up to twice as much.
const FIRST: usize = 64 * 1024;
/// Room offered to a read, at least.
const ROOM: usize = 16 * 1024;
/// More entries than this are not kept for the ends of the next frames.
const KEEP_ENDS: usize = 64 * 1024;
/// More memory than this is not kept for the next frames, however busy the channel.
const KEEP: usize = 2 * 1024 * 1024;
/// The buffer doubles up to here, then grows by this much: a large message shall not make the
/// process touch twice its size.
const STEP: usize = 32 * 1024 * 1024;

/// Messages in a row that are encoded alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// How: one JSON array of all, or a V8 value each.
    pub encoding: Framing,
    /// Which.
    pub messages: Range<usize>,
    /// Where they lie in the region, with what frames them.
    pub bytes: Range<usize>,
    /// Whether it is JSON in pure ASCII.
    pub ascii: bool,
}

/// Whole frames, cut off the stream.
#[derive(Debug)]
pub struct Frames {
    /// For JSON `[line,line,...]`; for advanced framing the frames as they were sent.
    region: Vec<u8>,
    /// Length of what is meaningful in `region`.
    len: usize,
    /// End of each payload in `region`.
    ends: Vec<u32>,
    framing: Framing,
    ascii: bool,
    /// In place of `ends`, `framing` and `ascii` where the messages came in brood's own frames:
    /// where each payload lies, and how they are encoded.
    spans: Vec<(u32, u32)>,
    runs: Vec<Run>,
}

impl Frames {
    /// No frames.
    pub(crate) fn none() -> Frames {
        Frames::of_runs(Vec::new(), 0, Vec::new(), Vec::new())
    }

    /// The messages of brood's own frames: payloads at `spans` in the first `len` bytes of
    /// `region`, which `runs` cover.
    pub(crate) fn of_runs(
        region: Vec<u8>,
        len: usize,
        spans: Vec<(u32, u32)>,
        runs: Vec<Run>,
    ) -> Frames {
        Frames {
            region,
            len,
            ends: Vec::new(),
            framing: Framing::JsonLines,
            ascii: false,
            spans,
            runs,
        }
    }

    /// The memory of a delivered region.
    pub(crate) fn into_region(self) -> Vec<u8> {
        self.region
    }

    /// How many frames there are.
    pub fn len(&self) -> usize {
        self.ends.len() + self.spans.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// See [`Batch::runs`](super::Batch::runs).
    pub fn runs(&self) -> Vec<Run> {
        if self.ends.is_empty() {
            return self.runs.clone();
        }
        vec![Run {
            encoding: self.framing,
            messages: 0..self.len(),
            bytes: 0..self.len,
            ascii: self.ascii,
        }]
    }

    /// See [`Batch::json_array`](super::Batch::json_array).
    pub fn json_array(&self) -> &[u8] {
        match self.runs.first() {
            Some(run) => &self.region[run.bytes.clone()],
            None if self.is_empty() => b"[]",
            None => self.region(),
        }
    }

    /// See [`Batch::region`](super::Batch::region).
    pub fn region(&self) -> &[u8] {
        &self.region[..self.len]
    }

    /// Bytes of memory they occupy.
    pub fn memory(&self) -> usize {
        self.region.capacity() + mem::size_of::<u32>() * self.ends.capacity()
    }

    /// See [`Batch::range`](super::Batch::range).
    pub fn range(&self, index: usize) -> Range<usize> {
        match self.spans.get(index) {
            Some(&(start, end)) => start as usize..end as usize,
            None => payload(self.framing, &self.ends, index),
        }
    }

    /// See [`Batch::is_ascii`](super::Batch::is_ascii).
    pub fn is_ascii(&self) -> bool {
        self.ascii
    }

    /// Closes the gaps that the frames `gone` (ascending) leave.
    pub fn remove(&mut self, gone: &[usize]) {
        let mut gone = gone.iter().copied().peekable();
        let mut kept = Vec::with_capacity(self.len());
        let mut end = origin(self.framing);
        for index in 0..self.len() {
            if gone.next_if_eq(&index).is_some() {
                continue;
            }
            let frame = self.frame(index);
            let size = frame.len();
            self.region.copy_within(frame, end);
            end += size;
            kept.push((end - self.trailing()) as u32);
        }
        if self.framing == Framing::JsonLines && !kept.is_empty() {
            self.region[end - 1] = b']';
        }
        self.len = end;
        self.ends = kept;
    }

    /// A frame with what frames it: its length before it, or the delimiter behind it.
    fn frame(&self, index: usize) -> Range<usize> {
        let payload = self.range(index);
        match self.framing {
            Framing::JsonLines => payload.start..payload.end + 1,
            Framing::Advanced => payload.start - advanced::PREFIX..payload.end,
        }
    }

    /// Bytes of a frame that its end does not count.
    fn trailing(&self) -> usize {
        match self.framing {
            Framing::JsonLines => 1,
            Framing::Advanced => 0,
        }
    }
}

/// The receive buffer of a channel and the position of its decoder.
#[derive(Debug)]
pub struct FrameReader {
    framing: Framing,
    max_message: usize,
    /// Always initialised, so that reads need no `unsafe`.
    buffer: Vec<u8>,
    /// End of what was received.
    filled: usize,
    /// End of what was searched for newlines.
    scanned: usize,
    /// Start of the unfinished frame.
    start: usize,
    /// Ends of the payloads found and not taken yet.
    ends: Vec<u32>,
    search: ControlSearch,
    /// What the peer may announce, and what it has announced.
    negotiation: Negotiation,
    heard: Option<(Step, Terms)>,
    /// Memory of delivered frames.
    spare: Vec<u8>,
    spare_ends: Vec<u32>,
}

impl FrameReader {
    /// A reader that refuses payloads above `max_message` bytes (a gigabyte at most, so that
    /// positions fit 32 bits).
    pub fn new(framing: Framing, max_message: usize) -> Self {
        let origin = origin(framing);
        FrameReader {
            framing,
            max_message: max_message.min(1 << 30),
            buffer: Vec::new(),
            filled: origin,
            scanned: origin,
            start: origin,
            ends: Vec::new(),
            search: ControlSearch::new(),
            negotiation: Negotiation::None,
            heard: None,
            spare: Vec::new(),
            spare_ends: Vec::new(),
        }
    }

    /// How the stream is cut.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Where to put the next bytes of the stream: 16 KiB or more.
    pub fn room(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = mem::take(&mut self.spare);
        }
        self.grow(self.filled + ROOM);
        &mut self.buffer[self.filled..]
    }

    /// Takes in bytes that came another way, without looking at them yet: the next
    /// [`advance`](Self::advance) does.
    pub fn preload(&mut self, bytes: &[u8]) {
        self.grow(self.filled + bytes.len());
        self.buffer[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Takes in the first `n` bytes of [`room`](Self::room) and finds the frames they complete.
    /// Control messages among them are appended to `controls` with their index; `thorough` finds
    /// them in every spelling, which costs more and is worth while when one is expected.
    ///
    /// After an error the frames found before it can still be taken.
    pub fn advance(
        &mut self,
        n: usize,
        thorough: bool,
        controls: &mut Vec<(usize, Control)>,
    ) -> Result<(), ReceiveError> {
        self.filled += n;
        let first = self.ends.len();
        match self.framing {
            Framing::JsonLines => self.advance_lines(first, thorough, controls),
            Framing::Advanced => self.advance_advanced(first, controls),
        }
    }

    /// Listens from now on for what `negotiation` awaits.
    pub(crate) fn listen(&mut self, negotiation: Negotiation) {
        self.negotiation = negotiation;
    }

    /// What the peer has announced since the last call. After a switch the frames before it can
    /// be taken, and [`take_rest`](Self::take_rest) returns what is no longer this reader's.
    pub(crate) fn take_heard(&mut self) -> Option<(Step, Terms)> {
        self.heard.take()
    }

    /// The bytes behind the last whole frame.
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.buffer[self.start..self.filled].to_vec();
        self.filled = self.start;
        self.scanned = self.start;
        rest
    }

    /// Cuts the whole frames off; an unfinished one stays.
    pub fn take(&mut self) -> Frames {
        let framing = self.framing;
        let ends = mem::replace(&mut self.ends, mem::take(&mut self.spare_ends));
        if ends.is_empty() {
            return Frames {
                region: Vec::new(),
                len: 0,
                ends,
                framing,
                ascii: false,
                spans: Vec::new(),
                runs: Vec::new(),
            };
        }
        let len = self.start;
        let mut region = self.move_unfinished();
        let ascii = match framing {
            Framing::JsonLines => {
                region[0] = b'[';
                region[len - 1] = b']';
                region[..len].is_ascii()
            }
            Framing::Advanced => false,
        };
        Frames {
            region,
            len,
            ends,
            framing,
            ascii,
            spans: Vec::new(),
            runs: Vec::new(),
        }
    }

    /// Bytes of the unfinished frame.
    pub fn unfinished(&self) -> usize {
        self.filled - self.start
    }

    /// Gives the memory of delivered frames back for the next ones, unless it is much more than
    /// they needed.
    pub fn recycle(&mut self, frames: Frames) {
        let Frames {
            region,
            len,
            mut ends,
            ..
        } = frames;
        let wanted = KEEP.min((4 * len).max(2 * FIRST));
        if region.len() <= wanted && region.len() > self.spare.len() {
            self.spare = region;
        }
        ends.clear();
        if ends.capacity() <= KEEP_ENDS && ends.capacity() > self.spare_ends.capacity() {
            self.spare_ends = ends;
        }
    }

    /// The same frames in no more memory than they need; the rest is kept for the next ones.
    pub fn compact(&mut self, frames: Frames) -> Frames {
        if frames.len > frames.region.len() / 2 {
            return frames;
        }
        let small = Frames {
            region: frames.region[..frames.len].to_vec(),
            len: frames.len,
            ends: frames.ends.clone(),
            framing: frames.framing,
            ascii: frames.ascii,
            spans: frames.spans.clone(),
            runs: frames.runs.clone(),
        };
        self.recycle(frames);
        small
    }

    /// Drops everything not taken yet, and the memory.
    pub fn clear(&mut self) {
        *self = FrameReader::new(self.framing, self.max_message);
    }

    fn advance_lines(
        &mut self,
        first: usize,
        thorough: bool,
        controls: &mut Vec<(usize, Control)>,
    ) -> Result<(), ReceiveError> {
        let bytes = &self.buffer[..self.filled];
        let from = mem::replace(&mut self.scanned, self.filled);
        let result = json_lines::split(
            bytes,
            from,
            &mut self.start,
            self.max_message,
            &mut self.ends,
        );
        let result = if self.hear(first) { Ok(()) } else { result };
        let bytes = &self.buffer[..self.filled];
        self.search
            .search(bytes, &self.ends, first, thorough, controls);
        for &end in &self.ends[first..] {
            self.buffer[end as usize] = b',';
        }
        result
    }

    fn advance_advanced(
        &mut self,
        first: usize,
        controls: &mut Vec<(usize, Control)>,
    ) -> Result<(), ReceiveError> {
        let bytes = &self.buffer[..self.filled];
        let result = advanced::split(bytes, &mut self.start, self.max_message, &mut self.ends);
        let result = if self.hear(first) { Ok(()) } else { result };
        let bytes = &self.buffer[..self.filled];
        for index in first..self.ends.len() {
            let payload = &bytes[payload(self.framing, &self.ends, index)];
            controls.extend(advanced::control(payload).map(|control| (index, control)));
        }
        result
    }

    /// Looks among the frames from `first` on for what is awaited. Frames end with a switch: what
    /// was found behind it is undone, and true returned.
    fn hear(&mut self, first: usize) -> bool {
        let Some((step, nonce)) = self.negotiation.awaits() else {
            return false;
        };
        if first == self.ends.len() {
            return false;
        }
        let from = payload(self.framing, &self.ends, first).start;
        let until = self.ends[self.ends.len() - 1] as usize;
        let mut at = from;
        while let Some(found) = memchr::memmem::find(&self.buffer[at..until], nonce.as_bytes()) {
            at += found + nonce.len();
            let index = self.ends.partition_point(|&end| (end as usize) < at);
            let range = payload(self.framing, &self.ends, index);
            let stated = upgrade::recognise(self.framing, step, nonce, &self.buffer[range.clone()]);
            let Some(terms) = stated.filter(|&terms| self.negotiation.permits(terms)) else {
                continue;
            };
            self.heard = Some((step, terms));
            if step == Step::Switch {
                self.ends.truncate(index + 1);
                self.start = match self.framing {
                    Framing::JsonLines => range.end + 1,
                    Framing::Advanced => range.end,
                };
            }
            self.negotiation = Negotiation::None;
            return step == Step::Switch;
        }
        false
    }

    /// Moves the unfinished frame to the front of other memory and returns the old.
    fn move_unfinished(&mut self) -> Vec<u8> {
        let old = mem::take(&mut self.buffer);
        let unfinished = self.start..self.filled;
        let origin = origin(self.framing);
        self.start = origin;
        self.filled = origin + unfinished.len();
        self.scanned = self.filled;
        if !unfinished.is_empty() {
            self.buffer = mem::take(&mut self.spare);
            self.grow(self.filled + ROOM);
            self.buffer[origin..self.filled].copy_from_slice(&old[unfinished]);
        }
        old
    }

    fn grow(&mut self, needed: usize) {
        if needed <= self.buffer.len() {
            return;
        }
        let grown = self.buffer.len() + self.buffer.len().min(STEP);
        let len = needed.max(grown).max(FIRST);
        if self.buffer.is_empty() {
            // Zeroed by the allocator, which for fresh pages costs nothing.
            self.buffer = vec![0; len];
        } else {
            self.buffer.resize(len, 0);
        }
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.buffer.capacity() + self.spare.capacity()
    }
}

/// Where the first frame begins: JSON leaves room for the opening bracket.
fn origin(framing: Framing) -> usize {
    match framing {
        Framing::JsonLines => 1,
        Framing::Advanced => 0,
    }
}

/// Where the payload of frame `index` lies.
fn payload(framing: Framing, ends: &[u32], index: usize) -> Range<usize> {
    match framing {
        Framing::JsonLines => json_lines::line(ends, index),
        Framing::Advanced => {
            let before = if index == 0 {
                0
            } else {
                ends[index - 1] as usize
            };
            before + advanced::PREFIX..ends[index] as usize
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    type Controls = Vec<(usize, Control)>;

    fn frame(framing: Framing, payload: &[u8]) -> Vec<u8> {
        match framing {
            Framing::JsonLines => [payload, b"\n"].concat(),
            Framing::Advanced => [&(payload.len() as u32).to_be_bytes(), payload].concat(),
        }
    }

    fn handle(framing: Framing) -> &'static [u8] {
        match framing {
            Framing::JsonLines => br#"{"cmd":"NODE_HANDLE","msg":1}"#,
            Framing::Advanced => b"\xff\x0fo\"\x03cmd\"\x0bNODE_HANDLE\"\x03msgI\x02{\x02",
        }
    }

    /// Feeds a piece, however much room there is for it.
    fn feed(
        reader: &mut FrameReader,
        mut piece: &[u8],
        controls: &mut Controls,
    ) -> Result<(), ReceiveError> {
        while !piece.is_empty() {
            let room = reader.room();
            let n = piece.len().min(room.len());
            room[..n].copy_from_slice(&piece[..n]);
            piece = &piece[n..];
            reader.advance(n, false, controls)?;
        }
        Ok(())
    }

    fn payloads(frames: &Frames) -> Vec<Vec<u8>> {
        (0..frames.len())
            .map(|i| frames.region()[frames.range(i)].to_vec())
            .collect()
    }

    /// Feeds pieces and takes the frames after each, or all at the end.
    fn read_all(
        reader: &mut FrameReader,
        pieces: &[&[u8]],
        take_often: bool,
    ) -> (Vec<Vec<u8>>, Vec<Control>) {
        let (mut all, mut kinds) = (Vec::new(), Vec::new());
        let mut controls = Controls::new();
        for (i, piece) in pieces.iter().enumerate() {
            feed(reader, piece, &mut controls).unwrap();
            if take_often || i + 1 == pieces.len() {
                let frames = reader.take();
                for (index, control) in controls.drain(..) {
                    let payload = &frames.region()[frames.range(index)];
                    assert!(payload.len() > control.cmd().len());
                    kinds.push(control);
                }
                all.extend(payloads(&frames));
                reader.recycle(frames);
            }
        }
        (all, kinds)
    }

    #[test]
    fn every_two_split_points_give_the_same_frames() {
        for framing in [Framing::JsonLines, Framing::Advanced] {
            let ack = match framing {
                Framing::JsonLines => json_lines::ACK,
                Framing::Advanced => advanced::ACK,
            };
            let sent = [b"1", handle(framing), ack, "\"\u{20ac}\"".as_bytes(), b"{}"];
            let stream: Vec<u8> = sent.iter().flat_map(|p| frame(framing, p)).collect();
            let controls = [Control::Handle, Control::Ack];
            let mut reader = FrameReader::new(framing, 1000);
            for first in 0..=stream.len() {
                for second in first..=stream.len() {
                    let (a, rest) = stream.split_at(first);
                    let (b, c) = rest.split_at(second - first);
                    for take_often in [false, true] {
                        let (got, kinds) = read_all(&mut reader, &[a, b, c], take_often);
                        assert_eq!(got, sent, "{framing:?} {first} {second}");
                        assert_eq!(kinds, controls, "{framing:?} {first} {second}");
                        assert_eq!(reader.unfinished(), 0);
                    }
                }
            }
        }
    }

    #[test]
    fn json_lines_come_as_one_array_text_from_which_each_can_be_had_again() {
        let mut reader = FrameReader::new(Framing::JsonLines, 1000);
        feed(
            &mut reader,
            b"1\n{\"a\":[2,3]}\n\"x\"\n\"rest",
            &mut Vec::new(),
        )
        .unwrap();
        let frames = reader.take();
        assert_eq!(frames.json_array(), b"[1,{\"a\":[2,3]},\"x\"]");
        assert_eq!(payloads(&frames), [&b"1"[..], b"{\"a\":[2,3]}", b"\"x\""]);
        assert!(frames.is_ascii());
        feed(&mut reader, "\u{e9}\"\n".as_bytes(), &mut Vec::new()).unwrap();
        let frames = reader.take();
        assert_eq!(frames.json_array(), "[\"rest\u{e9}\"]".as_bytes());
        assert!(!frames.is_ascii());
        assert_eq!(reader.take().json_array(), b"[]");
    }

    #[test]
    fn frames_can_be_taken_out_of_the_middle_and_the_ends() {
        let sent: [&[u8]; 4] = [b"1", b"[22]", b"\"333\"", b"4"];
        for framing in [Framing::JsonLines, Framing::Advanced] {
            for mask in 0..16u32 {
                let mut reader = FrameReader::new(framing, 1000);
                let stream: Vec<u8> = sent.iter().flat_map(|p| frame(framing, p)).collect();
                feed(&mut reader, &stream, &mut Vec::new()).unwrap();
                let mut frames = reader.take();
                let (gone, kept): (Vec<usize>, Vec<usize>) =
                    (0..4).partition(|index| mask & (1 << index) != 0);
                frames.remove(&gone);
                let expected: Vec<&[u8]> = kept.iter().map(|&index| sent[index]).collect();
                assert_eq!(payloads(&frames), expected, "{framing:?} {mask:b}");
                if framing == Framing::JsonLines {
                    let array = [b"[", expected.join(&b',').as_slice(), b"]"].concat();
                    assert_eq!(frames.json_array(), array);
                }
            }
        }
    }

    #[test]
    fn frames_before_a_fault_can_still_be_taken() {
        let mut reader = FrameReader::new(Framing::Advanced, 1000);
        let stream = [frame(Framing::Advanced, b"good"), vec![0; 4]].concat();
        let result = feed(&mut reader, &stream, &mut Vec::new());
        assert_eq!(result, Err(ReceiveError::EmptyFrame));
        assert_eq!(payloads(&reader.take()), [b"good"]);
    }

    /// Newlines smuggled in behind the decoder's back are not found.
    #[test]
    fn every_byte_is_looked_at_once() {
        let mut reader = FrameReader::new(Framing::JsonLines, 1000);
        feed(&mut reader, b"1\n234", &mut Vec::new()).unwrap();
        let unfinished = reader.start..reader.filled;
        reader.buffer[unfinished].fill(b'\n');
        feed(&mut reader, b"5", &mut Vec::new()).unwrap();
        assert_eq!(payloads(&reader.take()), [b"1"]);
        feed(&mut reader, b"6\n", &mut Vec::new()).unwrap();
        assert_eq!(payloads(&reader.take()), [b"\n\n\n56"]);
    }

    #[test]
    fn preloaded_bytes_come_first() {
        for framing in [Framing::JsonLines, Framing::Advanced] {
            let stream = [frame(framing, b"one"), frame(framing, b"two")].concat();
            for cut in 0..stream.len() {
                let mut reader = FrameReader::new(framing, 1000);
                reader.preload(&stream[..cut]);
                reader.advance(0, false, &mut Vec::new()).unwrap();
                feed(&mut reader, &stream[cut..], &mut Vec::new()).unwrap();
                assert_eq!(payloads(&reader.take()), [b"one", b"two"]);
            }
        }
    }

    #[test]
    fn an_endless_line_is_refused_at_the_limit_with_bounded_memory() {
        let limit = 40 << 20;
        let mut reader = FrameReader::new(Framing::JsonLines, limit);
        let error = loop {
            let room = reader.room();
            let n = room.len();
            room.fill(b'x');
            if let Err(error) = reader.advance(n, false, &mut Vec::new()) {
                break error;
            }
        };
        assert!(matches!(error, ReceiveError::MessageTooLarge { limit: l, .. } if l == limit));
        assert!(reader.memory() <= limit + STEP + FIRST);
    }

    #[test]
    fn an_announced_length_alone_takes_no_memory() {
        let mut reader = FrameReader::new(Framing::Advanced, 1 << 30);
        feed(&mut reader, &[0x3f, 0xff, 0xff, 0xff, 1], &mut Vec::new()).unwrap();
        assert!(reader.memory() <= FIRST);
    }

    #[test]
    fn memory_shrinks_back_after_a_large_message() {
        for framing in [Framing::JsonLines, Framing::Advanced] {
            let mut reader = FrameReader::new(framing, 1 << 30);
            feed(
                &mut reader,
                &frame(framing, &vec![b'x'; 20 << 20]),
                &mut Vec::new(),
            )
            .unwrap();
            let frames = reader.take();
            reader.recycle(frames);
            assert_eq!(reader.memory(), 0);
        }
    }

    #[test]
    fn small_batches_keep_little_memory_and_reuse_it() {
        let mut reader = FrameReader::new(Framing::JsonLines, 1 << 30);
        let mut places = HashSet::new();
        for _ in 0..100 {
            feed(&mut reader, b"1\n2\n3", &mut Vec::new()).unwrap();
            let frames = reader.take();
            places.insert(frames.region().as_ptr());
            reader.recycle(frames);
        }
        assert_eq!(places.len(), 2, "two buffers in turn");
        assert!(reader.memory() <= 2 * FIRST, "{}", reader.memory());
    }

    /// Frames the obvious way: payloads, the error, bytes left.
    fn reference(
        framing: Framing,
        stream: &[u8],
        limit: usize,
    ) -> (Vec<Vec<u8>>, Option<ReceiveError>) {
        let (mut got, mut rest) = (Vec::new(), stream);
        loop {
            let (start, end, next) = match framing {
                Framing::JsonLines => match rest.iter().position(|&byte| byte == b'\n') {
                    Some(end) => (0, end, end + 1),
                    None if rest.len() > limit => (0, limit + 1, 0),
                    None => return (got, None),
                },
                Framing::Advanced if rest.len() < 4 => return (got, None),
                Framing::Advanced => {
                    let size = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
                    (4, 4 + size, 4 + size)
                }
            };
            match end - start {
                0 if framing == Framing::Advanced => return (got, Some(ReceiveError::EmptyFrame)),
                size if size > limit => {
                    return (got, Some(ReceiveError::MessageTooLarge { size, limit }));
                }
                _ if rest.len() < next => return (got, None),
                _ => {
                    got.push(rest[start..end].to_vec());
                    rest = &rest[next..];
                }
            }
        }
    }

    /// Bytes that look like frames often enough.
    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            Just(b"\n".to_vec()),
            Just(vec![0, 0, 0]),
            Just(vec![0, 0, 0, 3, 1, 2, 3]),
            Just(frame(Framing::Advanced, handle(Framing::Advanced))),
            Just(frame(Framing::JsonLines, handle(Framing::JsonLines))),
            Just(frame(Framing::JsonLines, json_lines::ACK)),
            Just(vec![b'x'; 90]),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_in_arbitrary_pieces_are_framed_like_the_reference(
            stream in streams(),
            cuts in prop::collection::vec(1usize..40, 1..30),
            advanced: bool,
            take_often: bool,
        ) {
            let framing = if advanced { Framing::Advanced } else { Framing::JsonLines };
            let limit = 100;
            let (expected, expected_error) = reference(framing, &stream, limit);
            let mut reader = FrameReader::new(framing, limit);
            let (mut got, mut error, mut rest) = (Vec::new(), None, &stream[..]);
            for cut in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*cut).min(rest.len()));
                rest = later;
                error = feed(&mut reader, piece, &mut Vec::new()).err();
                if take_often || rest.is_empty() || error.is_some() {
                    let frames = reader.take();
                    got.extend(payloads(&frames));
                    reader.recycle(frames);
                }
                if rest.is_empty() || error.is_some() {
                    break;
                }
            }
            prop_assert_eq!(got, expected);
            match (error, expected_error) {
                // How much of an endless line was seen depends on the pieces.
                (Some(ReceiveError::MessageTooLarge { size, .. }),
                 Some(ReceiveError::MessageTooLarge { .. })) => prop_assert!(size > limit),
                (error, expected) => prop_assert_eq!(error, expected),
            }
            prop_assert!(reader.memory() <= 4 * FIRST);
        }
    }
}

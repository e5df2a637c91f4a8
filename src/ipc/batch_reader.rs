//! Takes brood's frames apart: finds the messages in what was read, pairs frames with the
//! descriptors that came along, copies what lies in the peer's areas, and holds back, in order, what
//! stands behind a frame whose descriptors the kernel has dropped, or for whose copy there is no
//! memory now. Where bytes and descriptors come from, and what is said to the peer, is left to
//! `channel`.

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Duration;

use memchr::memchr_iter;
use nix::errno::Errno;

use super::Framing;
use super::areas::PeerAreas;
use super::batch::{Arrived, HandleSlot};
use super::blocks;
use super::error::ReceiveError;
use super::frame_reader::{Frames, Run};
use super::layout::{
    HEADER, Header, Kind, MAX_DESCRIPTORS, MAX_PIECES, PIECE, Piece, VALUE_PREFIX,
};

/// Memory first allocated.
const FIRST: usize = 64 * 1024;
/// Room offered to a read, at least.
const ROOM: usize = 16 * 1024;
/// What an announced length may make us allocate before the bytes are there.
const TRUST: usize = 16 * 1024 * 1024;
/// More memory than this is not kept for the next frames.
const KEEP: usize = 2 * 1024 * 1024;
/// Sends of descriptors that may wait for their frame: it is the next one.
const MAX_GROUPS: usize = 4;
/// Bytes that may wait behind a frame whose descriptors are missing, before it is given up.
const MAX_HELD: usize = 16 * 1024 * 1024;

/// Descriptors of frames that are not taken yet, of which a sender has no more unacknowledged.
const MAX_HELD_DESCRIPTORS: usize = MAX_DESCRIPTORS;

/// Something the peer says, or that is to be said to it, about frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// The peer acknowledges our frames with descriptors up to this number.
    Acknowledged(u32),
    /// The peer misses the descriptors of our frame.
    Refused(u32),
    /// The peer has given our frame up.
    Abandoned(u32),
    /// The peer has copied what we have put into this area.
    Released(u32),
    /// Replies to our last handle by Node's protocol.
    StockAcknowledged,
    StockRefused,
    /// To be said: we miss the descriptors of the peer's frame.
    Refuse(u32),
    /// To be said: we wait no longer.
    Abandon(u32),
}

/// Descriptors that came with one read.
#[derive(Debug)]
struct Group {
    descriptors: Vec<OwnedFd>,
    truncated: bool,
}

#[derive(Debug)]
enum Descriptors {
    None,
    Complete(Vec<OwnedFd>),
    /// The kernel dropped some; all are asked for again.
    Missing(usize),
    /// They will not come: the frame's messages are dropped.
    Void,
}

impl Descriptors {
    /// How many are open.
    fn count(&self) -> usize {
        match self {
            Descriptors::Complete(descriptors) => descriptors.len(),
            Descriptors::None | Descriptors::Missing(_) | Descriptors::Void => 0,
        }
    }
}

/// A whole frame with messages.
#[derive(Debug)]
struct Entry {
    kind: Kind,
    encoding: Framing,
    number: u32,
    /// The payload.
    bytes: Range<usize>,
    messages: usize,
    descriptors: Descriptors,
    /// What lies beside the message of a [`Kind::Placed`], and is not collected yet.
    pieces: VecDeque<Piece>,
    /// What is.
    arrived: Vec<Arrived>,
}

impl Entry {
    fn is_missing(&self) -> bool {
        matches!(self.descriptors, Descriptors::Missing(_))
    }
}

/// What [`BatchReader::take`] cuts off the stream.
#[derive(Debug)]
pub(crate) struct Taken {
    pub frames: Frames,
    pub handles: Vec<(usize, HandleSlot)>,
    /// Messages' large buffers.
    pub beside: Vec<(usize, Vec<Arrived>)>,
    /// To be acknowledged: the last frame with descriptors.
    pub acknowledge: Option<u32>,
    /// To be released: the areas whose content is copied.
    pub release: Vec<u32>,
    /// What is wrong with a frame; the messages before it are taken.
    pub fault: Option<ReceiveError>,
}

impl Taken {
    fn nothing() -> Taken {
        Taken {
            frames: Frames::none(),
            handles: Vec::new(),
            beside: Vec::new(),
            acknowledge: None,
            release: Vec::new(),
            fault: None,
        }
    }
}

/// The receive buffer of a direction that speaks frames.
#[derive(Debug)]
pub(crate) struct BatchReader {
    limit: usize,
    /// The peer's areas, if it was agreed to use any.
    areas: Option<PeerAreas>,
    /// Always initialised, so that reads need no `unsafe`.
    buffer: Vec<u8>,
    filled: usize,
    /// Start of the frame that is not whole yet.
    next: usize,
    /// Bytes that frame has, once its header is there.
    wanted: usize,
    /// The number the next frame has at least.
    expected: u32,
    entries: VecDeque<Entry>,
    /// Where the messages of all entries lie.
    spans: Vec<(u32, u32)>,
    groups: VecDeque<Group>,
    spare: Vec<u8>,
    /// The first entry waits for memory.
    starved: bool,
}

impl BatchReader {
    /// A reader that refuses messages of more than `limit` bytes, and goes on with `bytes`, which
    /// were read before.
    pub fn new(limit: usize, bytes: &[u8]) -> Self {
        let mut reader = BatchReader {
            limit: limit.min(1 << 30),
            areas: None,
            buffer: Vec::new(),
            filled: 0,
            next: 0,
            wanted: 0,
            expected: 0,
            entries: VecDeque::new(),
            spans: Vec::new(),
            groups: VecDeque::new(),
            spare: Vec::new(),
            starved: false,
        };
        reader.grow(bytes.len());
        reader.buffer[..bytes.len()].copy_from_slice(bytes);
        reader.filled = bytes.len();
        reader
    }

    /// The same for a peer that may put large buffers into areas.
    pub fn with_areas(limit: usize, bytes: &[u8]) -> Self {
        BatchReader {
            areas: Some(PeerAreas::default()),
            ..BatchReader::new(limit, bytes)
        }
    }

    /// Where to put the next bytes of the stream.
    pub fn room(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            self.buffer = mem::take(&mut self.spare);
        }
        let known = self.wanted.saturating_sub(self.filled - self.next);
        self.grow(self.filled + known.clamp(ROOM, TRUST.max(self.filled)));
        &mut self.buffer[self.filled..]
    }

    /// Queues the descriptors that came with a read; `truncated` if the kernel dropped some.
    pub fn keep(&mut self, descriptors: Vec<OwnedFd>, truncated: bool) -> Result<(), ReceiveError> {
        let group = Group {
            descriptors,
            truncated,
        };
        self.groups.push_back(group);
        if self.groups.len() <= MAX_GROUPS {
            return Ok(());
        }
        let waiting = self
            .groups
            .iter()
            .map(|group| group.descriptors.len())
            .sum();
        Err(ReceiveError::UnexpectedDescriptors {
            waiting,
            limit: MAX_GROUPS,
        })
    }

    /// Takes in the first `n` bytes of [`room`](Self::room) and finds the frames they complete.
    /// After an error what came before it can still be taken.
    pub fn advance(&mut self, n: usize, notices: &mut Vec<Notice>) -> Result<(), ReceiveError> {
        self.filled += n;
        self.wanted = 0;
        while let Some(bytes) = self.buffer[self.next..self.filled].first_chunk() {
            let header = Header::decode(bytes, self.limit)?;
            if header.kind.needs_areas() && self.areas.is_none() {
                return Err(ReceiveError::Frame("is of a kind that was not agreed on"));
            }
            let size = HEADER + header.length as usize;
            if self.filled - self.next < size {
                self.wanted = size;
                break;
            }
            self.enter(header, notices)?;
            self.next += size;
        }
        self.bound_what_is_held(notices);
        if self.entries.is_empty() {
            self.drop_front();
        }
        Ok(())
    }

    /// Drops frames that had no messages, of which nothing will be taken.
    fn drop_front(&mut self) {
        self.buffer.copy_within(self.next..self.filled, 0);
        (self.next, self.filled) = (0, self.filled - self.next);
    }

    /// Cuts off all messages before the first whose descriptors are missing, or for which there is
    /// no memory.
    pub fn take(&mut self) -> Taken {
        let mut taken = Taken::nothing();
        let ready = self.entries.iter().position(Entry::is_missing);
        let ready = self.collect(ready.unwrap_or(self.entries.len()), &mut taken);
        if ready == 0 {
            return taken;
        }
        let rest = self.entries.split_off(ready);
        let entries = mem::replace(&mut self.entries, rest);
        let messages = entries.iter().map(|entry| entry.messages).sum();
        let later = self.spans.split_off(messages);
        let spans = mem::replace(&mut self.spans, later);
        let cut = match self.entries.front() {
            Some(entry) => entry.bytes.start - HEADER,
            None => self.next,
        };
        let mut region = self.cut_off(cut);
        let (mut kept, mut runs, mut index) = (Vec::with_capacity(messages), Vec::new(), 0);
        for entry in entries {
            let own = index..index + entry.messages;
            index = own.end;
            let has_descriptors = !matches!(entry.descriptors, Descriptors::None);
            let descriptors = match entry.descriptors {
                Descriptors::Complete(descriptors) => descriptors,
                Descriptors::Void => {
                    taken.acknowledge = Some(entry.number);
                    continue;
                }
                Descriptors::None | Descriptors::Missing(_) => Vec::new(),
            };
            let first = kept.len();
            match entry.kind {
                Kind::Shared => {
                    let files = descriptors.into_iter().map(Arrived::File).collect();
                    taken.beside.push((first, files));
                }
                Kind::Placed => taken.beside.push((first, entry.arrived)),
                _ => {
                    let slots = descriptors.into_iter().map(HandleSlot::Received);
                    taken.handles.extend((first..).zip(slots));
                }
            }
            if has_descriptors {
                taken.acknowledge = Some(entry.number);
            }
            kept.extend_from_slice(&spans[own]);
            let (encoding, bytes) = (entry.encoding, entry.bytes);
            join(&mut runs, &mut region, encoding, bytes, first..kept.len());
        }
        for run in &mut runs {
            finish(run, &mut region, &kept);
        }
        taken.frames = Frames::of_runs(region, cut, kept, runs);
        taken
    }

    /// Collects what lies beside the messages of the first `ready` entries. Returns how many entries
    /// are complete: all, or those before the first that is wrong or has to wait for memory.
    fn collect(&mut self, ready: usize, taken: &mut Taken) -> usize {
        self.starved = false;
        // Where none were agreed on, nothing is in any.
        let no_areas = &mut PeerAreas::default();
        let areas = self.areas.as_mut().unwrap_or(no_areas);
        for (index, entry) in self.entries.iter_mut().take(ready).enumerate() {
            match collect(areas, entry, &mut taken.release) {
                Ok(()) => {}
                Err(error) => {
                    self.starved = is_shortage(error);
                    taken.fault = (!self.starved).then_some(error);
                    return index;
                }
            }
        }
        ready
    }

    /// Whether what has come is held back for want of memory. The next [`take`](Self::take) tries
    /// again.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Gives up the frame that waits for memory. Returns the areas it lies in, to be released.
    pub fn skip_starved(&mut self) -> Vec<u32> {
        if !mem::take(&mut self.starved) {
            return Vec::new();
        }
        let Some(entry) = self.entries.front_mut() else {
            return Vec::new();
        };
        entry.descriptors = Descriptors::Void;
        let pieces = mem::take(&mut entry.pieces).into_iter();
        pieces
            .filter_map(|piece| match piece {
                Piece::Area { number, .. } => Some(number),
                Piece::File => None,
            })
            .collect()
    }

    /// Nothing more will come: what stands behind missing descriptors waits for them no longer.
    pub fn give_up_missing(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_missing()) {
            entry.descriptors = Descriptors::Void;
        }
    }

    /// Bytes of messages that cannot be taken yet.
    pub fn unfinished(&self) -> usize {
        let held = match self.starved {
            true => self.entries.front(),
            false => self.entries.iter().find(|entry| entry.is_missing()),
        };
        match held {
            Some(entry) => self.filled - (entry.bytes.start - HEADER),
            None => self.filled - self.next,
        }
    }

    /// Gives the memory of delivered frames back for the next ones.
    pub fn recycle(&mut self, region: Vec<u8>) {
        if region.len() <= KEEP && region.len() > self.spare.len() {
            self.spare = region;
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        let (limit, expected) = (self.limit, self.expected);
        let areas = self.areas.as_ref().map(|_| PeerAreas::default());
        *self = BatchReader::new(limit, &[]);
        (self.expected, self.areas) = (expected, areas);
    }

    /// Takes in the whole frame that begins at `next`.
    fn enter(&mut self, header: Header, notices: &mut Vec<Notice>) -> Result<(), ReceiveError> {
        let number = header.number;
        let Some(encoding) = header.kind.encoding() else {
            return self.hear(header, notices);
        };
        if number.wrapping_sub(self.expected) >= 1 << 31 {
            return Err(ReceiveError::Frame("is out of order"));
        }
        self.expected = number.wrapping_add(1);
        let start = self.next + HEADER;
        let bytes = start..start + header.length as usize;
        let (values, pieces) = match header.kind {
            Kind::Placed => self.read_table(bytes.clone(), usize::from(header.descriptors))?,
            _ => (bytes.clone(), VecDeque::new()),
        };
        self.split(encoding, values, header.messages as usize)?;
        let descriptors = match usize::from(header.descriptors) {
            0 => Descriptors::None,
            count => self.claim(count, number, notices)?,
        };
        self.check_held(&descriptors)?;
        self.entries.push_back(Entry {
            kind: header.kind,
            encoding,
            number,
            bytes,
            messages: header.messages as usize,
            descriptors,
            pieces,
            arrived: Vec::new(),
        });
        Ok(())
    }

    /// Whether there may be these as well.
    fn check_held(&self, more: &Descriptors) -> Result<(), ReceiveError> {
        let more = more.count();
        // Most frames have none, and there may be very many.
        if more == 0 {
            return Ok(());
        }
        let held: usize = self.entries.iter().map(|e| e.descriptors.count()).sum();
        if held + more > MAX_HELD_DESCRIPTORS {
            let lie = "comes with too many descriptors before it";
            return Err(ReceiveError::Frame(lie));
        }
        Ok(())
    }

    /// Reads the table behind a value. Returns where the value lies, and the table's entries.
    fn read_table(
        &self,
        bytes: Range<usize>,
        descriptors: usize,
    ) -> Result<(Range<usize>, VecDeque<Piece>), ReceiveError> {
        const WRONG: ReceiveError = ReceiveError::Frame("has a wrong table of what is beside it");
        let payload = &self.buffer[bytes.clone()];
        let prefix = payload.first_chunk::<VALUE_PREFIX>().ok_or(WRONG)?;
        let value = VALUE_PREFIX.saturating_add(u32::from_le_bytes(*prefix) as usize);
        let table = payload.get(value..).unwrap_or_default();
        let (entries, rest) = table.as_chunks::<PIECE>();
        let pieces: Option<VecDeque<Piece>> = entries.iter().map(Piece::decode).collect();
        let pieces = pieces.filter(|pieces| {
            let with_descriptor = pieces.iter().filter(|piece| piece.has_descriptor());
            rest.is_empty()
                && (1..=MAX_PIECES).contains(&pieces.len())
                && with_descriptor.count() == descriptors
        });
        let pieces = pieces.ok_or(WRONG)?;
        self.check_size(pieces.iter().map(length_of).sum())?;
        Ok((bytes.start..bytes.start + value, pieces))
    }

    fn hear(&mut self, header: Header, notices: &mut Vec<Notice>) -> Result<(), ReceiveError> {
        let number = header.number;
        match header.kind {
            Kind::Acknowledge => notices.push(Notice::Acknowledged(number)),
            Kind::Refuse => notices.push(Notice::Refused(number)),
            Kind::Abandon => notices.push(Notice::Abandoned(number)),
            Kind::Release => notices.push(Notice::Released(number)),
            Kind::Drop => {
                if let Some(areas) = &mut self.areas {
                    areas.close(number)?;
                }
            }
            Kind::StockAcknowledge => notices.push(Notice::StockAcknowledged),
            Kind::StockRefuse => notices.push(Notice::StockRefused),
            Kind::Again => {
                let count = usize::from(header.descriptors);
                // If they are missing again, that is said again.
                let descriptors = self.claim(count, number, notices)?;
                self.check_held(&descriptors)?;
                if let Some(entry) = self.missing(number, Some(count)) {
                    entry.descriptors = descriptors;
                }
            }
            Kind::GiveUp => {
                if let Some(entry) = self.missing(number, None) {
                    entry.descriptors = Descriptors::Void;
                }
            }
            Kind::Messages(_) | Kind::Handles(_) | Kind::Shared | Kind::Placed => {}
        }
        Ok(())
    }

    /// Frame `number`, if it waits for (that many) descriptors.
    fn missing(&mut self, number: u32, count: Option<usize>) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| {
            entry.number == number
                && match entry.descriptors {
                    Descriptors::Missing(wanted) => count.is_none_or(|count| count == wanted),
                    _ => false,
                }
        })
    }

    /// The `count` descriptors of frame `number`, which have come with its first byte.
    fn claim(
        &mut self,
        count: usize,
        number: u32,
        notices: &mut Vec<Notice>,
    ) -> Result<Descriptors, ReceiveError> {
        let group = self.groups.pop_front().ok_or(ReceiveError::Frame(
            "announces descriptors that did not come",
        ))?;
        match group.descriptors.len() {
            got if got == count && !group.truncated => Ok(Descriptors::Complete(group.descriptors)),
            got if got <= count && group.truncated => {
                notices.push(Notice::Refuse(number));
                Ok(Descriptors::Missing(count))
            }
            _ => Err(ReceiveError::Frame(
                "came with a wrong number of descriptors",
            )),
        }
    }

    /// Finds the messages of a payload, which must be exactly `messages`.
    fn split(
        &mut self,
        encoding: Framing,
        bytes: Range<usize>,
        messages: usize,
    ) -> Result<(), ReceiveError> {
        let before = self.spans.len();
        let result = match encoding {
            Framing::JsonLines => self.split_lines(bytes),
            Framing::Advanced => self.split_values(bytes),
        };
        let complete = result? && self.spans.len() - before == messages;
        if complete {
            return Ok(());
        }
        self.spans.truncate(before);
        Err(ReceiveError::Frame("has a wrong number of messages"))
    }

    /// Returns whether the last line is whole.
    fn split_lines(&mut self, bytes: Range<usize>) -> Result<bool, ReceiveError> {
        let mut start = bytes.start;
        for found in memchr_iter(b'\n', &self.buffer[bytes.clone()]) {
            let end = bytes.start + found;
            self.check_size(end - start)?;
            self.spans.push((start as u32, end as u32));
            start = end + 1;
        }
        Ok(start == bytes.end)
    }

    fn split_values(&mut self, bytes: Range<usize>) -> Result<bool, ReceiveError> {
        let mut start = bytes.start;
        while let Some(prefix) = self.buffer[start..bytes.end].first_chunk::<VALUE_PREFIX>() {
            let size = u32::from_le_bytes(*prefix) as usize;
            if size == 0 {
                return Err(ReceiveError::EmptyFrame);
            }
            self.check_size(size)?;
            start += VALUE_PREFIX;
            if size > bytes.end - start {
                return Ok(false);
            }
            self.spans.push((start as u32, (start + size) as u32));
            start += size;
        }
        Ok(start == bytes.end)
    }

    fn check_size(&self, size: usize) -> Result<(), ReceiveError> {
        if size <= self.limit {
            return Ok(());
        }
        let limit = self.limit;
        Err(ReceiveError::MessageTooLarge { size, limit })
    }

    /// A sender that does not come to answering must not make us hold back for ever.
    fn bound_what_is_held(&mut self, notices: &mut Vec<Notice>) {
        let held = self.entries.iter_mut().find(|entry| entry.is_missing());
        if let Some(entry) = held
            && self.next - entry.bytes.start > MAX_HELD
        {
            notices.push(Notice::Abandon(entry.number));
            entry.descriptors = Descriptors::Void;
        }
    }

    /// Cuts the buffer at `cut`: returns the front, the rest is moved to other memory.
    fn cut_off(&mut self, cut: usize) -> Vec<u8> {
        let old = mem::take(&mut self.buffer);
        let rest = cut..self.filled;
        self.filled = 0;
        self.next -= cut;
        for entry in &mut self.entries {
            entry.bytes = entry.bytes.start - cut..entry.bytes.end - cut;
        }
        for span in &mut self.spans {
            *span = (span.0 - cut as u32, span.1 - cut as u32);
        }
        if !rest.is_empty() {
            self.buffer = mem::take(&mut self.spare);
            let known = self.wanted.min(TRUST);
            self.grow((rest.len() + ROOM).max(known));
            self.filled = rest.len();
            self.buffer[..self.filled].copy_from_slice(&old[rest]);
        }
        old
    }

    fn grow(&mut self, needed: usize) {
        if needed <= self.buffer.len() {
            return;
        }
        // By steps of its own size: what is held back comes in many small pieces.
        let step = self.buffer.len().min(TRUST);
        // Zeroed by the allocator, which for fresh pages costs nothing.
        let mut grown = vec![0; needed.max(self.buffer.len() + step).max(FIRST)];
        grown[..self.filled].copy_from_slice(&self.buffer[..self.filled]);
        self.buffer = grown;
    }

    #[cfg(test)]
    pub(crate) fn memory(&self) -> usize {
        self.buffer.capacity() + self.spare.capacity()
    }
}

/// Opens the areas that are new with this entry and copies what lies in them; the areas are added to
/// `release`. What is done is kept: after a lack of memory it goes on there.
fn collect(
    areas: &mut PeerAreas,
    entry: &mut Entry,
    release: &mut Vec<u32>,
) -> Result<(), ReceiveError> {
    const INCOMPLETE: ReceiveError = ReceiveError::Frame("has no descriptor for what it names");
    let files = match &mut entry.descriptors {
        Descriptors::Void => return Ok(()),
        Descriptors::Complete(files) => files,
        Descriptors::None | Descriptors::Missing(_) => &mut Vec::new(),
    };
    while let Some(piece) = entry.pieces.front_mut() {
        let file = piece.has_descriptor().then(|| files.first());
        let file = file.map(|file| file.ok_or(INCOMPLETE)).transpose()?;
        let arrived = match (&mut *piece, file) {
            (
                Piece::Area {
                    number,
                    length,
                    content,
                    is_new,
                },
                file,
            ) => {
                if let Some(file) = file {
                    with_memory(|| areas.open(*number, file))?;
                    files.remove(0);
                    *is_new = false;
                }
                // Nobody has told the peer yet that it may fill it again.
                if release.contains(number) {
                    return Err(ReceiveError::Frame("uses an area that is not released"));
                }
                let copied = with_memory(|| areas.copy(*number, *length as usize))?;
                release.push(*number);
                Arrived::Copied(copied, *content)
            }
            (Piece::File, _) => Arrived::File(files.remove(0)),
        };
        entry.arrived.push(arrived);
        entry.pieces.pop_front();
    }
    Ok(())
}

/// Tries again without the memory that only lies idle, where there is none.
fn with_memory<T>(attempt: impl FnMut() -> Result<T, ReceiveError>) -> Result<T, ReceiveError> {
    let mut attempt = attempt;
    match attempt() {
        Err(error) if is_shortage(error) => {
            blocks::trim(Duration::ZERO);
            attempt()
        }
        result => result,
    }
}

fn is_shortage(error: ReceiveError) -> bool {
    matches!(error, ReceiveError::System(Errno::ENOMEM | Errno::EAGAIN))
}

/// What a piece adds to its message's length before it is looked at.
fn length_of(piece: &Piece) -> usize {
    match piece {
        Piece::File => 0,
        Piece::Area { length, .. } => *length as usize,
    }
}

/// Adds a frame's messages to the last run, or begins another. JSON texts of several frames become
/// one: what lies between them turns into white space.
fn join(
    runs: &mut Vec<Run>,
    region: &mut [u8],
    encoding: Framing,
    bytes: Range<usize>,
    messages: Range<usize>,
) {
    match runs.last_mut() {
        Some(run) if run.encoding == encoding => {
            if encoding == Framing::JsonLines {
                region[run.bytes.end..bytes.start].fill(b' ');
            }
            run.bytes.end = bytes.end;
            run.messages.end = messages.end;
        }
        _ => runs.push(Run {
            encoding,
            messages,
            bytes,
            ascii: false,
        }),
    }
}

/// Makes lines an array. The byte before the first belongs to its frame's header.
fn finish(run: &mut Run, region: &mut [u8], spans: &[(u32, u32)]) {
    if run.encoding != Framing::JsonLines {
        return;
    }
    for &(_, end) in &spans[run.messages.clone()] {
        region[end as usize] = b',';
    }
    run.bytes.start -= 1;
    region[run.bytes.start] = b'[';
    region[run.bytes.end - 1] = b']';
    run.ascii = region[run.bytes.clone()].is_ascii();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const JSON: Kind = Kind::Messages(Framing::JsonLines);
    const VALUES: Kind = Kind::Messages(Framing::Advanced);

    fn frame(kind: Kind, number: u32, payloads: &[&[u8]]) -> Vec<u8> {
        let bytes: Vec<u8> = match kind.encoding() {
            Some(Framing::JsonLines) => payloads
                .iter()
                .flat_map(|p| [p, &b"\n"[..]].concat())
                .collect(),
            _ => {
                let value = |p: &&[u8]| [&(p.len() as u32).to_le_bytes()[..], p].concat();
                payloads.iter().flat_map(value).collect()
            }
        };
        let header = Header {
            kind,
            descriptors: 0,
            length: bytes.len() as u32,
            messages: payloads.len() as u32,
            number,
        };
        [&header.encode()[..], &bytes].concat()
    }

    fn feed(reader: &mut BatchReader, mut piece: &[u8]) -> Result<Vec<Notice>, ReceiveError> {
        let mut notices = Vec::new();
        while !piece.is_empty() {
            let room = reader.room();
            let n = piece.len().min(room.len());
            room[..n].copy_from_slice(&piece[..n]);
            piece = &piece[n..];
            reader.advance(n, &mut notices)?;
        }
        Ok(notices)
    }

    fn payloads(frames: &Frames) -> Vec<Vec<u8>> {
        (0..frames.len())
            .map(|i| frames.region()[frames.range(i)].to_vec())
            .collect()
    }

    #[test]
    fn every_two_split_points_give_the_same_messages() {
        let ack = Header::control(Kind::Acknowledge, 9, 0).encode();
        let stream = [
            &frame(JSON, 0, &[b"1", b"{\"a\":2}"]),
            &ack[..],
            &frame(JSON, 1, &["\"\u{20ac}\"".as_bytes()]),
            &frame(VALUES, 2, &[b"x", b"yz"]),
            &frame(JSON, 5, &[b"3"]),
        ]
        .concat();
        let expected: [&[u8]; 6] = [
            b"1",
            b"{\"a\":2}",
            "\"\u{20ac}\"".as_bytes(),
            b"x",
            b"yz",
            b"3",
        ];
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let mut reader = BatchReader::new(100, &stream[..first]);
                let (mut got, mut notices) = (Vec::new(), Vec::new());
                reader.advance(0, &mut notices).unwrap();
                for piece in [&stream[first..second], &stream[second..]] {
                    notices.extend(feed(&mut reader, piece).unwrap());
                    let taken = reader.take();
                    got.extend(payloads(&taken.frames));
                    reader.recycle(taken.frames.into_region());
                }
                assert_eq!(got, expected, "{first} {second}");
                assert_eq!(notices, [Notice::Acknowledged(9)]);
                assert_eq!(reader.unfinished(), 0);
            }
        }
    }

    #[test]
    fn only_what_cannot_be_taken_counts_as_unfinished() {
        let mut reader = BatchReader::new(100, &[]);
        let stream = [frame(JSON, 0, &[b"1"]), frame(JSON, 1, &[b"2"])].concat();
        feed(&mut reader, &stream[..stream.len() - 1]).unwrap();
        assert_eq!(reader.unfinished(), HEADER + 1);
        feed(&mut reader, &stream[stream.len() - 1..]).unwrap();
        assert_eq!(reader.unfinished(), 0);
    }

    #[test]
    fn json_of_several_frames_is_one_array_text() {
        let mut reader = BatchReader::new(100, &[]);
        let values = frame(VALUES, 2, &[b"v"]);
        let stream = [
            frame(JSON, 0, &[b"1", b"2"]),
            frame(JSON, 1, &[b"[3]"]),
            values,
        ]
        .concat();
        feed(&mut reader, &stream).unwrap();
        let frames = reader.take().frames;
        let runs = frames.runs();
        assert_eq!(runs.len(), 2);
        let text = &frames.region()[runs[0].bytes.clone()];
        let value: serde_json::Value = serde_json::from_slice(text).unwrap();
        assert_eq!(value, serde_json::json!([1, 2, [3]]));
        assert!(runs[0].ascii);
        assert_eq!(
            (runs[0].messages.clone(), runs[1].messages.clone()),
            (0..3, 3..4)
        );
    }

    #[test]
    fn a_frame_that_does_not_hold_what_its_header_says_is_refused_and_the_one_before_kept() {
        let mut wrong_count = frame(JSON, 1, &[b"1", b"2"]);
        wrong_count[8] = 3;
        let mut no_newline = frame(JSON, 1, &[b"1"]);
        *no_newline.last_mut().unwrap() = b' ';
        let mut overlong_value = frame(VALUES, 1, &[b"ab"]);
        overlong_value[HEADER] = 3;
        let empty_value = frame(VALUES, 1, &[b"a", b""]);
        let out_of_order = frame(JSON, 0, &[b"1"]);
        let too_long = frame(JSON, 1, &[&[b'1'; 101]]);
        let too_long_among_others = frame(JSON, 1, &[b"1", &[b'1'; 101]]);
        let mut phantom = frame(JSON, 1, &[b"1"]);
        phantom[..1].copy_from_slice(&Header::control(Kind::Again, 1, 1).encode()[..1]);
        for bad in [
            wrong_count,
            no_newline,
            overlong_value,
            empty_value,
            out_of_order,
            too_long,
            too_long_among_others,
            phantom,
        ] {
            let mut reader = BatchReader::new(100, &[]);
            let stream = [frame(JSON, 0, &[b"\"good\""]), bad].concat();
            assert!(feed(&mut reader, &stream).is_err(), "{stream:?}");
            assert_eq!(payloads(&reader.take().frames), [b"\"good\""]);
        }
    }

    #[test]
    fn descriptors_that_did_not_come_are_a_lie_and_more_than_announced_too() {
        let mut handles = frame(Kind::Handles(Framing::JsonLines), 0, &[b"1"]);
        handles[2] = 1;
        let mut reader = BatchReader::new(100, &[]);
        assert!(feed(&mut reader, &handles).is_err());
        let mut reader = BatchReader::new(100, &[]);
        let two = || {
            std::io::pipe()
                .map(|(a, b)| vec![a.into(), b.into()])
                .unwrap()
        };
        reader.keep(two(), false).unwrap();
        assert!(feed(&mut reader, &handles).is_err());
        for _ in 0..MAX_GROUPS {
            let _ = reader.keep(two(), false);
        }
        assert!(reader.keep(two(), false).is_err());
    }

    #[test]
    fn an_announced_length_alone_takes_little_memory() {
        let mut reader = BatchReader::new(1 << 30, &[]);
        let header = Header {
            kind: JSON,
            descriptors: 0,
            length: 1 << 30,
            messages: 1,
            number: 0,
        };
        feed(&mut reader, &header.encode()).unwrap();
        reader.room();
        assert!(reader.memory() <= TRUST + FIRST);
    }

    #[test]
    fn frames_without_messages_take_no_memory_however_they_are_cut() {
        let mut reader = BatchReader::new(1000, &[]);
        let control = Header::control(Kind::Acknowledge, 7, 0).encode();
        let (front, back) = control.split_at(7);
        feed(&mut reader, front).unwrap();
        for _ in 0..20_000 {
            feed(&mut reader, &[back, front].concat()).unwrap();
            assert_eq!(reader.take().frames.len(), 0);
            assert_eq!(reader.unfinished(), front.len());
        }
        assert_eq!(reader.memory(), FIRST);
        let rest = [back, &frame(JSON, 0, &[b"1"])].concat();
        feed(&mut reader, &rest).unwrap();
        assert_eq!(payloads(&reader.take().frames), [b"1"]);
    }

    /// A frame with so many handles, which come along.
    fn feed_handles(
        reader: &mut BatchReader,
        number: u32,
        count: usize,
    ) -> Result<Vec<Notice>, ReceiveError> {
        let mut handles = frame(
            Kind::Handles(Framing::JsonLines),
            number,
            &vec![&b"1"[..]; count],
        );
        handles[2] = count as u8;
        let pipe = || -> OwnedFd { std::io::pipe().unwrap().0.into() };
        reader.keep((0..count).map(|_| pipe()).collect(), false)?;
        feed(reader, &handles)
    }

    #[test]
    fn descriptors_that_wait_to_be_taken_are_bounded() {
        let mut reader = BatchReader::new(1000, &[]);
        // Everything behind this one waits.
        reader.keep(Vec::new(), true).unwrap();
        let mut missing = frame(Kind::Handles(Framing::JsonLines), 0, &[b"0"]);
        missing[2] = 1;
        assert_eq!(feed(&mut reader, &missing).unwrap(), [Notice::Refuse(0)]);
        for number in 1..=4 {
            feed_handles(&mut reader, number, MAX_HELD_DESCRIPTORS / 4).unwrap();
        }
        assert!(feed_handles(&mut reader, 5, 1).is_err());
        reader.give_up_missing();
        assert_eq!(reader.take().handles.len(), MAX_HELD_DESCRIPTORS);
    }

    #[test]
    fn what_was_not_agreed_on_is_refused_after_a_first_message_too() {
        let mut reader = BatchReader::new(1000, &[]);
        feed(&mut reader, &frame(JSON, 0, &[b"1"])).unwrap();
        assert_eq!(reader.take().frames.len(), 1);
        let drop = Header::control(Kind::Drop, 0, 0).encode();
        assert!(feed(&mut reader, &drop).is_err());
    }

    #[test]
    fn what_waits_behind_missing_descriptors_is_bounded() {
        let mut reader = BatchReader::new(1 << 30, &[]);
        reader.keep(Vec::new(), true).unwrap();
        let mut handles = frame(Kind::Handles(Framing::JsonLines), 0, &[b"0"]);
        handles[2] = 1;
        assert_eq!(feed(&mut reader, &handles).unwrap(), [Notice::Refuse(0)]);
        let block = vec![b'1'; MAX_HELD / 5];
        let mut notices = Vec::new();
        for number in 1..6 {
            assert!(notices.is_empty());
            assert_eq!(reader.take().frames.len(), 0);
            notices = feed(&mut reader, &frame(JSON, number, &[&block])).unwrap();
        }
        assert_eq!(notices, [Notice::Abandon(0)]);
        assert_eq!(reader.take().frames.len(), 5);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_in_arbitrary_pieces_do_no_harm(
            pieces in prop::collection::vec((any::<u8>(), prop::collection::vec(0u8..20, 0..40)), 1..30),
        ) {
            let mut reader = BatchReader::new(1000, &[]);
            for (number, (choice, noise)) in pieces.into_iter().enumerate() {
                let piece = match choice % 4 {
                    0 => frame(JSON, number as u32, &[b"1", b"2"]),
                    1 => frame(VALUES, number as u32, &[&noise]),
                    2 => Header::control(Kind::Refuse, number as u32, 0).encode().to_vec(),
                    _ => noise,
                };
                if feed(&mut reader, &piece).is_err() {
                    break;
                }
                let taken = reader.take();
                prop_assert_eq!(payloads(&taken.frames).len(), taken.frames.len());
                reader.recycle(taken.frames.into_region());
                prop_assert!(reader.memory() <= 4 * FIRST);
            }
        }
    }
}

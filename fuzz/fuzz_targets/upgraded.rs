//! A channel whose peer has gone through the upgrade and then is hostile: arbitrary frames, pieces,
//! descriptors and losses, tables of what lies in areas, and releases of what may not be there. It
//! must not panic, must not take more memory than a few reads and the areas, and must leave no
//! descriptor open.

#![no_main]

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use arbitrary::Arbitrary;
use brood::ipc::upgrade::{Offer, Step as Said, Terms, VERSION, announcement};
use brood::ipc::{
    Ancillary, Arrived, Beside, Channel, Content, Framing, Limits, ReadEnd, Ready, Received,
    SendMode, Transport,
};
use brood::sys::area::Area;
use libfuzzer_sys::fuzz_target;
use nix::errno::Errno;

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// A frame whose header says this; the peer may lie about the length.
    Frame {
        kind: u8,
        descriptors: u8,
        announced: u8,
        messages: u8,
        number: u8,
        payload: &'a [u8],
        lie: Option<u32>,
        truncated: bool,
    },
    /// A frame with a value and a table of what lies beside it, mostly in areas.
    Placed {
        number: u8,
        pieces: Vec<(u8, u8, u8, u8)>,
        descriptors: u8,
    },
    Noise(&'a [u8]),
    /// This side puts something into an area.
    Place(u16),
    Expire,
    Send {
        handle: bool,
        length: u16,
    },
    Flush,
}

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    advanced: bool,
    steps: Vec<Step<'a>>,
}

/// What the peer has put on the wire; what is sent to it is swallowed.
#[derive(Default)]
struct Wire(VecDeque<(Vec<u8>, Vec<OwnedFd>, bool)>);

impl Transport for Wire {
    fn send(&mut self, bytes: &[IoSlice<'_>], _: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        Ok(bytes.iter().map(|slice| slice.len()).sum())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Received, Errno> {
        let (mut bytes, descriptors, truncated) = self.0.pop_front().ok_or(Errno::EAGAIN)?;
        let rest = bytes.split_off(bytes.len().min(buffer.len()));
        buffer[..bytes.len()].copy_from_slice(&bytes);
        if !rest.is_empty() {
            self.0.push_front((rest, Vec::new(), false));
        }
        let ancillary = match (descriptors.is_empty(), truncated) {
            (_, true) => Ancillary::Truncated(descriptors),
            (true, false) => Ancillary::None,
            (false, false) => Ancillary::Complete(descriptors),
        };
        Ok(Received {
            bytes: bytes.len(),
            ancillary,
        })
    }

    fn wait(&mut self, wanted: Ready, _: Duration) -> Result<Ready, Errno> {
        Ok(wanted)
    }
}

/// A value of one byte, and an entry for each piece, as the layout has them.
fn placed(number: u8, pieces: &[(u8, u8, u8, u8)], descriptors: u8) -> Vec<u8> {
    let mut payload = vec![1, 0, 0, 0, b'v'];
    for (area, length, place, content) in pieces {
        payload.extend(u32::from(*area % 8).to_le_bytes());
        payload.extend(u32::from(*length).to_le_bytes());
        payload.extend([*place % 4, *content % 4, 0, 0]);
    }
    let mut frame = vec![13, 0, descriptors, 0];
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(1u32.to_le_bytes());
    frame.extend(u32::from(number).to_le_bytes());
    frame.extend(payload);
    frame
}

/// Something whose first message is the content of an area of this side's.
fn place(channel: &mut Channel<Wire>, length: usize) {
    let Ok(Some((number, area))) = channel.take_area(length) else {
        return;
    };
    area.fill(&vec![1; length]);
    let piece = Beside::Area {
        number,
        length: length as u32,
        content: Content::Bytes,
    };
    channel.reserve_as(1, Framing::Advanced)[0] = b'v';
    let _ = channel.commit_beside(1, vec![piece]);
}

/// Every other one is an area.
fn given(index: u8) -> OwnedFd {
    match index % 2 {
        0 => Area::create(4096).expect("an area").1,
        _ => descriptor(),
    }
}

fn descriptor() -> OwnedFd {
    File::open("/dev/null").expect("a descriptor").into()
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fuzz_target!(|input: Input<'_>| {
    let before = open_descriptors();
    let framing = match input.advanced {
        true => Framing::Advanced,
        false => Framing::JsonLines,
    };
    let terms = Terms::of(VERSION);
    let offer = Offer::new(terms, 1, "0123456789abcdef");
    let mut wire = Wire::default();
    for step in [Said::Answer, Said::Switch] {
        let said = announcement(framing, step, &offer.nonce, terms);
        let framed = match framing {
            Framing::JsonLines => [&said[..], b"\n"].concat(),
            Framing::Advanced => [&(said.len() as u32).to_be_bytes()[..], &said].concat(),
        };
        wire.0.push_back((framed, Vec::new(), false));
    }
    let mut own = Vec::new();
    for step in &input.steps {
        match step {
            Step::Frame {
                kind,
                descriptors,
                announced,
                messages,
                number,
                payload,
                lie,
                truncated,
            } => {
                let length = lie.unwrap_or(payload.len() as u32);
                let mut frame = vec![kind % 18, 0, *announced % 8, 0];
                frame.extend(length.to_le_bytes());
                frame.extend(u32::from(*messages % 8).to_le_bytes());
                frame.extend(u32::from(*number).to_le_bytes());
                frame.extend_from_slice(payload);
                let descriptors = (0..descriptors % 4).map(|_| descriptor()).collect();
                wire.0.push_back((frame, descriptors, *truncated));
            }
            Step::Placed {
                number,
                pieces,
                descriptors,
            } => {
                let frame = placed(*number, pieces, descriptors % 4);
                let files = (0..descriptors % 4).map(given).collect();
                wire.0.push_back((frame, files, false));
            }
            Step::Noise([]) => {}
            Step::Noise(bytes) => wire.0.push_back((bytes.to_vec(), Vec::new(), false)),
            Step::Send { .. } | Step::Flush | Step::Place(_) | Step::Expire => own.push(step),
        }
    }
    let limits = Limits {
        max_message: 10_000,
        ..Limits::default()
    };
    let mut channel = Channel::with_limits(wire, framing, limits);
    channel.offer_upgrade(&offer);
    let mut own = own.into_iter();
    loop {
        match own.next() {
            Some(Step::Send { handle, length }) => {
                let handle = handle.then(descriptor);
                let _ = channel.send(&vec![b'1'; (*length).into()], handle, SendMode::Gather);
            }
            Some(Step::Place(length)) => place(&mut channel, 1 + usize::from(*length)),
            Some(Step::Expire) => drop(channel.expire_areas(Duration::ZERO)),
            _ => drop(channel.flush()),
        }
        let mut batch = channel.receive(1 << 16);
        for (index, pieces) in batch.take_beside() {
            assert!(index < batch.len());
            for piece in pieces {
                if let Arrived::Copied(copied, _) = piece {
                    assert!((1..=4096).contains(&copied.bytes().len()));
                }
            }
        }
        let end = batch.end();
        for run in batch.runs() {
            assert!(run.bytes.end <= batch.region().len());
            for index in run.messages {
                assert!(batch.message(index).len() <= limits.max_message);
            }
        }
        channel.recycle(batch);
        if !matches!(
            end,
            ReadEnd::Budget | ReadEnd::ShortRead | ReadEnd::Switched
        ) {
            break;
        }
    }
    drop(channel);
    assert_eq!(open_descriptors(), before);
});

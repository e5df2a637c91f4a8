//! A channel whose peer has gone through the upgrade and then is hostile: arbitrary frames, pieces,
//! descriptors and losses. It must not panic, must not take more memory than a few reads, and must
//! leave no descriptor open.

#![no_main]

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use arbitrary::Arbitrary;
use brood::ipc::upgrade::{Offer, Step as Said, Terms, VERSION, announcement};
use brood::ipc::{
    Ancillary, Channel, Framing, Limits, ReadEnd, Ready, Received, SendMode, Transport,
};
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
    Noise(&'a [u8]),
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
    let mut sends = Vec::new();
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
                let mut frame = vec![kind % 14, 0, *announced % 8, 0];
                frame.extend(length.to_le_bytes());
                frame.extend(u32::from(*messages % 8).to_le_bytes());
                frame.extend(u32::from(*number).to_le_bytes());
                frame.extend_from_slice(payload);
                let descriptors = (0..descriptors % 4).map(|_| descriptor()).collect();
                wire.0.push_back((frame, descriptors, *truncated));
            }
            Step::Noise([]) => {}
            Step::Noise(bytes) => wire.0.push_back((bytes.to_vec(), Vec::new(), false)),
            Step::Send { handle, length } => sends.push(Some((*handle, *length))),
            Step::Flush => sends.push(None),
        }
    }
    let limits = Limits {
        max_message: 10_000,
        ..Limits::default()
    };
    let mut channel = Channel::with_limits(wire, framing, limits);
    channel.offer_upgrade(&offer);
    let mut sends = sends.into_iter();
    loop {
        match sends.next().flatten() {
            Some((handle, length)) => {
                let handle = handle.then(descriptor);
                let _ = channel.send(&vec![b'1'; length.into()], handle, SendMode::Gather);
            }
            None => drop(channel.flush()),
        }
        let batch = channel.receive(1 << 16);
        let end = batch.end();
        for run in batch.runs() {
            assert!(run.bytes.end <= batch.region().len());
            for index in run.messages {
                assert!(batch.message(index).len() <= limits.max_message);
            }
        }
        channel.recycle(batch);
        if matches!(end, ReadEnd::Drained | ReadEnd::Closed | ReadEnd::Failed(_)) {
            break;
        }
    }
    drop(channel);
    assert_eq!(open_descriptors(), before);
});

//! The frame decoder alone: arbitrary bytes in arbitrary pieces must be framed as the obvious
//! decoder frames them, whatever the pieces.

#![no_main]

use arbitrary::Arbitrary;
use brood::ipc::{Control, FrameReader, Framing, ReceiveError};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    advanced: bool,
    take_often: bool,
    thorough: bool,
    limit: u16,
    pieces: Vec<u8>,
    stream: &'a [u8],
}

fuzz_target!(|input: Input<'_>| {
    let framing = if input.advanced {
        Framing::Advanced
    } else {
        Framing::JsonLines
    };
    let limit = usize::from(input.limit);
    let mut reader = FrameReader::new(framing, limit);
    let (mut got, mut controls, mut rest) = (Vec::new(), Vec::new(), input.stream);
    let mut sizes = input.pieces.iter().map(|&size| usize::from(size) + 1);
    let error = loop {
        let size = sizes.next().unwrap_or(1 << 14).min(rest.len());
        let (piece, later) = rest.split_at(size);
        rest = later;
        reader.room()[..size].copy_from_slice(piece);
        let result = reader.advance(size, input.thorough, &mut controls);
        let last = result.is_err() || rest.is_empty();
        if input.take_often || last {
            let frames = reader.take();
            for (index, control) in controls.drain(..) {
                check_control(framing, &frames.region()[frames.range(index)], control);
            }
            if framing == Framing::JsonLines {
                let text = frames.json_array();
                assert_eq!(text.first(), Some(&b'['));
                assert_eq!(text.last(), Some(&b']'));
                assert!(frames.is_empty() || frames.is_ascii() == text.is_ascii());
            }
            got.extend((0..frames.len()).map(|i| frames.region()[frames.range(i)].to_vec()));
            reader.recycle(frames);
        }
        if last {
            break result.err();
        }
    };
    let (expected, too_large, empty) = reference(framing, input.stream, limit);
    assert_eq!(got, expected);
    assert_eq!(
        matches!(error, Some(ReceiveError::MessageTooLarge { .. })),
        too_large
    );
    assert_eq!(matches!(error, Some(ReceiveError::EmptyFrame)), empty);
});

/// A line that another parser understands must say to it, too, that it is this control message.
fn check_control(framing: Framing, payload: &[u8], control: Control) {
    if framing == Framing::Advanced {
        assert!(payload.len() > control.cmd().len());
    } else if let Ok(value) = serde_json::from_slice::<serde_json::Value>(payload) {
        assert_eq!(value["cmd"], control.cmd());
    }
}

/// The payloads, whether one is too large, whether one is empty where none may be.
fn reference(framing: Framing, stream: &[u8], limit: usize) -> (Vec<Vec<u8>>, bool, bool) {
    let mut got = Vec::new();
    if framing == Framing::JsonLines {
        let mut lines: Vec<_> = stream.split(|&byte| byte == b'\n').collect();
        let too_large = lines.iter().position(|line| line.len() > limit);
        lines.truncate(too_large.unwrap_or(lines.len() - 1));
        got.extend(lines.into_iter().map(<[u8]>::to_vec));
        return (got, too_large.is_some(), false);
    }
    let mut rest = stream;
    while let Some((prefix, payload)) = rest.split_first_chunk() {
        let size = u32::from_be_bytes(*prefix) as usize;
        if size == 0 || size > limit {
            return (got, size > limit, size == 0);
        }
        let Some((payload, later)) = payload.split_at_checked(size) else {
            break;
        };
        got.push(payload.to_vec());
        rest = later;
    }
    (got, false, false)
}

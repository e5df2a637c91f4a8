//! A channel in a process without free descriptors.

#![allow(clippy::unwrap_used)]

mod shortage;

use std::fs::File;
use std::io::{IoSlice, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use brood::ipc::{Channel, ChannelEvent, Framing, HandleSlot, SendMode, UnixTransport};
use brood::sys::socket::{self, Ancillary, MAX_DESCRIPTORS};
use brood::sys::spare;
use nix::errno::Errno;
use shortage::{open_descriptors, with_room_for};

const HANDLE: &[u8] = br#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":"m"}"#;

fn channels() -> (Channel<UnixTransport>, Channel<UnixTransport>) {
    let (one, other) = UnixStream::pair().unwrap();
    let channel =
        |socket: UnixStream| Channel::new(UnixTransport::new(socket.into()), Framing::JsonLines);
    (channel(one), channel(other))
}

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

/// Receives at one end and answers the handles found; returns them.
fn answer(channel: &mut Channel<UnixTransport>) -> Vec<HandleSlot> {
    let mut batch = channel.receive(1 << 20);
    let slots: Vec<_> = batch
        .take_handles()
        .into_iter()
        .map(|(_, slot)| slot)
        .collect();
    for slot in &slots {
        match slot {
            HandleSlot::Received(_) => channel.acknowledge_handle().unwrap(),
            HandleSlot::Missing => channel.refuse_handle().unwrap(),
        }
    }
    slots
}

fn truncation_is_reported_with_what_did_arrive() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let many = vec![ours.as_fd(); MAX_DESCRIPTORS];
    socket::send(ours.as_fd(), &[IoSlice::new(b"x")], &many).unwrap();
    let received = with_room_for(10, || socket::receive(theirs.as_fd(), &mut [0; 8]).unwrap());
    match received.ancillary {
        Ancillary::Truncated(some) => assert_eq!(some.len(), 10),
        other => panic!("{other:?}"),
    }
}

fn a_handle_lost_to_the_shortage_comes_again_when_it_ends() {
    let (mut one, mut other) = channels();
    let (_reader, writer) = pipe();
    one.send(HANDLE, Some(OwnedFd::from(writer)), SendMode::WriteNow)
        .unwrap();
    one.send(b"1", None, SendMode::WriteNow).unwrap();
    with_room_for(0, || {
        for _ in 0..2 {
            assert!(matches!(answer(&mut other)[..], [HandleSlot::Missing]));
            answer(&mut one);
        }
    });
    assert!(matches!(answer(&mut other)[..], [HandleSlot::Received(_)]));
    answer(&mut one);
    assert_eq!(
        one.next_event(),
        Some(ChannelEvent::HandleAcknowledged { sequence: 1 })
    );
    assert_eq!(other.receive(1 << 20).json_array(), b"[1]");
    assert_eq!(
        (
            one.stats().retransmissions,
            other.stats().descriptors_truncated
        ),
        (2, 2)
    );
}

fn a_handle_is_given_up_when_the_shortage_does_not_end() {
    let (mut one, mut other) = channels();
    let (_reader, writer) = pipe();
    one.send(HANDLE, Some(OwnedFd::from(writer)), SendMode::WriteNow)
        .unwrap();
    one.send(b"1", None, SendMode::WriteNow).unwrap();
    with_room_for(0, || {
        for _ in 0..4 {
            assert!(matches!(answer(&mut other)[..], [HandleSlot::Missing]));
            answer(&mut one);
        }
    });
    assert_eq!(
        one.next_event(),
        Some(ChannelEvent::HandleNotReceived { sequence: 1 })
    );
    assert_eq!(other.receive(1 << 20).json_array(), b"[1]");
}

fn the_one_in_reserve_is_there_when_no_other_is_left() {
    let (mut reader, writer) = pipe();
    let socket = writer.as_fd().as_raw_fd();
    let ours = with_room_for(0, || {
        let ours = spare::duplicate(socket).unwrap();
        assert_eq!(spare::duplicate(socket).unwrap_err(), Errno::EMFILE);
        drop(writer);
        ours
    });
    spare::keep();
    let another = with_room_for(0, || spare::duplicate(ours.as_raw_fd()).unwrap());
    File::from(another).write_all(b"through").unwrap();
    spare::keep();
    drop(ours);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

fn many_handles_leave_nothing_open() {
    let (mut one, mut other) = channels();
    for _ in 0..500 {
        let (_reader, writer) = pipe();
        one.send(HANDLE, Some(OwnedFd::from(writer)), SendMode::WriteNow)
            .unwrap();
        assert!(matches!(answer(&mut other)[..], [HandleSlot::Received(_)]));
        answer(&mut one);
    }
    assert!(!one.awaits_ack());
}

fn a_flood_of_descriptors_leaves_nothing_open() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut channel = Channel::new(UnixTransport::new(theirs.into()), Framing::JsonLines);
    let many = vec![ours.as_fd(); MAX_DESCRIPTORS];
    while socket::send(ours.as_fd(), &[IoSlice::new(b"1\n")], &many).is_ok() {}
    while !channel.has_ended() {
        let _ = channel.receive(1 << 20);
    }
}

#[test]
fn descriptors_are_lost_found_and_closed() {
    spare::keep();
    for scenario in [
        truncation_is_reported_with_what_did_arrive,
        a_handle_lost_to_the_shortage_comes_again_when_it_ends,
        a_handle_is_given_up_when_the_shortage_does_not_end,
        the_one_in_reserve_is_there_when_no_other_is_left,
        many_handles_leave_nothing_open,
        a_flood_of_descriptors_leaves_nothing_open,
    ] {
        let before = open_descriptors();
        scenario();
        assert_eq!(open_descriptors(), before);
    }
}

//! Channels over real sockets: what the fake cannot vouch for.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::fake::{Probe, drain_on_exit};
use super::*;

const BUDGET: usize = 1 << 20;

fn channels(framing: Framing) -> (Channel<UnixTransport>, Channel<UnixTransport>) {
    let (one, other) = UnixStream::pair().unwrap();
    let channel = |socket: UnixStream| Channel::new(UnixTransport::new(socket.into()), framing);
    (channel(one), channel(other))
}

/// A channel and the plain socket at its other end, which blocks.
fn channel_and_socket() -> (Channel<UnixTransport>, UnixStream) {
    let (one, other) = UnixStream::pair().unwrap();
    (
        Channel::new(UnixTransport::new(one.into()), Framing::JsonLines),
        other,
    )
}

fn handle_message(padding: usize) -> Vec<u8> {
    let padding = "p".repeat(padding);
    format!(r#"{{"cmd":"NODE_HANDLE","type":"net.Native","msg":"{padding}"}}"#).into()
}

/// Reads at one end, answering handles, and flushes the other, until `messages` arrived.
fn pump(
    from: &mut Channel<UnixTransport>,
    to: &mut Channel<UnixTransport>,
    messages: usize,
) -> (Vec<Vec<u8>>, Vec<OwnedFd>) {
    let (mut got, mut descriptors) = (Vec::new(), Vec::new());
    while got.len() < messages {
        from.flush();
        let mut batch = to.receive(BUDGET);
        assert!(
            !matches!(batch.end(), ReadEnd::Closed | ReadEnd::Failed(_)),
            "{:?}",
            batch.end()
        );
        for (_, slot) in batch.take_handles() {
            match slot {
                HandleSlot::Received(descriptor) => descriptors.push(descriptor),
                HandleSlot::Missing => panic!("a handle is missing"),
            }
            to.acknowledge_handle().unwrap();
        }
        got.extend((0..batch.len()).map(|i| batch.message(i).to_vec()));
        to.recycle(batch);
        let replies = from.receive(BUDGET);
        from.recycle(replies);
    }
    (got, descriptors)
}

fn wait_readable(socket: BorrowedFd<'_>) {
    poll(
        &mut [PollFd::new(socket, PollFlags::POLLIN)],
        PollTimeout::NONE,
    )
    .unwrap();
}

#[test]
fn a_channel_may_move_to_another_thread() {
    fn check<T: Send>() {}
    check::<Channel<UnixTransport>>();
    check::<Batch>();
}

#[test]
fn large_messages_go_through_a_small_socket_both_framings() {
    for framing in [Framing::JsonLines, Framing::Advanced] {
        let (mut one, mut other) = channels(framing);
        let sizes = [1, 200_000, 3, 8 << 20, 65_536, 2];
        let payloads: Vec<_> = sizes.iter().map(|&size| vec![b'1'; size]).collect();
        for payload in &payloads {
            one.send(payload, None, SendMode::WriteNow).unwrap();
        }
        assert!(one.wants_writable());
        let (got, _) = pump(&mut one, &mut other, payloads.len());
        assert!(got == payloads);
        assert_eq!((one.completed(), one.queued_bytes()), (6, 0));
    }
}

#[test]
fn handles_of_messages_larger_than_a_kernel_buffer_are_not_mixed_up() {
    let (mut one, mut other) = channels(Framing::JsonLines);
    let mut probes = Vec::new();
    for i in 0..40 {
        let (probe, descriptor) = Probe::new();
        let payload = handle_message(if i % 3 == 0 { 150_000 } else { i });
        one.send(&payload, Some(descriptor), SendMode::Gather)
            .unwrap();
        probes.push(probe);
    }
    let (_, descriptors) = pump(&mut one, &mut other, probes.len());
    assert_eq!(descriptors.len(), probes.len());
    for (probe, descriptor) in probes.iter().zip(descriptors) {
        assert!(probe.is(&descriptor));
    }
    assert_eq!(one.stats().retransmissions, 0);
    for probe in probes {
        probe.assert_closed_everywhere();
    }
}

/// A peer that does not wait for acknowledgements: the tail of one message and the descriptor of
/// the next come in one read.
#[test]
fn descriptors_that_arrive_before_the_end_of_the_message_before_are_paired_in_order() {
    let (mut channel, peer) = channel_and_socket();
    let mut probes = Vec::new();
    for size in [50_000, 10, 60_000, 20] {
        let (probe, descriptor) = Probe::new();
        let line = [handle_message(size), b"\n".to_vec()].concat();
        let sent =
            crate::sys::socket::send(peer.as_fd(), &[IoSlice::new(&line)], &[descriptor.as_fd()]);
        assert_eq!(sent, Ok(line.len()));
        probes.push(probe);
    }
    let mut batch = channel.receive(BUDGET);
    assert_eq!(batch.len(), 4);
    for (i, (index, slot)) in batch.take_handles().into_iter().enumerate() {
        assert_eq!(i, index);
        assert!(matches!(slot, HandleSlot::Received(got) if probes[i].is(&got)));
    }
}

#[test]
fn a_received_descriptor_works() {
    let (mut one, mut other) = channels(Framing::Advanced);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let payload = b"\xff\x0fo\"\x03cmd\"\x0bNODE_HANDLE";
    one.send(payload, Some(writer.into()), SendMode::WriteNow)
        .unwrap();
    let (_, descriptors) = pump(&mut one, &mut other, 1);
    for descriptor in descriptors {
        File::from(descriptor).write_all(b"through").unwrap();
    }
    drop((one, other));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
}

#[test]
fn a_peer_that_dies_with_unread_data_is_one_end_of_file() {
    let (mut channel, mut peer) = channel_and_socket();
    channel.send(b"1", None, SendMode::WriteNow).unwrap();
    peer.write_all(b"\"last words\"\n").unwrap();
    drop(peer);
    let batch = channel.receive(BUDGET);
    assert_eq!(batch.json_array(), b"[\"last words\"]");
    assert_eq!(channel.receive(BUDGET).end(), ReadEnd::Closed);
    assert_eq!(channel.receive(BUDGET).end(), ReadEnd::Closed);
}

#[test]
fn draining_at_exit_delivers_everything_to_a_peer_that_reads() {
    let (mut channel, mut peer) = channel_and_socket();
    for _ in 0..10_000 {
        channel.send(&[b'1'; 999], None, SendMode::Gather).unwrap();
    }
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).unwrap();
        bytes.len()
    });
    assert_eq!(
        drain_on_exit(&mut channel, Instant::now() + Duration::from_secs(60)),
        0
    );
    assert_eq!(channel.unwritten_messages(), 0);
    drop(channel);
    assert_eq!(reader.join().unwrap(), 10_000_000);
}

#[test]
fn draining_at_exit_waits_for_acknowledgements() {
    let (mut channel, mut other) = channels(Framing::JsonLines);
    let mut probes = Vec::new();
    for _ in 0..20 {
        let (probe, descriptor) = Probe::new();
        channel
            .send(&handle_message(1000), Some(descriptor), SendMode::WriteNow)
            .unwrap();
        channel.send(b"1", None, SendMode::Gather).unwrap();
        probes.push(probe);
    }
    assert_eq!(channel.held_messages(), 39);
    let reader = thread::spawn(move || {
        let mut messages = 0;
        while !other.has_ended() {
            wait_readable(other.transport().as_fd());
            let mut batch = other.receive(BUDGET);
            messages += batch.len();
            for (_, slot) in batch.take_handles() {
                assert!(matches!(slot, HandleSlot::Received(_)));
                other.acknowledge_handle().unwrap();
            }
        }
        messages
    });
    assert_eq!(
        drain_on_exit(&mut channel, Instant::now() + Duration::from_secs(60)),
        0
    );
    drop(channel);
    assert_eq!(reader.join().unwrap(), 40);
    for probe in probes {
        probe.assert_closed_everywhere();
    }
}

#[test]
fn draining_at_exit_ends_at_the_deadline_when_the_peer_does_not_read() {
    let (mut channel, _peer) = channel_and_socket();
    for _ in 0..10 {
        channel
            .send(&vec![b'1'; 1 << 20], None, SendMode::WriteNow)
            .unwrap();
    }
    let begin = Instant::now();
    let lost = drain_on_exit(&mut channel, begin + Duration::from_millis(30));
    assert_eq!(lost, 10);
    assert!(begin.elapsed() >= Duration::from_millis(30));
}

//! A channel against a scripted peer: one behaviour of queue, handles and end a test.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::fake::{FakeSocket, Probe, drain_on_exit, pair};
use super::*;

const BUDGET: usize = 1 << 20;
const HANDLE: &[u8] = br#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":1}"#;
const ACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
const NACK: &[u8] = b"{\"cmd\":\"NODE_HANDLE_NACK\"}\n";

fn channel() -> (Channel<FakeSocket>, FakeSocket) {
    let (ours, theirs) = pair();
    (Channel::new(ours, Framing::JsonLines), theirs)
}

fn now(channel: &mut Channel<FakeSocket>, payload: &[u8]) -> SendStatus {
    channel.send(payload, None, SendMode::WriteNow).unwrap()
}

fn gather(channel: &mut Channel<FakeSocket>, payload: &[u8]) -> SendStatus {
    channel.send(payload, None, SendMode::Gather).unwrap()
}

fn give(channel: &mut Channel<FakeSocket>, payload: &[u8]) -> (SendStatus, Probe) {
    let (probe, descriptor) = Probe::new();
    (
        channel
            .send(payload, Some(descriptor), SendMode::WriteNow)
            .unwrap(),
        probe,
    )
}

fn handle_line() -> Vec<u8> {
    [HANDLE, b"\n"].concat()
}

fn received(batch: &Batch) -> Vec<Vec<u8>> {
    (0..batch.len())
        .map(|i| batch.message(i).to_vec())
        .collect()
}

/// Receives what there is, for its effect on the queue.
fn take_in(channel: &mut Channel<FakeSocket>) {
    let batch = channel.receive(BUDGET);
    channel.recycle(batch);
}

fn events(channel: &mut Channel<FakeSocket>) -> Vec<ChannelEvent> {
    std::iter::from_fn(|| channel.next_event()).collect()
}

// Writing and gathering.

#[test]
fn a_message_written_at_once_is_framed_and_reported_written() {
    let (mut channel, mut peer) = channel();
    let status = now(&mut channel, b"{\"a\":1}");
    assert_eq!(
        status,
        SendStatus {
            progress: Progress::Written,
            sequence: 1,
            queued_bytes: 0,
            held_messages: 0
        }
    );
    assert_eq!(peer.get().0, b"{\"a\":1}\n");
    let (ours, mut peer) = pair();
    let mut channel = Channel::new(ours, Framing::Advanced);
    now(&mut channel, b"\xff\x0fI\x02");
    assert_eq!(peer.get().0, b"\0\0\0\x04\xff\x0fI\x02");
}

#[test]
fn gathered_messages_wait_for_a_flush_and_go_in_order() {
    let (mut channel, mut peer) = channel();
    assert_eq!(gather(&mut channel, b"1").progress, Progress::Gathered);
    let status = gather(&mut channel, b"2");
    assert_eq!((status.sequence, status.queued_bytes), (2, 4));
    assert_eq!(peer.get().0, b"");
    assert_eq!((channel.completed(), channel.unwritten_messages()), (0, 2));
    assert_eq!(channel.flush(), FlushState::Empty);
    assert_eq!(peer.get().0, b"1\n2\n");
    assert_eq!((channel.completed(), channel.unwritten_messages()), (2, 0));
}

#[test]
fn a_message_written_at_once_takes_the_gathered_ones_along() {
    let (mut channel, mut peer) = channel();
    gather(&mut channel, b"1");
    assert_eq!(now(&mut channel, b"2").progress, Progress::Written);
    assert_eq!(peer.get().0, b"1\n2\n");
}

#[test]
fn sixty_four_kilobytes_do_not_wait() {
    let (mut channel, mut peer) = channel();
    let payload = [b'7'; 1023];
    for _ in 0..63 {
        assert_eq!(gather(&mut channel, &payload).progress, Progress::Gathered);
    }
    assert_eq!(gather(&mut channel, &payload).progress, Progress::Written);
    assert_eq!(peer.get().0.len(), 65_536);
}

#[test]
fn the_age_of_gathered_bytes_is_known_until_they_are_written() {
    let (mut channel, _peer) = channel();
    assert_eq!(channel.oldest_unsent(), None);
    now(&mut channel, b"1");
    assert_eq!(channel.oldest_unsent(), None);
    let before = Instant::now();
    gather(&mut channel, b"2");
    let since = channel.oldest_unsent().unwrap();
    assert!(since >= before && since <= Instant::now());
    gather(&mut channel, b"3");
    assert_eq!(channel.oldest_unsent(), Some(since), "the first one counts");
    channel.flush();
    assert_eq!(channel.oldest_unsent(), None);
}

#[test]
fn bytes_that_no_flush_could_write_have_no_age() {
    let (mut channel, peer) = channel();
    give(&mut channel, HANDLE);
    gather(&mut channel, b"held");
    assert_eq!(channel.oldest_unsent(), None);
    drop(peer);

    let (mut channel, _peer) = self::channel();
    channel.transport().set_capacity(4);
    now(&mut channel, b"blocked");
    gather(&mut channel, b"behind it");
    assert_eq!(channel.oldest_unsent(), None);
}

#[test]
fn reserved_room_can_be_committed_in_part_or_not_at_all() {
    let (mut channel, mut peer) = channel();
    channel.reserve(1000).fill(b'x');
    channel.reserve(100)[..2].copy_from_slice(b"ab");
    channel.commit(2, None, SendMode::WriteNow).unwrap();
    channel.reserve(10).fill(b'y');
    now(&mut channel, b"cd");
    assert_eq!(peer.get().0, b"ab\ncd\n");
}

#[test]
#[should_panic(expected = "committed 3 bytes, reserved 2")]
fn committing_more_than_was_reserved_is_refused_loudly() {
    let (mut channel, _peer) = channel();
    channel.reserve(2);
    let _ = channel.commit(3, None, SendMode::WriteNow);
}

// A full buffer.

#[test]
fn a_partial_write_keeps_the_rest_and_asks_for_writability() {
    let (mut channel, mut peer) = channel();
    channel.transport().set_capacity(10);
    let status = now(&mut channel, b"0123456789abcdef");
    assert_eq!(
        (status.progress, status.queued_bytes),
        (Progress::Blocked, 7)
    );
    assert!(channel.wants_writable());
    assert_eq!(channel.completed(), 0);
    assert_eq!(peer.get().0, b"0123456789");
    assert_eq!(
        now(&mut channel, b"next").progress,
        Progress::Blocked,
        "no call before writability"
    );
    assert_eq!(peer.get().0, b"");
    assert_eq!(channel.flush(), FlushState::Blocked);
    assert_eq!(channel.completed(), 1);
    assert_eq!(peer.get().0, b"abcdef\nnex");
    assert_eq!(channel.flush(), FlushState::Empty);
    assert!(!channel.wants_writable());
    assert_eq!(peer.get().0, b"t\n");
}

#[test]
fn completion_is_exact_wherever_the_kernel_cuts() {
    let (mut channel, mut peer) = channel();
    channel.transport().set_capacity(1);
    for payload in [&b"1"[..], b"22", b"", b"333"] {
        gather(&mut channel, payload);
    }
    // After so many bytes, so many messages are complete.
    for completed in [0, 1, 1, 1, 2, 3, 3, 3, 3, 4] {
        channel.flush();
        assert_eq!(channel.completed(), completed);
        assert_eq!(peer.get().0.len(), 1);
    }
    assert_eq!(channel.stats().messages_sent, 4);
}

#[test]
fn shortage_of_kernel_memory_is_waited_out_like_a_full_buffer() {
    for errno in [Errno::ENOBUFS, Errno::ENOMEM] {
        let (mut channel, mut peer) = channel();
        channel.transport().fail_next_send(errno);
        assert_eq!(now(&mut channel, b"1").progress, Progress::Blocked);
        assert_eq!(channel.flush(), FlushState::Empty);
        assert_eq!(peer.get().0, b"1\n");
    }
}

// Handles.

#[test]
fn a_descriptor_travels_with_the_first_byte_of_its_message_only() {
    let (mut channel, mut peer) = channel();
    channel.transport().set_capacity(20);
    let (status, probe) = give(&mut channel, HANDLE);
    assert_eq!(status.progress, Progress::Blocked);
    let mut all = Vec::new();
    let mut descriptors = Vec::new();
    loop {
        let (bytes, more) = peer.get();
        if bytes.is_empty() {
            break;
        }
        all.extend(bytes);
        descriptors.extend(more);
        channel.flush();
    }
    assert_eq!(all, handle_line());
    assert_eq!(descriptors.len(), 1);
    assert!(probe.is(&descriptors[0]));
    assert_eq!(channel.completed(), 1);
    assert_eq!(channel.stats().descriptors_sent, 1);
}

#[test]
fn after_a_handle_messages_are_held_until_it_is_acknowledged() {
    let (mut channel, mut peer) = channel();
    now(&mut channel, b"before");
    let (status, probe) = give(&mut channel, HANDLE);
    assert_eq!(
        (status.progress, status.held_messages),
        (Progress::Written, 0)
    );
    let first = now(&mut channel, b"after");
    assert_eq!((first.progress, first.held_messages), (Progress::Held, 1));
    let second = gather(&mut channel, b"later");
    assert_eq!((second.progress, second.held_messages), (Progress::Held, 2));
    assert_eq!(second.queued_bytes, 0);
    assert_eq!(channel.flush(), FlushState::AwaitingAck);
    assert_eq!(peer.get().0, [b"before\n", &handle_line()[..]].concat());
    assert_eq!(channel.completed(), 2);

    peer.put(ACK, &[]);
    let batch = channel.receive(BUDGET);
    assert_eq!(
        received(&batch),
        [&ACK[..ACK.len() - 1]],
        "it is delivered upward as well"
    );
    assert_eq!(peer.get().0, b"after\nlater\n");
    assert_eq!(channel.completed(), 4);
    assert_eq!(
        events(&mut channel),
        [ChannelEvent::HandleAcknowledged { sequence: 2 }]
    );
    probe.assert_closed_everywhere();
}

#[test]
fn several_handles_go_one_by_one_in_their_places() {
    let (mut channel, mut peer) = channel();
    let mut probes = Vec::new();
    for i in 0..3u8 {
        now(&mut channel, &[b'a' + i]);
        probes.push(
            give(
                &mut channel,
                &[HANDLE, &[b' ', b' '][..i as usize % 2]].concat(),
            )
            .1,
        );
    }
    now(&mut channel, b"end");
    for (i, expected) in [(0, b'a'), (1, b'b'), (2, b'c')] {
        let (bytes, descriptors) = peer.get();
        assert_eq!(bytes[0], expected);
        assert_eq!(bytes.iter().filter(|&&byte| byte == b'\n').count(), 2);
        assert_eq!(descriptors.len(), 1);
        assert!(probes[i].is(&descriptors[0]));
        peer.put(ACK, &[]);
        take_in(&mut channel);
    }
    assert_eq!(peer.get().0, b"end\n");
    assert_eq!(channel.completed(), 7);
}

#[test]
fn replies_and_unqueued_messages_pass_a_pending_handle() {
    let (mut channel, mut peer) = channel();
    give(&mut channel, HANDLE);
    now(&mut channel, b"held");
    channel.acknowledge_handle().unwrap();
    channel.refuse_handle().unwrap();
    channel.send_unqueued(b"internal").unwrap();
    let expected = [&handle_line()[..], ACK, NACK, b"internal\n"].concat();
    assert_eq!(peer.get().0, expected);
    assert_eq!((channel.completed(), channel.held_messages()), (1, 1));
}

#[test]
fn unqueued_messages_stay_behind_what_was_sent_before_them_and_never_split_a_frame() {
    let (mut channel, mut peer) = channel();
    channel.transport().set_capacity(5);
    now(&mut channel, b"gathered"); // 5 bytes of it are written
    give(&mut channel, HANDLE);
    now(&mut channel, b"held");
    channel.send_unqueued(b"one").unwrap();
    channel.send_unqueued(b"two").unwrap();
    let mut all = Vec::new();
    for _ in 0..40 {
        all.extend(peer.get().0);
        channel.flush();
    }
    assert_eq!(all, [b"gathered\none\ntwo\n", &handle_line()[..]].concat());
}

#[test]
fn an_unqueued_message_waits_for_the_end_of_a_half_written_handle_message() {
    let (mut channel, mut peer) = channel();
    channel.transport().set_capacity(5);
    give(&mut channel, HANDLE);
    channel.send_unqueued(b"one").unwrap();
    let mut all = Vec::new();
    for _ in 0..40 {
        all.extend(peer.get().0);
        channel.flush();
    }
    assert_eq!(all, [&handle_line()[..], b"one\n"].concat());
}

#[test]
fn replies_in_advanced_framing_are_what_node_serializes() {
    let (ours, mut peer) = pair();
    let mut channel = Channel::new(ours, Framing::Advanced);
    channel.acknowledge_handle().unwrap();
    assert_eq!(
        peer.get().0,
        b"\0\0\0\x1b\xff\x0fo\"\x03cmd\"\x0fNODE_HANDLE_ACK{\x01"
    );
}

#[test]
fn a_refused_handle_is_sent_again_three_times_and_then_given_up() {
    let (mut channel, mut peer) = channel();
    let (status, probe) = give(&mut channel, HANDLE);
    now(&mut channel, b"held");
    for _ in 0..4 {
        let (bytes, descriptors) = peer.get();
        assert_eq!(bytes, handle_line());
        assert!(probe.is(&descriptors[0]), "bytes and descriptor together");
        assert_eq!(events(&mut channel), []);
        peer.put(NACK, &[]);
        take_in(&mut channel);
    }
    assert_eq!(peer.get().0, b"held\n");
    let sequence = status.sequence;
    assert_eq!(
        events(&mut channel),
        [ChannelEvent::HandleNotReceived { sequence }]
    );
    let stats = channel.stats();
    assert_eq!((stats.retransmissions, stats.handles_not_received), (3, 1));
    assert_eq!((stats.messages_sent, stats.descriptors_sent), (2, 4));
    assert_eq!(channel.completed(), 2);
    probe.assert_closed_everywhere();
}

#[test]
fn a_batch_of_replies_and_nothing_else_is_told_from_others() {
    let (mut channel, mut peer) = channel();
    let mut reply_with = |bytes: &[u8]| {
        give(&mut channel, HANDLE);
        peer.put(bytes, &[]);
        let batch = channel.receive(BUDGET);
        let told = (batch.len(), batch.holds_only_replies());
        channel.recycle(batch);
        told
    };
    assert_eq!(reply_with(ACK), (1, true));
    assert_eq!(reply_with(NACK), (1, true));
    assert_eq!(reply_with(&[ACK, ACK].concat()), (2, true));
    assert_eq!(reply_with(&[ACK, b"1\n"].concat()), (2, false));
    assert_eq!(reply_with(b"1\n"), (1, false));
    assert_eq!(reply_with(b"1"), (0, false));
}

#[test]
fn an_acknowledgement_after_retransmissions_ends_them() {
    let (mut channel, mut peer) = channel();
    let (_, probe) = give(&mut channel, HANDLE);
    peer.put(NACK, &[]);
    take_in(&mut channel);
    peer.put(ACK, &[]);
    take_in(&mut channel);
    assert!(!channel.awaits_ack());
    assert_eq!(peer.get().0, [handle_line(), handle_line()].concat());
    probe.assert_closed_everywhere();
    // The next handle has all its retransmissions.
    give(&mut channel, HANDLE);
    for _ in 0..3 {
        peer.put(NACK, &[]);
        take_in(&mut channel);
    }
    assert!(channel.awaits_ack());
}

#[test]
fn replies_nobody_waits_for_change_nothing_but_are_delivered() {
    let (mut channel, mut peer) = channel();
    peer.put(&[ACK, NACK].concat(), &[]);
    assert_eq!(channel.receive(BUDGET).len(), 2);
    channel.transport().set_capacity(10);
    let (_, probe) = give(&mut channel, HANDLE);
    peer.put(&[ACK, NACK].concat(), &[]);
    assert_eq!(channel.receive(BUDGET).len(), 2);
    assert!(
        probe.is_open_somewhere(),
        "the handle was not even written when they came"
    );
    assert_eq!(events(&mut channel), []);
}

#[test]
fn a_handle_the_kernel_will_not_take_fails_alone() {
    let (mut channel, mut peer) = channel();
    channel.transport().fail_next_send(Errno::ETOOMANYREFS);
    let (probe, descriptor) = Probe::new();
    let result = channel.send(HANDLE, Some(descriptor), SendMode::WriteNow);
    assert_eq!(result, Err(Errno::ETOOMANYREFS));
    assert_eq!((channel.broken(), events(&mut channel)), (None, vec![]));
    probe.assert_closed_everywhere();
    assert_eq!(now(&mut channel, b"goes on").progress, Progress::Written);
    assert_eq!(
        (channel.completed(), channel.stats().messages_dropped),
        (2, 1)
    );

    let (probe, descriptor) = Probe::new();
    channel
        .send(HANDLE, Some(descriptor), SendMode::Gather)
        .unwrap();
    gather(&mut channel, b"behind");
    channel.transport().fail_next_send(Errno::ETOOMANYREFS);
    assert_eq!(channel.flush(), FlushState::Empty);
    let failed = ChannelEvent::SendFailed {
        sequence: 3,
        errno: Errno::ETOOMANYREFS,
    };
    assert_eq!(events(&mut channel), [failed]);
    assert_eq!(peer.get().0, b"goes on\nbehind\n");
    probe.assert_closed_everywhere();
}

// A peer that is gone.

#[test]
fn when_the_peer_is_gone_the_queue_is_dropped_and_sending_fails_at_once() {
    let (mut channel, peer) = channel();
    gather(&mut channel, b"1");
    let (probe, descriptor) = Probe::new();
    channel
        .send(HANDLE, Some(descriptor), SendMode::Gather)
        .unwrap();
    drop(peer);
    assert_eq!(channel.flush(), FlushState::Failed(Errno::EPIPE));
    probe.assert_closed_everywhere();
    let (probe, descriptor) = Probe::new();
    assert_eq!(
        channel.send(HANDLE, Some(descriptor), SendMode::Gather),
        Err(Errno::EPIPE)
    );
    probe.assert_closed_everywhere();
    assert_eq!(channel.send_unqueued(b"x"), Err(Errno::EPIPE));
    assert_eq!(channel.broken(), Some(Errno::EPIPE));
    assert_eq!((channel.completed(), channel.unwritten_messages()), (0, 0));
    assert_eq!(channel.stats().messages_dropped, 2);
    assert_eq!((channel.queued_bytes(), channel.oldest_unsent()), (0, None));
}

#[test]
fn what_the_peer_sent_before_it_closed_is_delivered_with_the_end() {
    let (mut channel, mut peer) = channel();
    peer.put(b"1\n2\n", &[]);
    drop(peer);
    let batch = channel.receive(BUDGET);
    assert_eq!(
        (batch.json_array(), batch.end()),
        (&b"[1,2]"[..], ReadEnd::ShortRead)
    );
    assert_eq!(channel.receive(BUDGET).end(), ReadEnd::Closed);
    assert!(channel.has_ended());
    assert_eq!(channel.receive(BUDGET).end(), ReadEnd::Closed);
}

#[test]
fn a_reset_connection_is_a_closed_one() {
    let (mut channel, mut peer) = channel();
    peer.put(b"1\n", &[]);
    peer.reset();
    drop(peer);
    let batch = channel.receive(BUDGET);
    assert_eq!((batch.len(), batch.end()), (1, ReadEnd::ShortRead));
    assert_eq!(channel.receive(BUDGET).end(), ReadEnd::Closed);
    assert_eq!(channel.receive(BUDGET).end(), ReadEnd::Closed);
}

#[test]
fn closing_inside_a_message_is_told_apart() {
    let (mut channel, mut peer) = channel();
    peer.put(b"1\n{\"unfin", &[]);
    assert_eq!(channel.receive(BUDGET).len(), 1);
    assert!(channel.is_buffering());
    drop(peer);
    let truncated = ReceiveError::TruncatedFrame { received: 7 };
    assert_eq!(channel.receive(BUDGET).end(), ReadEnd::Failed(truncated));
    assert_eq!(
        channel.receive(BUDGET).end(),
        ReadEnd::Closed,
        "reported once"
    );
    assert!(!channel.is_buffering());
}

// Receiving.

#[test]
fn a_received_handle_is_paired_with_its_message() {
    let (mut channel, mut peer) = channel();
    let (probe, descriptor) = Probe::new();
    peer.put(b"0\n", &[]);
    peer.put(&handle_line(), &[descriptor.as_fd()]);
    peer.put(b"2\n", &[]);
    drop(descriptor);
    let mut batch = channel.receive(BUDGET);
    assert_eq!(batch.len(), 3, "reading goes on behind descriptors");
    let handles = batch.take_handles();
    assert!(matches!(&handles[..], [(1, HandleSlot::Received(got))] if probe.is(got)));
    assert!(batch.handles().is_empty());
    drop(handles);
    probe.assert_closed_everywhere();
}

#[test]
fn a_handle_message_without_descriptor_has_a_missing_slot() {
    let (mut channel, mut peer) = channel();
    peer.put(&handle_line(), &[]);
    assert!(matches!(
        channel.receive(BUDGET).handles(),
        [(0, HandleSlot::Missing)]
    ));
}

#[test]
fn a_lost_descriptor_does_not_shift_the_next_one() {
    let (mut channel, mut peer) = channel();
    peer.lose_descriptors(1);
    let (_, lost) = Probe::new();
    let (probe, kept) = Probe::new();
    // The end of the one message comes together with the descriptor of the other.
    let line = handle_line();
    peer.put(&line[..5], &[lost.as_fd()]);
    take_in(&mut channel);
    peer.put(&line[5..], &[]);
    peer.put(&line, &[kept.as_fd()]);
    let batch = channel.receive(BUDGET);
    let [(0, HandleSlot::Missing), (1, HandleSlot::Received(got))] = batch.handles() else {
        panic!("{:?}", batch.handles());
    };
    assert!(probe.is(got));
    assert_eq!(channel.stats().descriptors_truncated, 1);
}

#[test]
fn a_descriptor_that_comes_long_before_the_end_of_its_message_waits() {
    let (mut channel, mut peer) = channel();
    let (probe, descriptor) = Probe::new();
    let line = handle_line();
    peer.put(&line[..1], &[descriptor.as_fd()]);
    for byte in &line[1..line.len() - 1] {
        peer.put(&[*byte], &[]);
        assert!(channel.receive(BUDGET).is_empty());
    }
    peer.put(b"\n", &[]);
    let batch = channel.receive(BUDGET);
    assert!(matches!(batch.handles(), [(0, HandleSlot::Received(got))] if probe.is(got)));
}

#[test]
fn a_handle_is_found_however_its_name_is_spelled_while_one_is_expected() {
    let (mut channel, mut peer) = channel();
    let (probe, descriptor) = Probe::new();
    peer.put(b"{\"cmd\":\"NODE\\u005fHANDLE\"}\n", &[descriptor.as_fd()]);
    let batch = channel.receive(BUDGET);
    assert!(matches!(batch.handles(), [(0, HandleSlot::Received(got))] if probe.is(got)));
    give(&mut channel, HANDLE);
    peer.put(b"{ \"cmd\" : \"NODE_HANDLE\\u005FACK\" }\n", &[]);
    take_in(&mut channel);
    assert!(!channel.awaits_ack());
}

#[test]
fn the_budget_ends_a_receive_and_the_next_one_goes_on() {
    let (mut channel, mut peer) = channel();
    let line = [&[b'1'; 999][..], b"\n"].concat();
    peer.put(&line.repeat(100), &[]);
    let batch = channel.receive(10_000);
    assert_eq!(batch.end(), ReadEnd::Budget);
    assert!((10..20).contains(&batch.len()), "{}", batch.len());
    let rest = channel.receive(BUDGET);
    assert_eq!(
        (batch.len() + rest.len(), rest.end()),
        (100, ReadEnd::ShortRead)
    );
}

#[test]
fn bytes_read_before_the_takeover_are_delivered_first() {
    let (mut channel, mut peer) = channel();
    channel.adopt_unread(b"1\n2\n3");
    peer.put(b"4\n5\n", &[]);
    let batch = channel.receive(BUDGET);
    assert_eq!(batch.json_array(), b"[1,2,34,5]");
    let (mut channel, _peer) = self::channel();
    channel.adopt_unread(b"1\n");
    assert_eq!(
        channel.receive(BUDGET).len(),
        1,
        "also when nothing follows"
    );
}

// Hostile peers.

#[test]
fn a_message_above_the_limit_ends_the_reading_after_those_before_it() {
    let limits = Limits {
        max_message: 10,
        ..Limits::default()
    };
    for (framing, good, bad) in [
        (
            Framing::JsonLines,
            &b"1234567890\n"[..],
            &b"12345678901"[..],
        ),
        (Framing::Advanced, b"\0\0\0\x01x", b"\0\0\0\x0b"),
    ] {
        let (ours, mut peer) = pair();
        let mut channel = Channel::with_limits(ours, framing, limits);
        peer.put(&[good, bad].concat(), &[]);
        let batch = channel.receive(BUDGET);
        let error = ReceiveError::MessageTooLarge {
            size: 11,
            limit: 10,
        };
        assert_eq!((batch.len(), batch.end()), (1, ReadEnd::Failed(error)));
        peer.put(good, &[]);
        let batch = channel.receive(BUDGET);
        assert_eq!((batch.len(), batch.end()), (0, ReadEnd::Closed));
    }
}

#[test]
fn descriptors_nobody_asked_for_end_the_reading_and_are_closed() {
    let limits = Limits {
        max_unpaired_descriptors: 3,
        ..Limits::default()
    };
    let (ours, mut peer) = pair();
    let mut channel = Channel::with_limits(ours, Framing::JsonLines, limits);
    let (probe, descriptor) = Probe::new();
    for _ in 0..3 {
        peer.put(b"1\n", &[descriptor.as_fd()]);
        assert_eq!(
            channel.receive(BUDGET).end(),
            ReadEnd::Drained,
            "asked again"
        );
    }
    peer.put(b"2\n", &[descriptor.as_fd()]);
    drop(descriptor);
    let batch = channel.receive(BUDGET);
    let error = ReceiveError::UnexpectedDescriptors {
        waiting: 4,
        limit: 3,
    };
    assert_eq!(
        (received(&batch), batch.end()),
        (vec![b"2".to_vec()], ReadEnd::Failed(error))
    );
    probe.assert_closed_everywhere();
}

#[test]
fn a_peer_that_asks_for_replies_and_reads_none_is_not_listened_to_for_ever() {
    let (mut channel, mut peer) = channel();
    channel.transport().set_capacity(0);
    let mut refused = 0;
    let end = loop {
        peer.put(&handle_line().repeat(1000), &[]);
        let batch = channel.receive(BUDGET);
        for _ in batch.handles() {
            channel.refuse_handle().unwrap();
            refused += NACK.len();
        }
        if channel.has_ended() {
            break batch.end();
        }
    };
    let error = ReceiveError::UnreadReplies {
        waiting: refused,
        limit: 1 << 20,
    };
    assert_eq!(end, ReadEnd::Failed(error));
    assert!(refused < (1 << 20) + 1000 * NACK.len());
}

/// Sends an answer of `len` bytes.
fn answer(
    channel: &mut Channel<FakeSocket>,
    len: usize,
    handle: Option<OwnedFd>,
) -> Result<SendStatus, Errno> {
    channel.reserve(len).fill(b'1');
    channel.commit_answer(len, handle, SendMode::WriteNow)
}

#[test]
fn a_peer_may_leave_sixteen_mebibytes_of_answers_unread_and_as_much_else_as_there_is() {
    let (mut channel, mut peer) = channel();
    channel.transport().set_capacity(0);
    for _ in 0..40 {
        gather(&mut channel, &[b'1'; 100_000]);
    }
    let mut answered = 0;
    let refused = loop {
        match answer(&mut channel, 1000, None) {
            Ok(_) => answered += 1000,
            Err(errno) => break errno,
        }
    };
    assert_eq!(refused, Errno::ENOBUFS);
    assert_eq!(answered, (16 << 20) / 1000 * 1000 + 1000);
    // It has not broken off, and what is read makes room.
    channel.transport().set_capacity(1 << 26);
    channel.flush();
    peer.get();
    assert_eq!(
        answer(&mut channel, 1000, None).unwrap().progress,
        Progress::Written
    );
}

#[test]
fn answers_that_carry_descriptors_count_for_more() {
    let (mut channel, _peer) = channel();
    channel.transport().set_capacity(0);
    let (probe, descriptor) = Probe::new();
    let mut answered = 0;
    while answer(&mut channel, 1, Some(descriptor.try_clone().unwrap())).is_ok() {
        answered += 1;
    }
    assert_eq!(answered, (16 << 20) / (4096 + 1) + 1);
    drop((channel, descriptor));
    probe.assert_closed_everywhere();
}

#[test]
fn reading_that_ended_still_lets_messages_out() {
    let (ours, mut peer) = pair();
    let limits = Limits {
        max_message: 1,
        ..Limits::default()
    };
    let mut channel = Channel::with_limits(ours, Framing::JsonLines, limits);
    peer.put(b"too long", &[]);
    assert!(matches!(channel.receive(BUDGET).end(), ReadEnd::Failed(_)));
    now(&mut channel, b"1");
    assert_eq!(peer.get().0, b"1\n");
}

#[test]
fn every_error_says_what_the_peer_did() {
    for (error, text) in [
        (
            ReceiveError::MessageTooLarge {
                size: 11,
                limit: 10,
            },
            "peer sent a message of 11 bytes or more, the limit is 10",
        ),
        (
            ReceiveError::EmptyFrame,
            "peer sent a message length of zero",
        ),
        (
            ReceiveError::TruncatedFrame { received: 3 },
            "peer closed the channel 3 bytes into an unfinished message",
        ),
        (
            ReceiveError::UnexpectedDescriptors {
                waiting: 65,
                limit: 64,
            },
            "peer sent 65 descriptors that belong to no message, the limit is 64",
        ),
        (
            ReceiveError::UnreadReplies {
                waiting: 2,
                limit: 1,
            },
            "peer left 2 bytes of replies unread, the limit is 1",
        ),
        (
            ReceiveError::System(Errno::EIO),
            "reading the channel failed: I/O error",
        ),
    ] {
        assert_eq!(error.to_string(), text);
    }
}

// The end of a channel.

/// A channel in each state in which it owns descriptors, and the probes of those.
fn owning_channels() -> Vec<(&'static str, Channel<FakeSocket>, FakeSocket, Vec<Probe>)> {
    type Setup = fn(&mut Channel<FakeSocket>, &mut FakeSocket) -> Vec<Probe>;
    let setups: [(&str, Setup); 8] = [
        ("handle gathered", |channel, _| {
            let (probe, descriptor) = Probe::new();
            channel
                .send(HANDLE, Some(descriptor), SendMode::Gather)
                .unwrap();
            vec![probe]
        }),
        ("handle behind a full buffer", |channel, _| {
            channel.transport().set_capacity(2);
            now(channel, b"12345");
            vec![give(channel, HANDLE).1]
        }),
        ("handle half written", |channel, _| {
            channel.transport().set_capacity(2);
            vec![give(channel, HANDLE).1]
        }),
        ("handle unacknowledged", |channel, peer| {
            let probe = give(channel, HANDLE).1;
            peer.get();
            vec![probe]
        }),
        ("handles held", |channel, _| {
            (0..3).map(|_| give(channel, HANDLE).1).collect()
        }),
        ("handle refused, retransmission blocked", |channel, peer| {
            let probe = give(channel, HANDLE).1;
            channel.transport().set_capacity(0);
            peer.put(NACK, &[]);
            take_in(channel);
            vec![probe]
        }),
        ("descriptor received, message not", |channel, peer| {
            let (probe, descriptor) = Probe::new();
            peer.put(&HANDLE[..5], &[descriptor.as_fd()]);
            drop(descriptor);
            take_in(channel);
            vec![probe]
        }),
        (
            "descriptors received that belong to nothing",
            |channel, peer| {
                let (probe, descriptor) = Probe::new();
                peer.put(b"1\n", &[descriptor.as_fd(), descriptor.as_fd()]);
                drop(descriptor);
                take_in(channel);
                vec![probe]
            },
        ),
    ];
    setups
        .into_iter()
        .map(|(name, setup)| {
            let (mut channel, mut peer) = channel();
            let probes = setup(&mut channel, &mut peer);
            (name, channel, peer, probes)
        })
        .collect()
}

#[test]
fn dropping_a_channel_closes_all_it_owns_in_every_state() {
    for (name, channel, mut peer, probes) in owning_channels() {
        peer.get();
        for probe in &probes {
            assert!(probe.is_open_somewhere(), "{name}");
        }
        drop(channel);
        for probe in &probes {
            probe.assert_closed_everywhere();
        }
    }
}

#[test]
fn a_peer_that_dies_in_any_state_leaves_no_descriptor_behind() {
    for (_, mut channel, peer, probes) in owning_channels() {
        drop(peer);
        channel.flush();
        while !channel.has_ended() {
            take_in(&mut channel);
        }
        let _ = channel.send(b"x", None, SendMode::WriteNow);
        drop(channel);
        for probe in &probes {
            probe.assert_closed_everywhere();
        }
    }
}

#[test]
fn handles_left_in_a_batch_are_closed_with_it() {
    let (mut channel, mut peer) = channel();
    let (probe, descriptor) = Probe::new();
    peer.put(&handle_line(), &[descriptor.as_fd()]);
    drop(descriptor);
    let batch = channel.receive(BUDGET);
    assert!(probe.is_open_somewhere());
    channel.recycle(batch);
    probe.assert_closed_everywhere();
}

#[test]
fn draining_at_exit_stops_when_nothing_more_can_be_written() {
    let soon = || Instant::now() + Duration::from_secs(60);
    let (mut channel, mut peer) = channel();
    gather(&mut channel, b"1");
    assert_eq!(drain_on_exit(&mut channel, soon()), 0);
    assert_eq!(peer.get().0, b"1\n");

    // An acknowledgement that is already there releases what is held.
    give(&mut channel, HANDLE);
    now(&mut channel, b"held");
    peer.put(&[b"5\n", ACK].concat(), &[]);
    assert_eq!(drain_on_exit(&mut channel, soon()), 0);
    assert!(peer.get().0.ends_with(b"held\n"));

    // A peer that is gone will acknowledge nothing.
    give(&mut channel, HANDLE);
    now(&mut channel, b"held");
    gather(&mut channel, b"held, too");
    drop(peer);
    assert_eq!(drain_on_exit(&mut channel, soon()), 2);
    assert_eq!(channel.stats().messages_dropped, 2);
}

#[test]
fn draining_at_exit_counts_what_the_deadline_leaves() {
    let (mut channel, _peer) = channel();
    channel.transport().set_capacity(3);
    now(&mut channel, b"1");
    now(&mut channel, b"2");
    gather(&mut channel, b"3");
    assert_eq!(drain_on_exit(&mut channel, Instant::now()), 2);
}

#[test]
fn counters_count_both_directions() {
    let (mut channel, mut peer) = channel();
    now(&mut channel, b"12");
    channel.acknowledge_handle().unwrap();
    let (_, descriptor): (Probe, OwnedFd) = Probe::new();
    peer.put(&handle_line(), &[descriptor.as_fd()]);
    peer.put(b"1\n2\n", &[]);
    take_in(&mut channel);
    let expected = ChannelStats {
        messages_sent: 2,
        bytes_sent: 3 + ACK.len() as u64,
        messages_received: 3,
        bytes_received: handle_line().len() as u64 + 4,
        descriptors_received: 1,
        ..ChannelStats::default()
    };
    assert_eq!(channel.stats(), expected);
}

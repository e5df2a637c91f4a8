//! Channels whose large buffers travel in areas: what is used again, what ends with the channel, and
//! what a peer that lies about them gets to hear.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::errno::Errno;

use super::fake::{FakeSocket, pair};
use super::layout::{HEADER, Header, Kind, MAX_PIECES, Piece};
use super::upgrade::{Offer, Step, Terms, VERSION, announcement};
use super::*;
use crate::sys::area::Area;

const LEN: usize = 300_000;
const SECRET: &str = "0123456789abcdef";

/// Two ends that speak frames, as `version` had them.
fn upgraded(version: u32) -> [Channel<FakeSocket>; 2] {
    let (one, other) = pair();
    let mut ends = [one, other].map(|socket| Channel::new(socket, Framing::Advanced));
    let offer = Offer::new(Terms::of(version), 1, SECRET);
    ends[0].offer_upgrade(&offer);
    assert!(ends[1].accept_upgrade(&offer, Terms::of(VERSION)).unwrap());
    for _ in 0..3 {
        for end in &mut ends {
            let _ = end.receive(1 << 20);
        }
    }
    assert_eq!(ends[0].upgraded(), Some(Terms::of(version)));
    ends
}

/// Sends a message with `bytes` in an area; the area.
fn send(channel: &mut Channel<FakeSocket>, bytes: &[u8]) -> Weak<Area> {
    let (number, area) = channel.take_area(bytes.len()).unwrap().unwrap();
    area.fill(bytes);
    let piece = Beside::Area {
        number,
        length: bytes.len() as u32,
        content: Content::Bytes,
    };
    channel.reserve(1).copy_from_slice(b"m");
    channel.commit_beside(1, vec![piece]).unwrap();
    Arc::downgrade(&area)
}

/// What came in areas.
fn receive(channel: &mut Channel<FakeSocket>) -> Vec<Vec<u8>> {
    let mut batch = channel.receive(1 << 20);
    assert!(
        !matches!(batch.end(), ReadEnd::Failed(_)),
        "{:?}",
        batch.end()
    );
    let pieces = batch
        .take_beside()
        .into_iter()
        .flat_map(|(_, pieces)| pieces);
    let copied = pieces.map(|piece| match piece {
        Arrived::Copied(copied, _) => copied.bytes().to_vec(),
        Arrived::File(_) => panic!("a file"),
    });
    let copied = copied.collect();
    channel.recycle(batch);
    copied
}

#[test]
fn an_area_serves_any_number_of_messages_and_its_descriptor_travels_once() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    for round in 0..20u8 {
        let bytes = vec![round; LEN - usize::from(round)];
        send(&mut ours, &bytes);
        assert_eq!(receive(&mut theirs), [bytes]);
        receive(&mut ours);
    }
    assert_eq!(ours.stats().descriptors_sent, 1);
}

#[test]
fn a_copy_stays_what_it_was_when_its_area_is_filled_again() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    let mut kept = Vec::new();
    for round in 0..3u8 {
        send(&mut ours, &vec![round; LEN]);
        let mut batch = theirs.receive(1 << 20);
        kept.extend(batch.take_beside());
        receive(&mut ours);
    }
    for (round, (_, pieces)) in kept.iter().enumerate() {
        let Arrived::Copied(copied, Content::Bytes) = &pieces[0] else {
            panic!("{pieces:?}");
        };
        assert_eq!(copied.bytes(), vec![round as u8; LEN]);
    }
}

#[test]
fn areas_that_wait_for_the_peer_are_not_used_again_and_there_are_four() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    for byte in 0..4 {
        send(&mut ours, &vec![byte; LEN]);
    }
    assert!(ours.take_area(LEN).unwrap().is_none());
    assert_eq!(
        receive(&mut theirs),
        [0, 1, 2, 3].map(|byte| vec![byte; LEN])
    );
    assert!(ours.take_area(LEN).unwrap().is_none());
    receive(&mut ours);
    assert!(ours.take_area(LEN).unwrap().is_some());
}

#[test]
fn a_peer_that_knows_no_areas_is_given_none() {
    let [mut ours, _theirs] = upgraded(VERSION - 1);
    assert!(ours.take_area(LEN).unwrap().is_none());
    let (socket, _other) = pair();
    let mut stock = Channel::new(socket, Framing::Advanced);
    assert!(stock.take_area(LEN).unwrap().is_none());
    assert!(!stock.expire_areas(Duration::ZERO));
}

#[test]
fn an_area_that_is_dropped_is_unmapped_at_both_ends() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    let first = send(&mut ours, b"first");
    receive(&mut theirs);
    receive(&mut ours);
    assert!(!ours.expire_areas(Duration::ZERO));
    assert!(first.upgrade().is_none());
    // The peer would refuse a fifth, did it still have the first.
    for byte in 0..4 {
        send(&mut ours, &[byte]);
    }
    assert_eq!(receive(&mut theirs).len(), 4);
}

#[test]
fn a_lost_descriptor_is_sent_again_and_one_that_never_arrives_forgotten() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    ours.transport().lose_descriptors(2);
    send(&mut ours, b"late");
    for _ in 0..2 {
        assert!(receive(&mut theirs).is_empty());
        receive(&mut ours);
    }
    assert_eq!(receive(&mut theirs), [b"late"]);
    receive(&mut ours);
    // The next one has a descriptor of its own again.
    ours.expire_areas(Duration::ZERO);
    ours.transport().lose_descriptors(4);
    let lost = send(&mut ours, b"never");
    for _ in 0..5 {
        assert!(receive(&mut theirs).is_empty());
        receive(&mut ours);
    }
    let event = ours.next_event();
    assert!(
        matches!(event, Some(ChannelEvent::HandleAcknowledged { .. })),
        "{event:?}"
    );
    let event = ours.next_event();
    assert!(
        matches!(event, Some(ChannelEvent::HandleNotReceived { .. })),
        "{event:?}"
    );
    assert!(lost.upgrade().is_none());
    send(&mut ours, b"again");
    assert_eq!(receive(&mut theirs), [b"again"]);
}

#[test]
fn what_stands_behind_a_lost_descriptor_is_delivered_when_the_peer_ends() {
    for is_cut in [false, true] {
        let [mut ours, mut theirs] = upgraded(VERSION);
        ours.transport().lose_descriptors(1);
        ours.send(b"before", None, SendMode::WriteNow).unwrap();
        send(&mut ours, b"lost");
        ours.send(b"behind", None, SendMode::WriteNow).unwrap();
        let mut socket = ours.into_transport();
        if is_cut {
            socket.put(&[0; HEADER - 1], &[]);
        }
        drop(socket);
        let mut got = Vec::new();
        let end = loop {
            let batch = theirs.receive(1 << 20);
            got.extend((0..batch.len()).map(|i| batch.message(i).to_vec()));
            let end = batch.end();
            if matches!(end, ReadEnd::Closed | ReadEnd::Failed(_)) {
                break end;
            }
        };
        assert_eq!(got, [&b"before"[..], b"behind"]);
        let received = HEADER - 1;
        assert_eq!(
            end,
            match is_cut {
                true => ReadEnd::Failed(ReceiveError::TruncatedFrame { received }),
                false => ReadEnd::Closed,
            }
        );
    }
}

/// What a channel has, of which each attempt needs the memory twice.
fn receive_starved(channel: &mut Channel<FakeSocket>) -> usize {
    let batch = channel.receive(1 << 20);
    assert_eq!(batch.end(), ReadEnd::Starved);
    let messages = batch.len();
    channel.recycle(batch);
    messages
}

#[test]
fn what_there_is_no_memory_for_waits_with_all_behind_it_and_nothing_is_lost() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    ours.send(b"before", None, SendMode::WriteNow).unwrap();
    send(&mut ours, b"large");
    ours.send(b"after", None, SendMode::WriteNow).unwrap();
    blocks::shortage::after(0, 4);
    assert_eq!(receive_starved(&mut theirs), 1);
    assert!(theirs.is_buffering());
    // More is left in the socket, where it makes the sender wait.
    ours.send(b"later", None, SendMode::WriteNow).unwrap();
    let received = theirs.stats().bytes_received;
    assert_eq!(receive_starved(&mut theirs), 0);
    assert_eq!(theirs.stats().bytes_received, received);
    let mut batch = theirs.receive(1 << 20);
    assert_eq!((batch.len(), batch.message(1)), (2, &b"after"[..]));
    let (index, pieces) = batch.take_beside().remove(0);
    assert_eq!(index, 0);
    let [Arrived::Copied(copied, _)] = &pieces[..] else {
        panic!("{pieces:?}");
    };
    assert_eq!(copied.bytes(), b"large");
    assert_eq!(theirs.receive(1 << 20).message(0), b"later");
    // It was released once, and the area is used again.
    receive(&mut ours);
    send(&mut ours, b"again");
    assert_eq!(receive(&mut theirs), [b"again"]);
    assert_eq!(ours.stats().descriptors_sent, 1);
}

#[test]
fn a_message_with_memory_for_a_part_of_it_goes_on_with_the_rest() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    let pieces = [b"one", b"two"].map(|bytes| {
        let (number, area) = ours.take_area(LEN).unwrap().unwrap();
        area.fill(bytes);
        let piece = Beside::Area {
            number,
            length: bytes.len() as u32,
            content: Content::Bytes,
        };
        (piece, area)
    });
    let [one, two] = pieces.map(|(piece, _area)| piece);
    ours.reserve(1).copy_from_slice(b"m");
    ours.commit_beside(1, vec![one, two]).unwrap();
    blocks::shortage::after(1, 2);
    assert_eq!(receive_starved(&mut theirs), 0);
    assert_eq!(receive(&mut theirs), [b"one", b"two"]);
}

#[test]
fn the_end_comes_after_what_waits_for_memory() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    send(&mut ours, b"large");
    drop(ours);
    blocks::shortage::after(0, 4);
    assert_eq!(receive_starved(&mut theirs), 0);
    assert_eq!(receive_starved(&mut theirs), 0);
    assert!(!theirs.has_ended());
    assert_eq!(receive(&mut theirs), [b"large"]);
    assert_eq!(theirs.receive(1 << 20).end(), ReadEnd::Closed);
}

#[test]
fn a_message_that_nobody_waits_for_any_more_needs_no_memory() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    send(&mut ours, b"large");
    ours.send(b"after", None, SendMode::WriteNow).unwrap();
    blocks::shortage::after(0, 2);
    assert_eq!(receive_starved(&mut theirs), 0);
    theirs.skip_starved();
    theirs.skip_starved();
    let batch = theirs.receive(1 << 20);
    assert_eq!((batch.len(), batch.message(0)), (1, &b"after"[..]));
    assert!(!theirs.is_buffering());
    theirs.flush();
    receive(&mut ours);
    assert!(!ours.expire_areas(Duration::ZERO));
}

#[test]
fn a_message_that_cannot_be_sent_leaves_its_areas_free() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    let (number, area) = ours.take_area(LEN).unwrap().unwrap();
    drop(area);
    let piece = |number| Beside::Area {
        number,
        length: 1,
        content: Content::Bytes,
    };
    ours.reserve(1);
    let pieces = vec![piece(number), piece(number + 1)];
    let result = ours.commit_beside(1, pieces);
    assert_eq!(result.unwrap_err(), Errno::ENOENT);
    ours.transport().fail_next_send(Errno::EMFILE);
    let (number, area) = ours.take_area(LEN).unwrap().unwrap();
    drop(area);
    ours.reserve(1);
    let result = ours.commit_beside(1, vec![piece(number)]);
    assert_eq!(result.unwrap_err(), Errno::EMFILE);
    send(&mut ours, b"fine");
    assert_eq!(receive(&mut theirs), [b"fine"]);
}

#[test]
fn areas_end_with_their_channel_and_with_a_peer_that_is_gone() {
    for closes in [false, true] {
        let [mut ours, theirs] = upgraded(VERSION);
        let sent = send(&mut ours, &vec![1; LEN]);
        let (_, held) = ours.take_area(LEN).unwrap().unwrap();
        if closes {
            drop(theirs);
            assert!(ours.send(b"x", None, SendMode::WriteNow).is_err());
        } else {
            drop(ours);
        }
        assert!(sent.upgrade().is_none());
        // Whoever holds one may go on using it.
        held.fill(&vec![2; LEN]);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}

#[test]
fn what_a_peer_has_said_before_it_was_gone_is_heard_after_a_send_has_failed() {
    let [mut ours, mut theirs] = upgraded(VERSION);
    send(&mut ours, b"question");
    assert_eq!(receive(&mut theirs), [b"question"]);
    theirs.send(b"answer", None, SendMode::WriteNow).unwrap();
    drop(theirs);
    assert!(ours.send(b"x", None, SendMode::WriteNow).is_err());
    let batch = ours.receive(1 << 20);
    assert_eq!(batch.len(), 1);
    assert_eq!(batch.message(0), b"answer");
    assert!(
        !matches!(batch.end(), ReadEnd::Failed(_)),
        "{:?}",
        batch.end()
    );
    assert_eq!(ours.receive(1 << 20).end(), ReadEnd::Closed);
}

/// A channel and the bare other end of its socket, which is believed to be brood.
fn hostile(terms: Terms) -> (Channel<FakeSocket>, FakeSocket) {
    let (ours, mut theirs) = pair();
    let mut channel = Channel::new(ours, Framing::Advanced);
    let offer = Offer::new(Terms::of(VERSION), 1, SECRET);
    channel.offer_upgrade(&offer);
    for step in [Step::Answer, Step::Switch] {
        let said = announcement(Framing::Advanced, step, &offer.nonce, terms);
        theirs.put(&(said.len() as u32).to_be_bytes(), &[]);
        theirs.put(&said, &[]);
        while channel.receive(1 << 20).end() == ReadEnd::Switched {}
    }
    (channel, theirs)
}

fn placed(number: u32, pieces: &[Piece]) -> Vec<u8> {
    let table: Vec<u8> = pieces.iter().flat_map(Piece::encode).collect();
    let payload = [&1u32.to_le_bytes()[..], b"m", &table].concat();
    let header = Header {
        kind: Kind::Placed,
        descriptors: pieces.iter().filter(|piece| piece.has_descriptor()).count() as u16,
        length: payload.len() as u32,
        messages: 1,
        number,
    };
    [&header.encode()[..], &payload].concat()
}

fn control(kind: Kind, number: u32) -> Vec<u8> {
    Header::control(kind, number, 0).encode().to_vec()
}

fn area(number: u32, length: u32, is_new: bool) -> Piece {
    Piece::Area {
        number,
        length,
        content: Content::Bytes,
        is_new,
    }
}

/// What the channel says of the first of these sends that is a lie.
fn said_about(terms: Terms, sends: Vec<(Vec<u8>, Vec<OwnedFd>)>) -> String {
    let (mut channel, mut peer) = hostile(terms);
    for (bytes, files) in sends {
        let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        peer.put(&bytes, &files);
    }
    loop {
        match channel.receive(1 << 20).end() {
            ReadEnd::Failed(error) => return error.to_string(),
            ReadEnd::Drained => return "nothing".into(),
            _ => {}
        }
    }
}

#[test]
fn a_peer_that_lies_about_areas_hears_which_lie_it_was() {
    let memory = || Area::create(LEN).unwrap().1;
    let alone = |bytes: Vec<u8>| vec![(bytes, Vec::new())];
    let new = |number, frame| (placed(frame, &[area(number, 5, true)]), vec![memory()]);
    let mut table_of_noise = placed(0, &[area(0, 5, true)]);
    *table_of_noise.last_mut().unwrap() = 1;
    let mut table_cut_short = placed(0, &[area(0, 5, false)]);
    table_cut_short.pop();
    table_cut_short[4] -= 1;
    let mut empty = placed(0, &[area(0, 1, false)]);
    let length_at = HEADER + 4 + 1 + 4;
    empty[length_at] = 0;
    let crowd = vec![Piece::File; MAX_PIECES + 1];
    let cases = [
        ("not there", alone(placed(0, &[area(0, 5, false)]))),
        (
            "not released",
            vec![new(0, 0), (placed(1, &[area(0, 5, false)]), vec![])],
        ),
        (
            "beyond the end",
            vec![(placed(0, &[area(0, LEN as u32 + 1, true)]), vec![memory()])],
        ),
        ("already", vec![new(0, 0), new(0, 1)]),
        ("one area too many", (0..5).map(|n| new(n, n)).collect()),
        (
            "too large",
            vec![(
                placed(0, &[area(0, 5, true)]),
                vec![Area::create(100 << 20).unwrap().1],
            )],
        ),
        (
            "not sealed",
            vec![(
                placed(0, &[area(0, 5, true)]),
                vec![File::open("/dev/null").unwrap().into()],
            )],
        ),
        ("wrong table", vec![(table_of_noise, vec![memory()])]),
        ("wrong table", alone(table_cut_short)),
        ("wrong table", alone(empty)),
        ("wrong table", alone(placed(0, &[]))),
        ("wrong number of descriptors", alone(placed(0, &crowd))),
        ("did not come", alone(placed(0, &[area(0, 5, true)]))),
        ("message of", alone(placed(0, &[area(0, u32::MAX, false)]))),
        ("releases an area", alone(control(Kind::Release, 0))),
        ("drops an area", alone(control(Kind::Drop, 0))),
        (
            "drops an area",
            vec![new(0, 0), (control(Kind::Drop, 1), vec![])],
        ),
    ];
    for (expected, sends) in cases {
        let said = said_about(Terms::of(VERSION), sends);
        assert!(said.contains(expected), "{said}, not {expected}");
    }
    for kind in [control(Kind::Release, 0), placed(0, &[area(0, 5, false)])] {
        let said = said_about(Terms::of(VERSION - 1), alone(kind));
        assert!(said.contains("not agreed on"), "{said}");
    }
}

#[test]
fn what_came_before_a_lie_is_delivered_and_an_area_can_come_again_after_it_was_dropped() {
    let (mut channel, mut peer) = hostile(Terms::of(VERSION));
    let (own, file) = Area::create(LEN).unwrap();
    own.fill(b"hello");
    peer.put(&placed(0, &[area(7, 5, true)]), &[file.as_fd()]);
    assert_eq!(receive(&mut channel), [b"hello"]);
    assert!(peer.get().0.ends_with(&control(Kind::Release, 7)));
    peer.put(&control(Kind::Drop, 7), &[]);
    peer.put(&placed(1, &[area(7, 4, true)]), &[file.as_fd()]);
    peer.put(&placed(2, &[area(8, 4, false)]), &[]);
    let mut batch = channel.receive(1 << 20);
    assert_eq!(batch.take_beside().len(), 1);
    assert_eq!(batch.len(), 1);
    while !matches!(batch.end(), ReadEnd::Failed(_)) {
        batch = channel.receive(1 << 20);
    }
}

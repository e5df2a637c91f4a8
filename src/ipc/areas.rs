//! The areas of one direction of a channel, from both ends: which its maker may fill, and which
//! its reader has open. An area belongs to this channel for good, for whoever was ever given one
//! can read it for ever. What areas are made of is `sys::area`'s, what is said about them `layout`'s.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::blocks::{Copied, size_class};
use super::error::ReceiveError;
use crate::sys::area::{Area, View};

/// Most areas of one direction.
const MOST_AREAS: usize = 4;
/// Most bytes of all of them.
const MOST_BYTES: usize = 64 << 20;

/// The areas of the sending end.
#[derive(Debug, Default)]
pub(crate) struct OwnAreas {
    all: Vec<Own>,
    next: u32,
}

#[derive(Debug)]
struct Own {
    number: u32,
    /// Whoever fills it holds it, too; so does a buffer of JavaScript's that lies in it.
    area: Arc<Area>,
    /// To be sent with the first message in it.
    file: Option<OwnedFd>,
    /// A message in it is sent, and not yet copied by the peer.
    sent: bool,
    idle_since: Instant,
}

impl Own {
    fn is_free(&self) -> bool {
        !self.sent && Arc::strong_count(&self.area) == 1
    }

    /// Whether the peer has been told of it.
    fn is_known(&self) -> bool {
        self.file.is_none()
    }
}

impl OwnAreas {
    /// An area for `len` bytes that nobody else uses while it is held; `None` when there is none
    /// and cannot be another. Areas that make room for it are put into `dropped`, as
    /// [`expire`](Self::expire) has it.
    pub fn take(
        &mut self,
        len: usize,
        dropped: &mut Vec<u32>,
    ) -> Result<Option<(u32, Arc<Area>)>, Errno> {
        let free = self.all.iter().filter(|own| own.is_free());
        let best = free
            .filter(|own| own.area.size() >= len)
            .min_by_key(|own| own.area.size());
        if let Some(own) = best {
            return Ok(Some((own.number, own.area.clone())));
        }
        let size = size_class(len);
        if !self.make_room(size, dropped) {
            return Ok(None);
        }
        let (area, file) = Area::create(size)?;
        let (number, area) = (self.next, Arc::new(area));
        self.next = number.wrapping_add(1);
        self.all.push(Own {
            number,
            area: area.clone(),
            file: Some(file),
            sent: false,
            idle_since: Instant::now(),
        });
        Ok(Some((number, area)))
    }

    /// An area that was taken and is not sent.
    pub fn hold(&self, number: u32) -> Option<Arc<Area>> {
        let mut all = self.all.iter();
        let own = all.find(|own| own.number == number && !own.sent)?;
        Some(own.area.clone())
    }

    /// Drops free areas, those unused for longest first, until there may be one more of `size`
    /// bytes; none, when even that would not do.
    fn make_room(&mut self, size: usize, dropped: &mut Vec<u32>) -> bool {
        let (mut count, mut bytes) = (self.all.len(), self.bytes());
        let mut free: Vec<_> = self.all.iter().filter(|own| own.is_free()).collect();
        free.sort_by_key(|own| own.idle_since);
        let mut gone = Vec::new();
        for own in free {
            if count < MOST_AREAS && bytes + size <= MOST_BYTES {
                break;
            }
            (count, bytes) = (count - 1, bytes - own.area.size());
            gone.push(own.number);
        }
        if count >= MOST_AREAS || bytes + size > MOST_BYTES {
            return false;
        }
        self.remove(|own| gone.contains(&own.number), dropped);
        true
    }

    fn bytes(&self) -> usize {
        self.all.iter().map(|own| own.area.size()).sum()
    }

    fn remove(&mut self, is_gone: impl Fn(&Own) -> bool, dropped: &mut Vec<u32>) {
        self.all.retain(|own| {
            let gone = is_gone(own);
            if gone && own.is_known() {
                dropped.push(own.number);
            }
            !gone
        });
    }

    /// A message of `len` bytes in the area is about to be sent. Returns its descriptor if the peer
    /// does not know the area yet.
    ///
    /// # Errors
    /// `ENOENT` if there is no such area, it has fewer bytes, or another message is in it.
    pub fn send(&mut self, number: u32, len: usize) -> Result<Option<OwnedFd>, Errno> {
        let own = self.get(number).ok_or(Errno::ENOENT)?;
        if own.sent || len > own.area.size() {
            return Err(Errno::ENOENT);
        }
        own.sent = true;
        Ok(own.file.take())
    }

    /// The peer has copied what was in the area. Returns whether there was something.
    pub fn release(&mut self, number: u32) -> bool {
        match self.get(number).filter(|own| own.sent) {
            None => false,
            Some(own) => {
                own.sent = false;
                own.idle_since = Instant::now();
                true
            }
        }
    }

    /// The message in the area was given up; `is_new` if its descriptor was to come with it, so
    /// that the peer does not know the area.
    pub fn take_back(&mut self, number: u32, is_new: bool) {
        match is_new {
            true => self.all.retain(|own| own.number != number),
            false => drop(self.release(number)),
        }
    }

    /// Drops the areas that nobody has used for `age`. Returns the numbers of those that the peer
    /// has open.
    pub fn expire(&mut self, age: Duration) -> Vec<u32> {
        let mut dropped = Vec::new();
        let is_old = |own: &Own| own.is_free() && own.idle_since.elapsed() >= age;
        self.remove(is_old, &mut dropped);
        dropped
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Drops all. What is held elsewhere stays until it is let go.
    pub fn clear(&mut self) {
        self.all = Vec::new();
    }

    fn get(&mut self, number: u32) -> Option<&mut Own> {
        self.all.iter_mut().find(|own| own.number == number)
    }
}

/// The areas of the receiving end.
#[derive(Debug, Default)]
pub(crate) struct PeerAreas {
    all: Vec<(u32, View)>,
}

impl PeerAreas {
    /// The peer has made an area.
    pub fn open(&mut self, number: u32, file: &OwnedFd) -> Result<(), ReceiveError> {
        if self.get(number).is_some() {
            return Err(ReceiveError::Frame("brings an area that is there already"));
        }
        if self.all.len() == MOST_AREAS {
            return Err(ReceiveError::Frame("brings one area too many"));
        }
        let taken: usize = self.all.iter().map(|(_, view)| view.size()).sum();
        let view = View::open(file, MOST_BYTES - taken).map_err(|errno| match errno {
            Errno::EPERM => ReceiveError::Frame("brings an area that is not sealed"),
            Errno::EINVAL => ReceiveError::Frame("brings an area without bytes"),
            Errno::ENODATA => ReceiveError::Frame("brings an area with holes"),
            Errno::EFBIG => ReceiveError::Frame("brings an area that is too large"),
            errno => ReceiveError::System(errno),
        })?;
        self.all.push((number, view));
        Ok(())
    }

    /// Copies what the peer has put into an area: its first `len` bytes.
    pub fn copy(&self, number: u32, len: usize) -> Result<Copied, ReceiveError> {
        let view = self
            .get(number)
            .ok_or(ReceiveError::Frame("refers to an area that is not there"))?;
        if len > view.size() {
            return Err(ReceiveError::Frame("reaches beyond the end of an area"));
        }
        Copied::of(view, len).map_err(ReceiveError::System)
    }

    /// The peer will not use the area any more.
    pub fn close(&mut self, number: u32) -> Result<(), ReceiveError> {
        let index = self.all.iter().position(|(own, _)| *own == number);
        let index = index.ok_or(ReceiveError::Frame("drops an area that is not there"))?;
        self.all.swap_remove(index);
        Ok(())
    }

    fn get(&self, number: u32) -> Option<&View> {
        let mut all = self.all.iter();
        all.find(|(own, _)| *own == number).map(|(_, view)| view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 300_000;

    fn take(areas: &mut OwnAreas, len: usize) -> (Option<(u32, Arc<Area>)>, Vec<u32>) {
        let mut dropped = Vec::new();
        (areas.take(len, &mut dropped).unwrap(), dropped)
    }

    fn take_one(areas: &mut OwnAreas, len: usize) -> (u32, Arc<Area>) {
        take(areas, len).0.unwrap()
    }

    /// Sends what is in an area that nobody holds any more.
    fn send(areas: &mut OwnAreas, len: usize) -> (u32, bool) {
        let (number, _) = take_one(areas, len);
        let file = areas.send(number, len).unwrap();
        (number, file.is_some())
    }

    #[test]
    fn an_area_is_used_again_once_it_is_released_and_its_descriptor_travels_once() {
        let mut areas = OwnAreas::default();
        assert_eq!(send(&mut areas, LEN), (0, true));
        assert_eq!(send(&mut areas, LEN), (1, true));
        assert!(areas.release(1));
        assert_eq!(send(&mut areas, LEN), (1, false));
        assert!(areas.release(0));
        assert_eq!(send(&mut areas, LEN - 1000), (0, false));
    }

    #[test]
    fn an_area_that_is_held_is_nobody_elses_and_free_when_it_is_let_go() {
        let mut areas = OwnAreas::default();
        let (number, held) = take_one(&mut areas, LEN);
        assert_eq!(take_one(&mut areas, LEN).0, 1);
        drop(held);
        assert_eq!(take_one(&mut areas, LEN).0, number);
        // Handed over, but some buffer still lies in it.
        let (_, held) = take_one(&mut areas, LEN);
        areas.send(number, LEN).unwrap();
        areas.release(number);
        assert_eq!(take_one(&mut areas, LEN).0, 1);
        drop(held);
        assert_eq!(take_one(&mut areas, LEN).0, number);
    }

    #[test]
    fn there_are_four_at_most_and_the_longest_unused_makes_room_for_another_size() {
        let mut areas = OwnAreas::default();
        let numbers: Vec<_> = (0..MOST_AREAS).map(|_| send(&mut areas, LEN).0).collect();
        assert_eq!(numbers, [0, 1, 2, 3]);
        assert!(take(&mut areas, LEN).0.is_none());
        areas.release(2);
        areas.release(1);
        let (taken, dropped) = take(&mut areas, 2 * LEN);
        assert_eq!((taken.unwrap().0, dropped), (4, vec![2]));
    }

    #[test]
    fn their_bytes_are_bounded_and_none_is_dropped_for_what_cannot_be() {
        let mut areas = OwnAreas::default();
        assert!(take(&mut areas, MOST_BYTES + 1).0.is_none());
        send(&mut areas, MOST_BYTES / 2);
        let free = send(&mut areas, LEN).0;
        areas.release(free);
        let (taken, dropped) = take(&mut areas, MOST_BYTES * 3 / 4);
        assert!(taken.is_none() && dropped.is_empty());
        assert!(take(&mut areas, MOST_BYTES / 2).0.is_some());
    }

    #[test]
    fn what_is_idle_is_dropped_and_the_peer_told_if_it_knows_it() {
        let mut areas = OwnAreas::default();
        let (known, sent) = (send(&mut areas, LEN).0, send(&mut areas, LEN).0);
        let (_, held) = take_one(&mut areas, LEN);
        drop(take_one(&mut areas, LEN));
        areas.release(known);
        assert!(areas.expire(Duration::from_secs(1000)).is_empty());
        assert_eq!(areas.expire(Duration::ZERO), [known]);
        assert_eq!(areas.all.len(), 2);
        assert!(areas.release(sent));
        drop(held);
        assert_eq!(areas.expire(Duration::ZERO), [sent]);
        assert!(areas.is_empty());
    }

    #[test]
    fn what_is_not_there_or_not_sent_cannot_be_released_or_sent() {
        let mut areas = OwnAreas::default();
        let (number, _) = take_one(&mut areas, LEN);
        assert!(!areas.release(number));
        assert!(!areas.release(number + 1));
        let len = areas.all[0].area.size() + 1;
        assert_eq!(areas.send(number, len).unwrap_err(), Errno::ENOENT);
        areas.send(number, LEN).unwrap();
        assert_eq!(areas.send(number, LEN).unwrap_err(), Errno::ENOENT);
        assert!(areas.release(number));
        assert!(!areas.release(number));
    }

    #[test]
    fn an_area_whose_descriptor_never_arrived_is_forgotten_and_a_known_one_used_again() {
        let mut areas = OwnAreas::default();
        let lost = send(&mut areas, LEN).0;
        areas.take_back(lost, true);
        assert!(areas.is_empty());
        let kept = send(&mut areas, LEN).0;
        areas.release(kept);
        send(&mut areas, LEN);
        areas.take_back(kept, false);
        assert_eq!(send(&mut areas, LEN), (kept, false));
    }

    fn frame(result: Result<impl Sized, ReceiveError>) -> &'static str {
        match result {
            Err(ReceiveError::Frame(what)) => what,
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("accepted"),
        }
    }

    #[test]
    fn a_reader_believes_nothing_about_areas() {
        let mut areas = PeerAreas::default();
        let (area, file) = Area::create(LEN).unwrap();
        assert!(frame(areas.copy(7, 1)).contains("not there"));
        areas.open(7, &file).unwrap();
        assert!(frame(areas.open(7, &file)).contains("already"));
        area.fill(b"hello");
        assert_eq!(areas.copy(7, 5).unwrap().bytes(), b"hello");
        assert!(frame(areas.copy(7, LEN + 1)).contains("beyond"));
        for number in 0..3 {
            areas.open(number, &file).unwrap();
        }
        assert!(frame(areas.open(3, &file)).contains("too many"));
        areas.close(7).unwrap();
        assert!(frame(areas.close(7)).contains("not there"));
        let (_, large) = Area::create(MOST_BYTES - 2 * LEN).unwrap();
        assert!(frame(areas.open(3, &large)).contains("too large"));
        let (pipe, _writer) = std::io::pipe().unwrap();
        assert!(frame(areas.open(3, &pipe.into())).contains("not sealed"));
    }
}

//! What the dispatcher knows of one worker: the way to it, its weight, and how it is doing.

use std::time::{Duration, Instant};

use super::lane_link::LaneLink;
use super::outcome::Outcome;
use super::scheduler::Candidate;
use super::stock_link::StockLink;

/// A worker that has declined a connection gets none for this long: it has just closed its server,
/// or is at its `maxConnections`.
const REST: Duration = Duration::from_millis(5);

/// And none for so long when it has as many connections open as when it declined one: asking it
/// wakes it, and it would mostly decline again.
const LONG_REST: Duration = Duration::from_millis(50);

/// The way to a worker.
#[derive(Debug, Default)]
pub enum Link {
    /// There is none: not yet, or not any more.
    #[default]
    None,
    /// Node's own protocol on its IPC channel.
    Stock(StockLink),
    /// brood's lane.
    Lane(LaneLink),
}

/// A worker of the cluster.
#[derive(Debug)]
pub struct Worker {
    /// Its number in JavaScript.
    pub id: u32,
    /// Its share of the connections, relative to the others'.
    pub weight: u32,
    /// Whether it is to get no more.
    pub draining: bool,
    /// The way to it.
    pub link: Link,
    accepted: u64,
    handed_back: u64,
    rest: Option<Rest>,
}

/// A worker is left alone.
#[derive(Clone, Copy, Debug)]
struct Rest {
    since: Instant,
    /// How many connections it had open, if it says so.
    open: Option<u32>,
}

impl Rest {
    fn is_over(&self, now: Instant, open: Option<u32>) -> bool {
        let rested = now.saturating_duration_since(self.since);
        rested >= LONG_REST || rested >= REST && (open.is_none() || open != self.open)
    }

    fn next_look(&self, now: Instant) -> Duration {
        let rested = now.saturating_duration_since(self.since);
        let left = REST.saturating_sub(rested);
        if left.is_zero() { REST } else { left }
    }
}

/// One worker's line in the statistics.
#[derive(Clone, Copy, Debug)]
pub struct WorkerStats {
    /// Its number.
    pub id: u32,
    /// Whether it has a lane.
    pub has_lane: bool,
    /// Connections it has taken.
    pub accepted: u64,
    /// Connections open in it, as it says; none of Node's own cluster.
    pub open: Option<u32>,
    /// Connections handed to it and not taken yet.
    pub waiting: usize,
    /// Connections it would not serve.
    pub handed_back: u64,
    /// Its event loop's utilisation in permille, as it says.
    pub utilisation: Option<u16>,
    /// Its weight.
    pub weight: u32,
}

impl Worker {
    /// A worker without a link, with the weight of one.
    pub fn new(id: u32) -> Worker {
        Worker {
            id,
            weight: 1,
            draining: false,
            link: Link::None,
            accepted: 0,
            handed_back: 0,
            rest: None,
        }
    }

    /// Its lane, if it has one.
    pub fn lane(&mut self) -> Option<&mut LaneLink> {
        match &mut self.link {
            Link::Lane(link) => Some(link),
            Link::Stock(_) | Link::None => None,
        }
    }

    /// What a scheduler is told.
    pub fn candidate(&self) -> Candidate {
        let (offered, utilisation) = match &self.link {
            Link::None => (0, 0),
            Link::Stock(link) => (link.waiting(), 0),
            Link::Lane(link) => (link.offered(), link.board().utilisation()),
        };
        Candidate {
            id: self.id,
            weight: self.weight,
            draining: self.draining,
            free: self.has_room(),
            in_flight: self.open().unwrap_or(0).saturating_add(offered as u32),
            utilisation,
        }
    }

    /// Whether it can be handed a connection now.
    pub fn has_room(&self) -> bool {
        if self.draining || self.rest.is_some() {
            return false;
        }
        match &self.link {
            Link::None => false,
            Link::Stock(link) => link.has_room(),
            Link::Lane(link) => link.has_room(),
        }
    }

    /// Counts what has become of its connections.
    pub fn note(&mut self, outcome: &Outcome, now: Instant) {
        self.accepted += outcome.taken;
        self.handed_back += outcome.declined;
        if outcome.declined > 0 {
            self.rest(now);
        }
    }

    /// Leaves it alone for a while.
    pub fn rest(&mut self, now: Instant) {
        let open = self.open();
        self.rest = Some(Rest { since: now, open });
    }

    /// Whether there is a way to it.
    pub fn is_reachable(&self) -> bool {
        match &self.link {
            Link::None => false,
            Link::Stock(link) => link.is_open(),
            Link::Lane(link) => link.is_open(),
        }
    }

    /// Lets it work again when it has rested.
    pub fn wake_up(&mut self, now: Instant) {
        let open = self.open();
        self.rest = self.rest.filter(|rest| !rest.is_over(now, open));
    }

    /// Its open connections, as it says.
    fn open(&self) -> Option<u32> {
        match &self.link {
            Link::Lane(link) => Some(link.board().connections()),
            Link::Stock(_) | Link::None => None,
        }
    }

    /// When it wants to be looked at again, if nothing happens before.
    pub fn next_look(&self, now: Instant) -> Option<Duration> {
        let rest = self.rest.map(|rest| rest.next_look(now));
        let look = match &self.link {
            Link::Lane(link) => link.next_look(now),
            Link::Stock(_) | Link::None => None,
        };
        rest.into_iter().chain(look).min()
    }

    /// Its line in the statistics.
    pub fn stats(&self) -> WorkerStats {
        let (utilisation, (waiting, begun)) = match &self.link {
            Link::None => (None, (0, 0)),
            Link::Stock(link) => (None, (link.waiting(), 0)),
            Link::Lane(link) => (Some(link.board().utilisation()), link.waiting_and_begun()),
        };
        WorkerStats {
            id: self.id,
            has_lane: matches!(self.link, Link::Lane(_)),
            accepted: self.accepted + begun as u64,
            open: self.open(),
            waiting,
            handed_back: self.handed_back,
            utilisation,
            weight: self.weight,
        }
    }
}

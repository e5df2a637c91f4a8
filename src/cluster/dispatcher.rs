//! The dispatcher: accepts connections on the cluster's listening sockets and hands each to a
//! worker, on a thread of its own, so that none waits for the primary's JavaScript. This file is
//! what it does when something happens; waiting for that is `thread`'s.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::lane_link::LaneLink;
use super::listening::Listening;
use super::outcome::Outcome;
use super::relay::Inbox;
use super::scheduler::{Candidate, Policy, Scheduler};
use super::stock_link::{self, StockLink};
use super::watch::{Event, Source, Watch};
use super::worker::{Link, Worker, WorkerStats};
use crate::ipc::shared::SharedChannel;
use crate::sys::listener;

/// One listener's line in the statistics.
#[derive(Clone, Copy, Debug)]
pub struct ListenerStats {
    /// Its number.
    pub id: u32,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections no worker has been given yet.
    pub waiting: usize,
    /// How many workers serve it.
    pub workers: usize,
}

/// Listeners, workers, and the connections between them.
#[derive(Debug)]
pub struct Dispatcher {
    watch: Arc<Watch>,
    listeners: BTreeMap<u32, Listening>,
    workers: BTreeMap<u32, Worker>,
    last_listener: u32,
    /// What keys the hash of the sticky scheduler.
    seed: [u8; 16],
    /// Reused from choice to choice.
    candidates: Vec<Candidate>,
    /// There may be more to accept than one turn takes.
    unfinished: bool,
}

impl Dispatcher {
    /// One without listeners. `seed` should be random.
    pub fn new(watch: Arc<Watch>, seed: [u8; 16]) -> Dispatcher {
        Dispatcher {
            watch,
            listeners: BTreeMap::new(),
            workers: BTreeMap::new(),
            last_listener: 0,
            seed,
            candidates: Vec::new(),
            unfinished: false,
        }
    }

    // What the primary's JavaScript asks for.

    /// Takes a listening socket in and returns its number. Nothing is accepted before a worker is
    /// [added](Self::add).
    ///
    /// # Errors
    /// Of epoll_ctl(2).
    pub fn listen(&mut self, socket: OwnedFd, key: String, policy: Policy) -> Result<u32, Errno> {
        let id = self.last_listener + 1;
        let scheduler = Scheduler::new(policy, self.seed);
        let listening = Listening::new(id, socket, key, scheduler);
        listening.begin_watch(&self.watch)?;
        self.last_listener = id;
        self.listeners.insert(id, listening);
        Ok(id)
    }

    /// Closes a listener. Connections that no worker has been given are closed, too.
    pub fn close(&mut self, listener: u32) {
        if let Some(listening) = self.listeners.remove(&listener) {
            self.watch.remove(listening.as_fd());
            for link in self.workers.values_mut().filter_map(Worker::lane) {
                link.withdraw(|of| of == listening.id(), 0);
            }
        }
    }

    /// Closes a listener whose socket nobody else has but workers, for them, too: one that is busy
    /// or stopped would keep the address from being free.
    pub fn stop(&mut self, listener: u32) {
        if let Some(listening) = self.listeners.get(&listener) {
            listener::stop(listening.as_fd());
        }
        self.close(listener);
    }

    /// Lets a worker have a listener's connections. Returns false when there is no such listener.
    pub fn add(&mut self, listener: u32, worker: u32) -> bool {
        let listening = self.listeners.get_mut(&listener);
        listening.map(|listening| listening.add(worker)).is_some()
    }

    /// Ends that. What the worker has been given and declines goes to another.
    pub fn remove(&mut self, listener: u32, worker: u32) {
        let Some(listening) = self.listeners.get_mut(&listener) else {
            return;
        };
        listening.remove(worker);
        let mut outcome = Outcome::default();
        if let Some(Link::Lane(link)) = self.workers.get_mut(&worker).map(|w| &mut w.link) {
            link.take_back(|of| of == listener, &mut outcome);
            link.forget_listener(listener);
        }
        self.settle(worker, outcome, Instant::now());
    }

    /// Sets how a listener's workers are chosen.
    pub fn set_policy(&mut self, listener: u32, policy: Policy) {
        if let Some(listening) = self.listeners.get_mut(&listener) {
            listening.set_scheduler(Scheduler::new(policy, self.seed));
        }
    }

    /// Sets a worker's share of the connections, and whether it gets any.
    pub fn set_worker(&mut self, worker: u32, weight: u32, draining: bool) {
        let worker = self.worker(worker);
        worker.weight = weight.max(1);
        worker.draining = draining;
        if let Some(link) = worker.lane().filter(|_| draining) {
            link.withdraw(|_| true, 0);
        }
    }

    /// Opens a lane to a worker and returns the worker's end. `may_accept`: the worker may have the
    /// listening sockets themselves.
    ///
    /// # Errors
    /// Out of descriptors or memory; the worker's link is then what it was.
    pub fn open_lane(&mut self, worker: u32, may_accept: bool) -> Result<OwnedFd, Errno> {
        let (link, theirs) = LaneLink::open(may_accept)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        self.watch
            .add(Source::Worker(worker), link.as_fd(), flags)?;
        self.replace_link(worker, Link::Lane(link));
        Ok(theirs)
    }

    /// The lane to a worker.
    #[cfg(test)]
    pub fn lane(&mut self, worker: u32) -> &mut LaneLink {
        let worker = self.workers.get_mut(&worker).and_then(Worker::lane);
        worker.expect("a worker with a lane")
    }

    /// Whether there is a way to a worker.
    pub fn has_link(&self, worker: u32) -> bool {
        let link = self.workers.get(&worker).map(|worker| &worker.link);
        !matches!(link, None | Some(Link::None))
    }

    /// Reaches a worker over its IPC channel from now on, which the dispatcher then reads.
    ///
    /// # Errors
    /// Of epoll_ctl(2); the channel's own thread goes on reading it then.
    pub fn open_stock(
        &mut self,
        worker: u32,
        channel: Arc<SharedChannel>,
        inbox: Arc<Inbox>,
    ) -> Result<(), Errno> {
        {
            let guard = channel.lock();
            let socket = guard.transport().as_fd();
            let flags = stock_link::FIRST_WATCHED;
            self.watch.add(Source::Worker(worker), socket, flags)?;
        }
        let link = StockLink::new(channel, inbox);
        self.replace_link(worker, Link::Stock(link));
        Ok(())
    }

    /// Gives a worker's IPC channel back to its thread, if the dispatcher reads it.
    pub fn release(&mut self, worker: u32) {
        let is_stock = |worker: &Worker| matches!(worker.link, Link::Stock(_));
        if self.workers.get(&worker).is_some_and(is_stock) {
            self.replace_link(worker, Link::None);
        }
    }

    /// A worker has ended: takes in what it has said before.
    pub fn read_rest(&mut self, worker: u32) {
        if let Some(Link::Stock(link)) = self.workers.get_mut(&worker).map(|w| &mut w.link) {
            let mut outcome = Outcome::default();
            link.bury(&mut outcome);
            self.settle(worker, outcome, Instant::now());
        }
    }

    /// A worker has ended: takes in what it has said before, and then forgets it.
    pub fn bury(&mut self, worker: u32) {
        self.read_rest(worker);
        self.forget(worker);
    }

    /// A worker has no link any more. It may live on, and serve what has been sent to it.
    pub fn forget(&mut self, worker: u32) {
        self.replace_link(worker, Link::None);
        self.workers.remove(&worker);
        for listening in self.listeners.values_mut() {
            listening.remove(worker);
        }
    }

    /// Whether there is nothing to do, now or later, unless it is asked for anew.
    pub fn is_idle(&self) -> bool {
        self.listeners.is_empty() && self.workers.is_empty()
    }

    /// What the workers are doing.
    pub fn worker_stats(&self) -> impl Iterator<Item = WorkerStats> {
        self.workers.values().map(Worker::stats)
    }

    /// What the listeners are doing.
    pub fn listener_stats(&self) -> impl Iterator<Item = ListenerStats> {
        self.listeners.values().map(|listening| {
            let unswept = listening.permits(&self.workers, LaneLink::accepted_since);
            ListenerStats {
                id: listening.id(),
                accepted: listening.accepted() + unswept as u64,
                waiting: listening.waiting(),
                workers: listening.members().len(),
            }
        })
    }

    // What happens on the thread.

    /// A source is ready.
    pub fn on_ready(&mut self, event: Event, now: Instant) {
        match event.source {
            Source::Wake => {}
            Source::Listener(id) => {
                if let Some(listening) = self.listeners.get_mut(&id) {
                    listening.on_ready();
                }
            }
            Source::Worker(id) => self.on_worker_ready(id, event.hung_up, now),
        }
    }

    fn on_worker_ready(&mut self, id: u32, hung_up: bool, now: Instant) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let mut outcome = Outcome::default();
        let ended = match &mut worker.link {
            Link::None => false,
            Link::Stock(link) => {
                link.on_ready(hung_up, &mut outcome);
                link.has_ended()
            }
            Link::Lane(link) => link.has_ended(),
        };
        self.settle(id, outcome, now);
        if ended {
            self.replace_link(id, Link::None);
        }
    }

    /// Everything that is to be done after something has happened; in a flood the next turn comes
    /// later.
    pub fn turn(&mut self, now: Instant, in_flood: bool) {
        for listening in self.listeners.values_mut() {
            listening.look(&self.workers);
        }
        self.look_at_workers(now);
        self.take_back_from_stalled(now);
        self.unfinished = false;
        for listening in self.listeners.values_mut() {
            let (workers, candidates) = (&mut self.workers, &mut self.candidates);
            self.unfinished |= listening.distribute(workers, candidates, now, in_flood);
            listening.watch(&self.watch);
        }
        let mut broken = Vec::new();
        for worker in self.workers.values_mut() {
            match &mut worker.link {
                Link::Lane(link) => self.unfinished |= link.flush(),
                Link::Stock(link) => link.watch(&self.watch, Source::Worker(worker.id)),
                Link::None => {}
            }
            if matches!(&worker.link, Link::Lane(link) if !link.is_open()) {
                broken.push(worker.id);
            }
        }
        for id in broken {
            self.replace_link(id, Link::None);
            self.unfinished = true;
        }
    }

    /// Whether connections may be let gather in a flood: not while a worker gets one at a time,
    /// which would then wait for each.
    pub fn may_gather(&self) -> bool {
        let is_stock = |worker: &Worker| matches!(worker.link, Link::Stock(_));
        !self.workers.values().any(is_stock)
    }

    /// How long the thread may sleep when nothing happens; `None` for as long as it likes.
    pub fn next_look(&self, now: Instant) -> Option<Duration> {
        if self.unfinished {
            return Some(Duration::ZERO);
        }
        let workers = self.workers.values().filter_map(|w| w.next_look(now));
        let listeners = self.listeners.values().filter_map(|l| l.next_look(now));
        workers.chain(listeners).min()
    }

    fn look_at_workers(&mut self, now: Instant) {
        let ids: Vec<u32> = self.workers.keys().copied().collect();
        for id in ids {
            let Some(worker) = self.workers.get_mut(&id) else {
                continue;
            };
            worker.wake_up(now);
            let mut outcome = Outcome::default();
            match &mut worker.link {
                Link::Lane(link) => link.sweep(now, &mut outcome),
                // Whoever else drives the channel may have come upon something.
                Link::Stock(link) => link.check_events(&mut outcome),
                Link::None => continue,
            }
            self.settle(id, outcome, now);
        }
    }

    /// Connections that lie with a worker which does not come to them go to one that has room.
    fn take_back_from_stalled(&mut self, now: Instant) {
        let is_stalled = |worker: &&Worker| match &worker.link {
            Link::Lane(link) => link.is_stalled(),
            Link::Stock(_) | Link::None => false,
        };
        let stalled: Vec<u32> = self
            .workers
            .values()
            .filter(is_stalled)
            .map(|worker| worker.id)
            .collect();
        for id in stalled {
            let elsewhere = self.listeners_with_room_besides(id);
            let mut outcome = Outcome::default();
            if let Some(Link::Lane(link)) = self.workers.get_mut(&id).map(|w| &mut w.link) {
                link.take_back(|listener| elsewhere.contains(&listener), &mut outcome);
            }
            self.settle(id, outcome, now);
        }
    }

    fn listeners_with_room_besides(&self, worker: u32) -> Vec<u32> {
        let has_room =
            |id: &u32| *id != worker && self.workers.get(id).is_some_and(Worker::has_room);
        self.listeners
            .values()
            .filter(|listening| listening.may_revoke() && listening.members().iter().any(has_room))
            .map(Listening::id)
            .collect()
    }

    /// The worker's entry, made at first need.
    fn worker(&mut self, id: u32) -> &mut Worker {
        self.workers.entry(id).or_insert_with(|| Worker::new(id))
    }

    /// Puts another link in the place of a worker's. What the old one had not brought home goes to
    /// other workers.
    fn replace_link(&mut self, id: u32, link: Link) {
        let old = std::mem::replace(&mut self.worker(id).link, link);
        let mut outcome = Outcome::default();
        match old {
            Link::None => {}
            Link::Lane(link) => {
                self.watch.remove(link.as_fd());
                link.end(&mut outcome);
            }
            Link::Stock(link) => {
                let channel = link.channel().clone();
                self.watch.remove(channel.lock().transport().as_fd());
                link.release(&mut outcome);
            }
        }
        self.settle(id, outcome, Instant::now());
    }

    /// Counts what has become of a worker's connections, and queues those that are nobody's again.
    fn settle(&mut self, worker: u32, outcome: Outcome, now: Instant) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.note(&outcome, now);
        }
        for listener in &outcome.accepted {
            if let Some(listening) = self.listeners.get_mut(listener) {
                listening.note_accepted();
            }
        }
        // Taken back one by one to the front: the last first keeps their order.
        for connection in outcome.returned.into_iter().rev() {
            if let Some(listening) = self.listeners.get_mut(&connection.listener()) {
                listening.take_back(connection);
            }
        }
    }
}

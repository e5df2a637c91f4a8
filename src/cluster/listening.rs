//! A listening socket of the cluster: which workers serve it, what has been accepted and waits for
//! one of them, and how one is chosen. Accepting pauses while no worker has room: clients then wait
//! in the kernel's backlog, where they are safe from any worker's death. Where all its workers can,
//! they accept themselves, and only how many each may is decided here.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::EpollFlags;

use super::connection::Connection;
use super::lane_link::LaneLink;
use super::scheduler::{Candidate, Choice, Policy, Scheduler};
use super::watch::{Source, Watch};
use super::worker::{Link, Worker};
use crate::sys::listener;

/// Connections that may wait for the one worker a scheduler wants for them.
const MOST_WAITING: usize = 256;

/// How long clients of one worker may hold up all others under the sticky policy. After that those
/// that come on top go to whoever has room.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connections accepted in one go, before anything else is looked at.
const TURN: usize = 64;

/// Permits for each worker in a flood, beyond those for connections that wait: what comes before the
/// next turn they accept without waiting for it. A turn can be late by several milliseconds, for the
/// thread competes with the workers for the processors.
const AHEAD: usize = 96;

/// So many times what was accepted between two turns is permitted ahead, and as many turns without
/// it is forgotten.
const TURNS_AHEAD: usize = 8;

/// At most this part of what a flood has brought is permitted ahead: so uneven it may leave the
/// numbers of the workers, for they keep what they do not use.
const PART_AHEAD: usize = 100;

/// A flood that has brought fewer gets none ahead: each one taken back at its end is a turn lost,
/// and of few connections every turn shows.
const YOUNG: usize = 1000;

/// Turns outside of a flood after which most of what it has brought is forgotten: a flood that only
/// pauses goes on as it was.
const FORGOTTEN_AFTER: usize = 64;

/// How long to leave a socket alone when the process is out of descriptors or memory.
const SHORTAGE: Duration = Duration::from_millis(50);

/// What a listening socket is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    /// Each new connection: workers that accept for themselves are permitted to at once.
    Each,
    /// The next connection only: while no worker has room, those that come wake nobody.
    Next,
    /// Nothing: the next one has come.
    Nothing,
}

impl Watched {
    fn flags(self) -> EpollFlags {
        match self {
            Watched::Each => EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
            Watched::Next => EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT,
            Watched::Nothing => EpollFlags::empty(),
        }
    }
}

/// A listening socket and its workers.
#[derive(Debug)]
pub struct Listening {
    id: u32,
    socket: OwnedFd,
    /// The name workers running Node's own cluster know it by.
    key: String,
    scheduler: Scheduler,
    members: Vec<u32>,
    /// Accepted, and nobody's yet.
    waiting: VecDeque<Connection>,
    /// Since when as many wait as may, or nearly.
    full_since: Option<Instant>,
    /// There may be connections in the backlog: the kernel tells of new ones only.
    ready: bool,
    /// Out of descriptors or memory: not before this.
    paused_until: Option<Instant>,
    accepted: u64,
    /// How many had been when permits were last given, and how many permits ahead that is good for.
    accepted_before: u64,
    pace: usize,
    /// How many this flood has brought, as long as it matters.
    brought: usize,
    /// How long the backlog was at the last look, where the kernel tells.
    backlog: Option<u32>,
    /// What the socket is watched for.
    watched: Watched,
    /// The workers accept for themselves.
    is_permitting: bool,
    /// It has been other than zero. Until then zero says nothing: there are kernels that leave the
    /// field empty (gVisor), and nobody would ever be permitted anything.
    tells: bool,
}

impl Listening {
    /// A socket nobody serves yet.
    pub fn new(id: u32, socket: OwnedFd, key: String, scheduler: Scheduler) -> Listening {
        let backlog = listener::backlog(socket.as_fd()).ok();
        Listening {
            id,
            socket,
            key,
            scheduler,
            members: Vec::new(),
            waiting: VecDeque::new(),
            full_since: None,
            ready: true,
            paused_until: None,
            accepted: 0,
            accepted_before: 0,
            pace: 0,
            brought: 0,
            backlog,
            watched: Watched::Next,
            is_permitting: false,
            tells: false,
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// How many connections it, or a worker for it, has accepted.
    pub fn accepted(&self) -> u64 {
        self.accepted
    }

    /// A worker has accepted one.
    pub fn note_accepted(&mut self) {
        self.accepted += 1;
    }

    /// How many of them no worker has been given yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The workers that serve it.
    pub fn members(&self) -> &[u32] {
        &self.members
    }

    /// Adds a worker.
    pub fn add(&mut self, worker: u32) {
        if !self.members.contains(&worker) {
            self.members.push(worker);
        }
    }

    /// Removes a worker.
    pub fn remove(&mut self, worker: u32) {
        self.members.retain(|&member| member != worker);
    }

    /// Replaces the scheduler.
    pub fn set_scheduler(&mut self, scheduler: Scheduler) {
        self.scheduler = scheduler;
    }

    /// There are connections to accept.
    pub fn on_ready(&mut self) {
        self.ready = true;
        if self.watched == Watched::Next {
            self.watched = Watched::Nothing;
        }
    }

    /// Begins to watch the socket.
    ///
    /// # Errors
    /// Of epoll_ctl(2).
    pub fn begin_watch(&self, watch: &Watch) -> Result<(), Errno> {
        let source = Source::Listener(self.id);
        watch.add(source, self.socket.as_fd(), self.watched.flags())
    }

    /// Brings what the socket is watched for in line with who is going to accept.
    pub fn watch(&mut self, watch: &Watch) {
        let wanted = match (self.is_permitting, self.ready) {
            (true, _) => Watched::Each,
            (false, false) => Watched::Next,
            (false, true) => Watched::Nothing,
        };
        let source = Source::Listener(self.id);
        if self.watched != wanted && watch.change(source, self.socket.as_fd(), wanted.flags()) {
            self.watched = wanted;
        }
    }

    /// Takes a connection that a worker did not serve. It goes first: its client has waited longest.
    pub fn take_back(&mut self, connection: Connection) {
        self.waiting.push_front(connection);
    }

    /// Looks how many connections wait in the kernel, if the workers may accept them. To be called
    /// before it is looked what they have accepted: then none is overlooked, and at worst one worker
    /// looks in vain.
    pub fn look(&mut self, workers: &BTreeMap<u32, Worker>) {
        let may_accept = |id| match workers.get(id).map(|worker| &worker.link) {
            Some(Link::Lane(link)) => link.may_accept(),
            _ => false,
        };
        let is_asked = self.ready && self.may_revoke() && self.members.iter().all(may_accept);
        if is_asked && self.backlog.is_some() {
            self.backlog = listener::backlog(self.socket.as_fd()).ok();
            self.tells |= self.backlog > Some(0);
        }
    }

    /// Whether connections offered to a worker that does not come to them may go to others.
    pub fn may_revoke(&self) -> bool {
        !matches!(
            self.scheduler.policy(),
            Policy::StrictRoundRobin | Policy::Sticky
        )
    }

    /// Hands out what waits and what can be accepted, as far as the workers have room. Returns
    /// whether there may be more that could be handed out at once.
    pub fn distribute(
        &mut self,
        workers: &mut BTreeMap<u32, Worker>,
        candidates: &mut Vec<Candidate>,
        now: Instant,
        in_flood: bool,
    ) -> bool {
        self.paused_until = self.paused_until.filter(|&until| until > now);
        self.distribute_waiting(workers, candidates, now);
        self.note_whether_full(now);
        let unused = self.permits(workers, LaneLink::unused_permits);
        if !self.ready && unused == 0 {
            return false;
        }
        self.is_permitting = self.backlog.is_some() && self.tells && self.have_all_got_it(workers);
        if let Some(backlog) = self.backlog.filter(|_| self.is_permitting) {
            self.ready = backlog > 0;
            let ahead = self.ahead(in_flood);
            let wanted = backlog as usize + ahead;
            // What is too much in a flood is soon too little.
            let unused = if unused > wanted && ahead == 0 {
                self.withdraw(wanted, workers)
            } else {
                unused
            };
            self.permit(wanted.saturating_sub(unused), workers, candidates, now);
            return false;
        }
        self.withdraw(0, workers);
        if !self.ready {
            return false;
        }
        for _ in 0..TURN {
            if !self.may_accept(workers, now) {
                return false;
            }
            let Some(connection) = self.accept(now) else {
                return false;
            };
            let may_wait = !self.is_full();
            let waits = self.hand_over(connection, may_wait, workers, candidates, now);
            self.waiting.extend(waits);
        }
        true
    }

    /// How many permits there should be for connections that are still to come.
    fn ahead(&mut self, in_flood: bool) -> usize {
        let most = AHEAD * self.members.len();
        let before = std::mem::replace(&mut self.accepted_before, self.accepted);
        let fresh = (self.accepted - before) as usize;
        let rest = self.pace - self.pace.div_ceil(TURNS_AHEAD);
        self.pace = rest.max(TURNS_AHEAD * fresh).min(most);
        self.brought = (self.brought + fresh).min(PART_AHEAD * most);
        if !in_flood {
            self.brought -= self.brought.div_ceil(FORGOTTEN_AFTER);
            return 0;
        }
        match self.brought {
            0..YOUNG => 0,
            brought => self.pace.min(brought / PART_AHEAD),
        }
    }

    /// Whether all workers can accept for themselves, and may: a permit that finds nothing is one
    /// connection less for that worker, and what comes is not known before it is accepted.
    fn have_all_got_it(&self, workers: &mut BTreeMap<u32, Worker>) -> bool {
        let has_got_it = |id: &u32| match workers.get_mut(id).map(|worker| &mut worker.link) {
            Some(Link::Lane(link)) => link.has_listener(self.id, self.socket.as_fd()),
            _ => false,
        };
        self.may_revoke() && !self.members.is_empty() && self.members.iter().all(has_got_it)
    }

    /// Lets workers accept so many more.
    fn permit(
        &mut self,
        count: usize,
        workers: &mut BTreeMap<u32, Worker>,
        candidates: &mut Vec<Candidate>,
        now: Instant,
    ) {
        for _ in 0..count {
            let Some(worker) = self.choose(None, true, workers, candidates) else {
                return;
            };
            if let Link::Lane(link) = &mut worker.link {
                link.permit(self.id, now);
            }
        }
    }

    /// Takes back what workers hold of permits beyond their share of `wanted` ones; returns how many
    /// are left.
    fn withdraw(&self, wanted: usize, workers: &mut BTreeMap<u32, Worker>) -> usize {
        let share = wanted.div_ceil(self.members.len().max(1));
        for id in &self.members {
            if let Some(link) = workers.get_mut(id).and_then(Worker::lane) {
                link.withdraw(|of| of == self.id, share);
            }
        }
        self.permits(workers, LaneLink::unused_permits)
    }

    /// The sum of what `count` says of its workers' lanes.
    pub fn permits(
        &self,
        workers: &BTreeMap<u32, Worker>,
        count: impl Fn(&LaneLink, u32) -> usize,
    ) -> usize {
        let links = self.members.iter().filter_map(|id| workers.get(id));
        let counts = links.map(|worker| match &worker.link {
            Link::Lane(link) => count(link, self.id),
            Link::Stock(_) | Link::None => 0,
        });
        counts.sum()
    }

    fn distribute_waiting(
        &mut self,
        workers: &mut BTreeMap<u32, Worker>,
        candidates: &mut Vec<Candidate>,
        now: Instant,
    ) {
        // One that has to wait for its worker does not keep back others that need not.
        for _ in 0..self.waiting.len() {
            let Some(connection) = self.waiting.pop_front() else {
                return;
            };
            let waits = self.hand_over(connection, true, workers, candidates, now);
            self.waiting.extend(waits);
        }
    }

    fn is_full(&self) -> bool {
        self.waiting.len() >= MOST_WAITING
    }

    /// A worker that is slow, and takes one of its clients' now and then, does not start time anew.
    fn note_whether_full(&mut self, now: Instant) {
        if self.waiting.len() < MOST_WAITING / 2 {
            self.full_since = None;
        } else if self.is_full() {
            self.full_since.get_or_insert(now);
        }
    }

    /// Whether others have been held up for too long by clients that wait for their own worker.
    fn is_overdue(&self, now: Instant) -> bool {
        let is_sticky = self.scheduler.policy() == Policy::Sticky;
        let full_for = self.full_since.map(|at| now.saturating_duration_since(at));
        is_sticky && full_for >= Some(PATIENCE)
    }

    fn may_accept(&self, workers: &BTreeMap<u32, Worker>, now: Instant) -> bool {
        let has_room = |member| workers.get(member).is_some_and(Worker::has_room);
        self.ready
            && self.paused_until.is_none()
            && (!self.is_full() || self.is_overdue(now))
            && self.members.iter().any(has_room)
    }

    fn accept(&mut self, now: Instant) -> Option<Connection> {
        // Bounded: no error may keep the thread here.
        for _ in 0..TURN {
            match Connection::accept(self.socket.as_fd(), self.id) {
                Ok(connection) => {
                    self.accepted += 1;
                    return Some(connection);
                }
                Err(Errno::EAGAIN) => {
                    self.ready = false;
                    return None;
                }
                Err(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.paused_until = Some(now + SHORTAGE);
                    return None;
                }
                Err(Errno::EBADF | Errno::EINVAL | Errno::ENOTSOCK | Errno::EOPNOTSUPP) => {
                    self.ready = false;
                    return None;
                }
                // The client's connection failed before it was accepted (accept(2)): the next one.
                Err(_) => {}
            }
        }
        self.paused_until = Some(now + SHORTAGE);
        None
    }

    /// Gives a connection to the worker the scheduler chooses, unless it may not wait among those
    /// that have room; returns it if it has to wait.
    fn hand_over(
        &mut self,
        mut connection: Connection,
        may_wait: bool,
        workers: &mut BTreeMap<u32, Worker>,
        candidates: &mut Vec<Candidate>,
        now: Instant,
    ) -> Option<Connection> {
        // A worker that cannot be sent to rests, and so has no room the next time.
        for _ in 0..=self.members.len() {
            let client = connection.client();
            let Some(worker) = self.choose(client, may_wait, workers, candidates) else {
                return Some(connection);
            };
            match &mut worker.link {
                Link::Lane(link) => {
                    link.offer(connection, now);
                    return None;
                }
                Link::Stock(link) => match link.send(&self.key, connection) {
                    Ok(()) => return None,
                    Err(refused) => {
                        connection = refused;
                        worker.rest(now);
                    }
                },
                Link::None => return Some(connection),
            }
        }
        Some(connection)
    }

    /// The worker the scheduler chooses now, if it chooses one.
    fn choose<'a>(
        &mut self,
        client: Option<IpAddr>,
        may_wait: bool,
        workers: &'a mut BTreeMap<u32, Worker>,
        candidates: &mut Vec<Candidate>,
    ) -> Option<&'a mut Worker> {
        candidates.clear();
        let members = self.members.iter().filter_map(|id| workers.get(id));
        // Nobody waits for one that has gone, however long JavaScript takes to say so.
        let members =
            members.filter(|worker| worker.is_reachable() && (may_wait || worker.has_room()));
        candidates.extend(members.map(Worker::candidate));
        let Choice::Worker(index) = self.scheduler.choose(candidates, client) else {
            return None;
        };
        let worker = candidates.get(index)?.id;
        workers.get_mut(&worker)
    }

    /// When it wants to be looked at again, if nothing happens before.
    pub fn next_look(&self, now: Instant) -> Option<Duration> {
        let pause = self
            .paused_until
            .map(|until| until.saturating_duration_since(now));
        // Whoever they wait for tells when it has room, unless what it lacked was a descriptor.
        let retry = (!self.waiting.is_empty()).then_some(SHORTAGE);
        pause.into_iter().chain(retry).min()
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

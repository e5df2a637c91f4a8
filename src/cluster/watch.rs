//! What the dispatcher's thread waits for: one epoll descriptor, and a bell for other threads.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Events taken at a time.
const EVENTS: usize = 64;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Another thread has rung.
    Wake,
    /// The listening socket with this number.
    Listener(u32),
    /// The link of the worker with this number.
    Worker(u32),
}

impl Source {
    fn token(self) -> u64 {
        match self {
            Source::Wake => 0,
            Source::Listener(id) => 1 << 32 | u64::from(id),
            Source::Worker(id) => 2 << 32 | u64::from(id),
        }
    }

    fn of(token: u64) -> Source {
        let id = token as u32;
        match token >> 32 {
            0 => Source::Wake,
            1 => Source::Listener(id),
            _ => Source::Worker(id),
        }
    }
}

/// The descriptors that are watched.
#[derive(Debug)]
pub struct Watch {
    epoll: Epoll,
    bell: EventFd,
}

impl Watch {
    /// Watches nothing but the bell.
    ///
    /// # Errors
    /// `EMFILE` and the like.
    pub fn new() -> Result<Watch, Errno> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = EventFd::from_value_and_flags(0, flags)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, Source::Wake.token());
        epoll.add(&bell, event)?;
        Ok(Watch { epoll, bell })
    }

    /// Wakes the thread.
    pub fn ring(&self) {
        // Fails only when the counter is full, and then the thread is being woken already.
        let _ = self.bell.write(1);
    }

    /// Begins to watch a descriptor.
    ///
    /// # Errors
    /// `ENOSPC` (fs.epoll.max_user_watches), `ENOMEM`.
    pub fn add(&self, source: Source, fd: BorrowedFd<'_>, flags: EpollFlags) -> Result<(), Errno> {
        self.epoll.add(fd, EpollEvent::new(flags, source.token()))
    }

    /// Changes what a descriptor is watched for; says whether that was possible.
    pub fn change(&self, source: Source, fd: BorrowedFd<'_>, flags: EpollFlags) -> bool {
        let mut event = EpollEvent::new(flags, source.token());
        self.epoll.modify(fd, &mut event).is_ok()
    }

    /// Stops watching a descriptor; to be called before it is closed.
    pub fn remove(&self, fd: BorrowedFd<'_>) {
        // Fails only for what is not watched.
        let _ = self.epoll.delete(fd);
    }

    /// Waits until something is ready or the time is over, and returns what is.
    pub fn wait(&self, limit: Option<Duration>) -> Vec<Source> {
        let mut events = [EpollEvent::empty(); EVENTS];
        // Rounded up: a rest below a millisecond must not become a busy loop.
        let millis = limit.map(|limit| limit.as_micros().div_ceil(1000) as u64);
        let timeout = millis.map_or(EpollTimeout::NONE, |millis| {
            EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
        });
        // Interrupted counts as a time that is over.
        let ready = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        let sources: Vec<Source> = events[..ready]
            .iter()
            .map(|event| Source::of(event.data()))
            .collect();
        if sources.contains(&Source::Wake) {
            let _ = self.bell.read();
        }
        sources
    }
}

//! Children that another thread is starting for an environment: each is known by a number until
//! the thread says what became of it, which it does by a descriptor among those the environment
//! watches for its children.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::callback::Target;
use crate::process::Child;

/// What became of a start.
pub type Outcome = Result<Child, Errno>;

/// The starts of one environment that are under way.
pub struct Launches {
    inbox: Arc<Inbox>,
    last: Cell<i32>,
    waiting: RefCell<HashMap<i32, Waiting>>,
}

/// What JavaScript waits for.
pub struct Waiting {
    /// The object it is about.
    pub target: Target,
    /// Whether it keeps the event loop alive.
    pub is_referenced: bool,
}

/// Where both threads leave something for each other.
struct Inbox {
    letters: Mutex<Letters>,
    bell: EventFd,
}

#[derive(Default)]
struct Letters {
    /// What has become of the starts. Children that nobody takes out any more are orphans.
    outcomes: VecDeque<(i32, Outcome)>,
    /// The signals for children that are not there yet. They reach them even if this environment
    /// ends meanwhile.
    signals: HashMap<i32, Vec<i32>>,
}

impl Inbox {
    fn letters(&self) -> MutexGuard<'_, Letters> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, number: i32, outcome: Outcome) {
        let mut letters = self.letters();
        let signals = letters.signals.remove(&number).unwrap_or_default();
        if let Ok(child) = &outcome {
            for signal in signals {
                let _ = child.signal(signal);
            }
        }
        letters.outcomes.push_back((number, outcome));
        drop(letters);
        // Fails only when it has been rung 2^64 times unheard.
        let _ = self.bell.write(1);
    }

    fn signal(&self, number: i32, signal: i32) -> Result<(), Errno> {
        let mut letters = self.letters();
        match letters.outcomes.iter().find(|(n, _)| *n == number) {
            Some((_, Ok(child))) => child.signal(signal),
            Some((_, Err(_))) => Err(Errno::ESRCH),
            None => {
                letters.signals.entry(number).or_default().push(signal);
                Ok(())
            }
        }
    }
}

impl Launches {
    /// None under way.
    ///
    /// # Errors
    /// `EMFILE`, `ENOMEM`.
    pub fn new() -> Result<Launches, Errno> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Launches {
            inbox: Arc::new(Inbox {
                letters: Mutex::default(),
                bell: EventFd::from_flags(flags)?,
            }),
            last: Cell::new(0),
            waiting: RefCell::default(),
        })
    }

    /// Readable when something has become of a start.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.inbox.bell.as_fd()
    }

    /// A number for the next start, and what the other thread calls when it is over.
    pub fn begin(&self) -> (i32, impl FnOnce(Outcome) + Send + 'static) {
        let number = self.last.get() % i32::MAX + 1;
        self.last.set(number);
        let inbox = self.inbox.clone();
        (number, move |outcome| inbox.deliver(number, outcome))
    }

    /// Waits for the start of that number.
    pub fn wait_for(&self, number: i32, waiting: Waiting) {
        self.waiting.borrow_mut().insert(number, waiting);
    }

    /// Silences the bell; how many outcomes there are.
    pub fn answer_bell(&self) -> usize {
        let _ = self.inbox.bell.read();
        self.inbox.letters().outcomes.len()
    }

    /// What has become of the start that was over first. Taken one by one, because JavaScript that
    /// hears of one may send a signal to the next.
    pub fn next_outcome(&self) -> Option<(i32, Outcome)> {
        self.inbox.letters().outcomes.pop_front()
    }

    /// Sends a signal to the child of that start, as soon as it is there.
    ///
    /// # Errors
    /// `ESRCH` when it could not be started, `EPERM`, `EINVAL`.
    pub fn signal(&self, number: i32, signal: i32) -> Result<(), Errno> {
        self.inbox.signal(number, signal)
    }

    /// Waits no longer for the start of that number.
    pub fn take(&self, number: i32) -> Option<Waiting> {
        self.waiting.borrow_mut().remove(&number)
    }

    /// Changes whether a start keeps the event loop alive; says whether that was a change.
    pub fn set_ref(&self, number: i32, is_referenced: bool) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        waiting.get_mut(&number).is_some_and(|waiting| {
            std::mem::replace(&mut waiting.is_referenced, is_referenced) != is_referenced
        })
    }
}

//! Busy polling of one environment: the event loop's waits are spent looking for events, as long as
//! a channel asks for it. When that is, is `ipc::busy`'s to say.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::environment::Environment;
use crate::ipc::busy::{Busy, is_worth_while};
use crate::uv::{Prepare, Seen, Timer};

/// How long messages may be received and answered without a turn of the event loop, which knows
/// the time only from its last turn.
const LONGEST_ROUND: Duration = Duration::from_micros(500);

/// The state of one environment.
#[derive(Default)]
pub struct BusyPolling {
    policy: RefCell<Busy>,
    /// Made when the first channel asks.
    prepare: RefCell<Option<Rc<Prepare>>>,
    /// Keeps a turn of the event loop from being spent asleep.
    hurry: RefCell<Option<Timer>>,
    active: Cell<bool>,
}

impl BusyPolling {
    /// The longest time that any channel asks for; zero when none does.
    pub fn set_limit(&self, environment: &Rc<Environment>, limit: Duration) {
        let active = !limit.is_zero() && is_worth_while();
        if !active && !self.active.get() {
            return;
        }
        self.policy.borrow_mut().set_limit(limit);
        if self.prepare.borrow().is_none() {
            let weak = Rc::downgrade(environment);
            let prepare = Prepare::new(environment.event_loop(), move || {
                if let Some(environment) = weak.upgrade() {
                    environment.busy().on_prepare(&environment);
                }
            });
            *self.prepare.borrow_mut() = prepare.ok().map(Rc::new);
        }
        self.keep_hurry(environment, active);
        self.active.set(active);
        if let Some(prepare) = self.prepare.borrow().as_ref() {
            prepare.set_active(active);
        }
    }

    /// The timer holds a descriptor: it is there only while it may be needed.
    fn keep_hurry(&self, environment: &Rc<Environment>, is_needed: bool) {
        let mut hurry = self.hurry.borrow_mut();
        if !is_needed {
            hurry.take();
        } else if hurry.is_none() {
            *hurry = Timer::new(environment.event_loop(), || {}).ok();
            if let Some(timer) = hurry.as_ref() {
                timer.set_ref(false);
            }
        }
    }

    /// A channel that asks for it has sent or received something.
    pub fn stir(&self) {
        if self.active.get() {
            self.policy.borrow_mut().stir();
        }
    }

    /// The environment ends.
    pub fn close(&self) {
        self.active.set(false);
        self.prepare.borrow_mut().take();
        self.hurry.borrow_mut().take();
    }

    fn on_prepare(&self, environment: &Rc<Environment>) {
        let Some(limit) = self.policy.borrow_mut().occasion() else {
            return;
        };
        let Some(prepare) = self.prepare.borrow().clone() else {
            return;
        };
        let start = Instant::now();
        let mut answered = false;
        let last = loop {
            match environment.channels().spin(&prepare, limit) {
                Ok(busy) => busy.receive(environment),
                Err(seen) => break seen,
            }
            answered = true;
            if environment.is_ending() {
                break Seen::Loop;
            }
            if start.elapsed() > LONGEST_ROUND {
                if let Some(hurry) = self.hurry.borrow().as_ref() {
                    let _ = hurry.start(Duration::from_nanos(1));
                }
                break Seen::Loop;
            }
        };
        self.policy
            .borrow_mut()
            .looked(answered || last == Seen::Loop);
    }
}

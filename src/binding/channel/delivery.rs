//! How the messages of a read become JavaScript values.

use std::os::fd::{IntoRawFd, OwnedFd, RawFd};

use napi::sys::{napi_env, napi_value};

use super::Entry;
use crate::binding::environment::{Callbacks, Environment};
use crate::binding::{memory, value};
use crate::ipc::{Arrived, Batch, Framing, HandleSlot, Limits, Run};
use crate::sys::descriptor;

impl Entry {
    /// Hands the messages to JavaScript, one call for all that are encoded alike. The program hears
    /// of the first when all have been handed over: it may turn the event loop for the others.
    pub(super) fn deliver(&self, environment: &Environment, batch: Batch) {
        match batch.runs() {
            runs if runs.len() > 1 => self
                .target
                .call_together(|| self.deliver_runs(environment, batch, runs)),
            runs => self.deliver_runs(environment, batch, runs),
        }
    }

    fn deliver_runs(&self, environment: &Environment, mut batch: Batch, runs: Vec<Run>) {
        let mut handles = batch.take_handles();
        let mut beside = batch.take_beside();
        for run in runs {
            let later =
                handles.split_off(handles.partition_point(|(index, _)| *index < run.messages.end));
            let own = std::mem::replace(&mut handles, later);
            let later =
                beside.split_off(beside.partition_point(|(index, _)| *index < run.messages.end));
            let memory = std::mem::replace(&mut beside, later);
            batch = self.deliver_run(environment, batch, run, own, memory);
        }
        self.shared.lock().recycle(batch);
    }

    fn deliver_run(
        &self,
        environment: &Environment,
        batch: Batch,
        run: Run,
        handles: Vec<(usize, HandleSlot)>,
        memory: Vec<(usize, Vec<Arrived>)>,
    ) -> Batch {
        // JavaScript may run a turn of the event loop in the middle of another, as some addons do: the
        // batch of the outer one is put aside meanwhile.
        let outer = self.batch.replace(Some((batch, run)));
        let mut given = Given::default();
        let function = environment.callback(Callbacks::ChannelMessages);
        let has_run = self.target.call(function, |env| {
            let batch = self.batch.borrow();
            let (batch, run) = batch.as_ref()?;
            let (payload, ranges) = payload_of(env, batch, run);
            let count = value::integer(env, run.messages.len() as i32);
            let handles = handles_array(env, handles, run.messages.start, &mut given);
            let memory = memory_array(env, memory, run.messages.start, &mut given);
            Some([payload, count, handles, ranges, memory])
        });
        if !has_run {
            given.close();
        }
        let (batch, _) = self
            .batch
            .replace(outer)
            .unwrap_or_else(|| unreachable!("put there above"));
        batch
    }

    /// The messages that are being delivered, one string each.
    pub(super) fn lines(&self, env: napi_env) -> Option<napi_value> {
        let batch = self.batch.borrow();
        let (batch, run) = batch.as_ref()?;
        let messages = run.messages.clone();
        let lines = messages.map(|i| value::string(env, batch.message(i), run.ascii));
        Some(value::array(env, lines))
    }
}

/// Descriptors that are JavaScript's as soon as it runs.
#[derive(Default)]
struct Given(Vec<RawFd>);

impl Given {
    fn add(&mut self, descriptor: OwnedFd) -> RawFd {
        let number = descriptor.into_raw_fd();
        self.0.push(number);
        number
    }

    /// It has not run: its thread is being terminated.
    fn close(self) {
        for number in self.0 {
            drop(descriptor::take(number));
        }
    }
}

/// A run as JavaScript decodes it: a JSON array, or a copy of the bytes and where each value lies.
/// `undefined` for an array that no string can hold, although each of its messages fits one.
fn payload_of(env: napi_env, batch: &Batch, run: &Run) -> (napi_value, napi_value) {
    let bytes = &batch.region()[run.bytes.clone()];
    match run.encoding {
        Framing::JsonLines if bytes.len() > Limits::LONGEST_STRING => {
            (value::undefined(env), value::undefined(env))
        }
        Framing::JsonLines => (value::string(env, bytes, run.ascii), value::undefined(env)),
        Framing::Advanced => (value::buffer_copy(env, bytes), ranges_of(env, batch, run)),
    }
}

/// `[index, descriptor, …]` in ascending order, -1 for a descriptor that did not arrive;
/// `undefined` when no message carries one. The descriptors are JavaScript's from here on.
fn handles_array(
    env: napi_env,
    handles: Vec<(usize, HandleSlot)>,
    first_message: usize,
    given: &mut Given,
) -> napi_value {
    if handles.is_empty() {
        return value::undefined(env);
    }
    let numbers = handles.into_iter().flat_map(|(index, slot)| {
        let fd = match slot {
            HandleSlot::Received(fd) => given.add(fd),
            HandleSlot::Missing => -1,
        };
        let index = index - first_message;
        [value::integer(env, index as i32), value::integer(env, fd)]
    });
    value::array(env, numbers)
}

/// `[index, [piece, …], …]` in ascending order, or `undefined`. A piece is a descriptor, JavaScript's
/// from here on, an ArrayBuffer or a string.
fn memory_array(
    env: napi_env,
    memory: Vec<(usize, Vec<Arrived>)>,
    first_message: usize,
    given: &mut Given,
) -> napi_value {
    if memory.is_empty() {
        return value::undefined(env);
    }
    let items = memory.into_iter().flat_map(|(index, pieces)| {
        let pieces = pieces.into_iter().map(|piece| match piece {
            Arrived::File(file) => value::integer(env, given.add(file)),
            Arrived::Copied(memory, content) => memory::copied(env, memory, content),
        });
        let index = value::integer(env, (index - first_message) as i32);
        [index, value::array(env, pieces)]
    });
    value::array(env, items)
}

/// `[start, end, …]` of each message in the run's bytes.
fn ranges_of(env: napi_env, batch: &Batch, run: &Run) -> napi_value {
    let numbers = run.messages.clone().flat_map(|index| {
        let range = batch.range(index);
        [range.start, range.end].map(|at| value::number(env, (at - run.bytes.start) as f64))
    });
    value::array(env, numbers)
}

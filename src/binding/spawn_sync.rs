//! spawnSync for JavaScript: the caller waits, the run itself is `process::sync`'s.

use std::time::Duration;

use napi::sys::{napi_callback_info, napi_env, napi_value};

use super::Function;
use super::command;
use super::environment::Environment;
use super::process::usage_fields;
use super::value;
use crate::process::sync::{Options, Outcome, run};
use crate::process::{Ended, Status};

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[("spawnSync", Some(spawn_sync))];

/// `(…, inputs, timeout, maxBuffer, killSignal)` after what [`command::read`] takes.
unsafe extern "C" fn spawn_sync(env: napi_env, info: napi_callback_info) -> napi_value {
    let [values @ .., inputs, timeout, max_buffer, kill_signal] = value::arguments::<14>(env, info);
    if let Some(environment) = Environment::of(env) {
        environment.channels().flush_all();
    }
    let inputs = value::elements(env, inputs);
    // SAFETY: no JavaScript of this thread runs before the run has ended and the slices are gone.
    let inputs = inputs
        .iter()
        .map(|&input| unsafe { value::view_bytes(env, input) });
    let options = Options {
        inputs: inputs.map(|bytes| bytes.map(|bytes| &*bytes)).collect(),
        timeout: duration(value::get_f64(env, timeout)),
        max_buffer: bound(value::get_f64(env, max_buffer)),
        kill_signal: value::get_i32(env, kill_signal),
    };
    answer(env, &run(command::read(env, values).command, &options))
}

/// Milliseconds; 0 is no limit.
fn duration(timeout: f64) -> Option<Duration> {
    (timeout > 0.0).then(|| Duration::try_from_secs_f64(timeout / 1e3).unwrap_or(Duration::MAX))
}

/// Bytes; 0 and Infinity are no limit.
fn bound(max_buffer: f64) -> Option<u64> {
    (max_buffer > 0.0 && max_buffer.is_finite()).then_some(max_buffer as u64)
}

/// `{ pid, status, signal, output, error, usage }`
fn answer(env: napi_env, outcome: &Outcome) -> napi_value {
    let status = outcome.ended.map(|ended| ended.status);
    let (code, signal) = match status {
        Some(Status::Exited(code)) => (value::integer(env, code), 0),
        Some(Status::Signaled(signal)) => (value::null(env), signal),
        None => (value::null(env), 0),
    };
    let error = outcome.error.map_or(0, |errno| -(errno as i32));
    value::object(
        env,
        [
            (c"pid", value::integer(env, outcome.pid)),
            (c"status", code),
            (c"signal", value::integer(env, signal)),
            (c"output", output(env, outcome)),
            (c"error", value::integer(env, error)),
            (c"usage", usage(env, outcome.ended.as_ref())),
        ],
    )
}

fn output(env: napi_env, outcome: &Outcome) -> napi_value {
    if outcome.ended.is_none() {
        return value::null(env);
    }
    let buffers = outcome.output.iter().map(|bytes| match bytes {
        Some(bytes) => value::buffer_copy(env, bytes),
        None => value::null(env),
    });
    value::array(env, buffers)
}

fn usage(env: napi_env, ended: Option<&Ended>) -> napi_value {
    let Some(ended) = ended else {
        return value::undefined(env);
    };
    let fields = usage_fields(&ended.usage);
    value::array(env, fields.iter().map(|&field| value::number(env, field)))
}

//! The arguments that spawn and spawnSync share, from JavaScript's values to a `Command`.

use napi::sys::{self, napi_env, napi_value};

use super::value;
use crate::process::{Command, Environment, Limits, Stdio};

/// What stands in the array of descriptors for one that is to be made; others are numbers of ours.
const IGNORE: i32 = -1;
const PIPE: i32 = -2;
const CHANNEL: i32 = -3;

/// Bits of `flags`.
const DETACHED: i32 = 1;
const SET_UID: i32 = 2;
const SET_GID: i32 = 4;
const DIE_WITH_PARENT: i32 = 8;
/// Two that are not about the child: its exit keeps the event loop alive; another thread starts it.
pub const REFERENCED: i32 = 16;
pub const BACKGROUND: i32 = 32;

/// A command, and what else is said with it.
pub struct Said {
    pub command: Command,
    /// The array that descriptors of our ends are put into.
    pub stdio: napi_value,
    pub flags: i32,
}

/// Reads `(file, argv, env, cwd, stdio, flags, uid, gid, limits, extraEnv)`, with which the arguments
/// of both calls begin.
pub fn read(env: napi_env, values: [napi_value; 10]) -> Said {
    let [
        file,
        arguments,
        all,
        directory,
        slots,
        flags,
        uid,
        gid,
        bounds,
        added,
    ] = values;
    let flags = value::get_i32(env, flags);
    let id = |bit: i32, value| (flags & bit != 0).then(|| value::get_i32(env, value) as u32);
    let command = Command {
        file: text(env, file),
        arguments: text(env, arguments),
        environment: match is_string(env, all) {
            true => Environment::Only(text(env, all)),
            false => Environment::Inherited {
                overrides: text(env, added),
            },
        },
        directory: is_string(env, directory).then(|| text(env, directory)),
        stdio: stdio(env, slots),
        detached: flags & DETACHED != 0,
        uid: id(SET_UID, uid),
        gid: id(SET_GID, gid),
        die_with_parent: flags & DIE_WITH_PARENT != 0,
        limits: limits(env, bounds),
    };
    Said {
        command,
        stdio: slots,
        flags,
    }
}

/// A string's bytes; none for anything else.
fn text(env: napi_env, string: napi_value) -> Vec<u8> {
    let mut bytes = Vec::new();
    value::append_string(env, string, &mut bytes);
    bytes
}

fn is_string(env: napi_env, value: napi_value) -> bool {
    value::type_of(env, value) == sys::ValueType::napi_string
}

fn stdio(env: napi_env, slots: napi_value) -> Vec<Stdio> {
    // SAFETY: no JavaScript runs while the slice is read.
    let bytes = unsafe { value::view_bytes(env, slots) }.unwrap_or_default();
    let numbers = bytes.as_chunks().0.iter().map(|n| i32::from_ne_bytes(*n));
    let entries = numbers.map(|number| match number {
        PIPE => Stdio::Pipe,
        CHANNEL => Stdio::Channel,
        number if number <= IGNORE => Stdio::Ignore,
        number => Stdio::Inherit(number),
    });
    entries.collect()
}

fn limits(env: napi_env, object: napi_value) -> Limits {
    if value::type_of(env, object) != sys::ValueType::napi_object {
        return Limits::default();
    }
    let property = |name| value::get_property(env, object, name);
    let integer = |value| value::get_i32(env, value);
    Limits {
        resources: property(c"rlimits").map_or_else(Vec::new, |list| {
            let triples = value::elements(env, list).into_iter();
            triples.map(|triple| resource(env, triple)).collect()
        }),
        nice: property(c"nice").map(integer),
        processors: property(c"cpuAffinity").map(|list| {
            let numbers = value::elements(env, list).into_iter();
            numbers.map(|number| integer(number) as usize).collect()
        }),
        oom_score_adj: property(c"oomScoreAdj").map(integer),
        cgroup: property(c"cgroup").map(|path| text(env, path)),
    }
}

/// `[resource, soft, hard]`, in which Infinity is no limit.
fn resource(env: napi_env, triple: napi_value) -> (u32, u64, u64) {
    let mut numbers = value::elements(env, triple).into_iter();
    let mut next = || numbers.next().map_or(0.0, |n| value::get_f64(env, n));
    // A conversion of a float saturates: Infinity is the highest number, which is RLIM_INFINITY.
    (next() as u32, next() as u64, next() as u64)
}

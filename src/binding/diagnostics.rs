//! What an operator may ask about the addon in this process: versions, which kernel features are
//! in use, and how many children, channels and orphans there are. Put together by
//! `lib/diagnostics.js`.

use napi::sys::{napi_callback_info, napi_env, napi_value};

use super::Function;
use super::environment::Environment;
use super::value;
use crate::ipc::shared;
use crate::process::orphan_count;
use crate::sys::features;

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("libuvVersion", Some(libuv_version)),
    ("missingFeatures", Some(missing_features)),
    ("counts", Some(counts)),
];

/// The version of the libuv inside the running binary.
unsafe extern "C" fn libuv_version(env: napi_env, _info: napi_callback_info) -> napi_value {
    let version = crate::uv::symbols().map(|symbols| symbols.version());
    value::string(env, version.unwrap_or_default().as_bytes(), true)
}

/// The names of the kernel features that were refused, and are therefore done another way.
unsafe extern "C" fn missing_features(env: napi_env, _info: napi_callback_info) -> napi_value {
    let missing = features::all()
        .into_iter()
        .filter(|feature| !feature.is_usable());
    let names = missing.map(|feature| value::string(env, feature.name().as_bytes(), true));
    value::array(env, names)
}

/// `[children of this environment, its channels, channels of the process, orphans]`.
unsafe extern "C" fn counts(env: napi_env, _info: napi_callback_info) -> napi_value {
    let (children, channels) = Environment::of(env).map_or((0, 0), |environment| {
        (environment.processes().len(), environment.channels().len())
    });
    let counts = [children, channels, shared::count(), orphan_count()];
    value::array(
        env,
        counts
            .into_iter()
            .map(|count| value::number(env, count as f64)),
    )
}

//! The upgrade of a channel to brood's own frames, as JavaScript has it offered and taken up.

use napi::sys::{napi_callback_info, napi_env, napi_value};

use super::entry_of;
use crate::binding::secret::secret;
use crate::binding::{Function, value};
use crate::ipc::upgrade::{Offer, Terms, VERSION};

/// What this file adds to the addon's exports.
pub const FUNCTIONS: &[Function] = &[
    ("makeOffer", Some(make_offer)),
    ("channelOffer", Some(offer)),
    ("channelAccept", Some(accept)),
    ("channelPin", Some(pin)),
];

/// The text of an offer to a child of this process, of what layout `version` could do.
unsafe extern "C" fn make_offer(env: napi_env, info: napi_callback_info) -> napi_value {
    let [version] = value::arguments(env, info);
    let terms = Terms::of(value::get_i32(env, version).clamp(0, VERSION as i32) as u32);
    let offer = Offer::new(terms, std::process::id(), &format!("{:032x}", secret()));
    value::string(env, offer.to_text().as_bytes(), true)
}

/// The child was made this offer in its environment.
unsafe extern "C" fn offer(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, text] = value::arguments(env, info);
    if let (Some((_, entry)), Some(offer)) = (entry_of(env, id), offer_of(env, text)) {
        entry.shared.lock().offer_upgrade(&offer);
    }
    value::undefined(env)
}

/// Takes up the parent's offer, which is `text`, if it was made to this process and there is common
/// ground with `version`; returns whether.
unsafe extern "C" fn accept(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id, text, version] = value::arguments(env, info);
    let own = Terms::of(value::get_i32(env, version).clamp(0, VERSION as i32) as u32);
    let accepted = match (entry_of(env, id), offer_of(env, text)) {
        (Some((_, entry)), Some(offer)) if offer.parent == std::os::unix::process::parent_id() => {
            let mut channel = entry.shared.lock();
            let accepted = channel.accept_upgrade(&offer, own);
            entry.update(&channel);
            accepted.unwrap_or(false)
        }
        _ => false,
    };
    value::boolean(env, accepted)
}

fn offer_of(env: napi_env, text: napi_value) -> Option<Offer> {
    let mut bytes = Vec::new();
    value::append_string(env, text, &mut bytes);
    Offer::parse(std::str::from_utf8(&bytes).ok()?)
}

/// Keeps Node's protocol, whatever the peer answers; false when it is too late.
unsafe extern "C" fn pin(env: napi_env, info: napi_callback_info) -> napi_value {
    let [id] = value::arguments(env, info);
    let pinned = entry_of(env, id).is_none_or(|(_, entry)| entry.shared.lock().pin());
    value::boolean(env, pinned)
}

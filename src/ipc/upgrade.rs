//! How the two ends of a channel find out that both are brood's, and where in each direction
//! Node's protocol ends. Pure: strings and bytes in, decisions out; `channel` acts on them.
//!
//! The parent's offer goes out of band, in the child's environment, so that nobody is spoken to
//! who would not understand: `<version>:<nonce>`. Then, by Node's protocol, as messages that Node
//! would pass over (their `cmd` begins with `NODE_`):
//!
//! 1. the child says ANSWER with the version and the features it will use;
//! 2. the parent, unless the channel is pinned to Node's protocol meanwhile, says SWITCH, after
//!    which it speaks frames;
//! 3. the child, having seen that, says SWITCH, too, and speaks frames from there on.
//!
//! Every one of them carries the nonce, so no message of a program is taken for one.

use super::Framing;
use super::v8_value::{V8Reader, V8Writer};

/// The newest layout this side speaks, and the oldest it still does.
pub const VERSION: u32 = 3;
/// See [`VERSION`].
pub const OLDEST: u32 = 1;

/// What both sides may use, as bits.
pub mod features {
    /// Many handles under way at a time (without: one).
    pub const PIPELINED_HANDLES: u32 = 1;
    /// Large buffers as sealed memory beside the stream.
    pub const SHARED_MEMORY: u32 = 2;
    /// Large buffers and long texts in memory that is used again and again.
    pub const AREAS: u32 = 4;
    /// All this side knows.
    pub const ALL: u32 = PIPELINED_HANDLES | SHARED_MEMORY | AREAS;
}

/// What the two sides have agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Of the layout.
    pub version: u32,
    /// Bits of [`features`].
    pub features: u32,
}

impl Terms {
    /// All this side can do, as version `version` knew it.
    pub fn of(version: u32) -> Terms {
        let features = match version {
            // The first layout had neither.
            ..2 => 0,
            2 => features::PIPELINED_HANDLES | features::SHARED_MEMORY,
            _ => features::ALL,
        };
        Terms { version, features }
    }

    /// What `self` makes of the other side's terms; `None` if there is no common ground.
    pub fn agree(self, theirs: Terms) -> Option<Terms> {
        let version = self.version.min(theirs.version);
        (version >= OLDEST).then_some(Terms {
            version,
            features: Terms::of(version).features & self.features & theirs.features,
        })
    }

    /// Whether `self` is something that was offered as `offered`.
    fn is_within(self, offered: Terms) -> bool {
        let could = Terms::of(self.version).features & offered.features;
        (OLDEST..=offered.version).contains(&self.version) && self.features & !could == 0
    }
}

/// The steps that are said on the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// "I am brood, too."
    Answer,
    /// "After this I speak frames."
    Switch,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Answer => "NODE_BROOD_ANSWER",
            Step::Switch => "NODE_BROOD_SWITCH",
        }
    }
}

/// The message that says `step`: a payload without newline or length.
pub fn announcement(framing: Framing, step: Step, nonce: &str, terms: Terms) -> Vec<u8> {
    let Terms { version, features } = terms;
    let cmd = format!("{}/{nonce}/{version}/{features}", step.name());
    match framing {
        Framing::JsonLines => format!(r#"{{"cmd":"{cmd}"}}"#).into_bytes(),
        Framing::Advanced => {
            let mut writer = V8Writer::new();
            writer.begin_object().string("cmd").string(&cmd);
            writer.end_object(1);
            writer.into_bytes()
        }
    }
}

/// The terms that `payload` states, if it says `step` with this nonce, exactly as
/// [`announcement`] writes it.
pub fn recognise(framing: Framing, step: Step, nonce: &str, payload: &[u8]) -> Option<Terms> {
    let terms = match framing {
        Framing::JsonLines => terms_in(json_cmd(payload)?, step, nonce)?,
        Framing::Advanced => {
            let mut value = V8Reader::new(payload)?;
            value.begin_object()?;
            value.name().filter(|name| name.is("cmd"))?;
            terms_in(&value.string()?.as_str(), step, nonce)?
        }
    };
    (announcement(framing, step, nonce, terms) == payload).then_some(terms)
}

fn json_cmd(payload: &[u8]) -> Option<&str> {
    let cmd = payload.strip_prefix(br#"{"cmd":""#)?;
    std::str::from_utf8(cmd.strip_suffix(br#""}"#)?).ok()
}

fn terms_in(cmd: &str, step: Step, nonce: &str) -> Option<Terms> {
    let rest = cmd.strip_prefix(step.name())?.strip_prefix('/')?;
    let rest = rest.strip_prefix(nonce)?.strip_prefix('/')?;
    let (version, features) = rest.split_once('/')?;
    Some(Terms {
        version: version.parse().ok()?,
        features: features.parse().ok()?,
    })
}

/// Where one end stands in the negotiation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Negotiation {
    /// Nothing was offered, or nothing will come of it: Node's protocol for good.
    #[default]
    None,
    /// The parent: the child has been offered these terms.
    Offered {
        /// The offer's.
        nonce: String,
        /// All the parent can do.
        terms: Terms,
    },
    /// This end has said what it will use and waits for the other to switch.
    Agreed {
        /// The offer's.
        nonce: String,
        /// What was agreed; a child's may still shrink when the parent switches.
        terms: Terms,
        /// Whether this end speaks frames already: a parent does, a child follows.
        switched: bool,
    },
    /// Both directions speak frames.
    Done(Terms),
}

impl Negotiation {
    /// What this end waits for: the step and the nonce.
    pub fn awaits(&self) -> Option<(Step, &str)> {
        match self {
            Negotiation::Offered { nonce, .. } => Some((Step::Answer, nonce)),
            Negotiation::Agreed { nonce, .. } => Some((Step::Switch, nonce)),
            Negotiation::None | Negotiation::Done(_) => None,
        }
    }

    /// Whether the announcement [`awaits`](Self::awaits) names may state these terms: an answer
    /// only what was offered, a switch only what was agreed.
    pub fn permits(&self, stated: Terms) -> bool {
        match self {
            Negotiation::Offered { terms, .. } => stated.is_within(*terms),
            Negotiation::Agreed {
                terms,
                switched: true,
                ..
            } => stated == *terms,
            Negotiation::Agreed { terms, .. } => {
                stated.version == terms.version && stated.is_within(*terms)
            }
            Negotiation::None | Negotiation::Done(_) => false,
        }
    }
}

/// An offer as it stands in the environment: version, and the nonce, which begins with the number
/// of the parent and its features, so that an offer which has come to a grandchild by inheritance
/// is not taken for one to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// What the parent can do.
    pub terms: Terms,
    /// To be repeated in every announcement.
    pub nonce: String,
    /// The process that made the offer.
    pub parent: u32,
}

impl Offer {
    /// An offer by process `parent`; `secret` are digits nobody can guess.
    pub fn new(terms: Terms, parent: u32, secret: &str) -> Offer {
        let nonce = format!("{parent}-{}-{secret}", terms.features);
        Offer {
            terms,
            nonce,
            parent,
        }
    }

    /// The value of the variable.
    pub fn to_text(&self) -> String {
        format!("{}:{}", self.terms.version, self.nonce)
    }

    /// Reads the value of the variable; `None` for anything that is no offer.
    pub fn parse(text: &str) -> Option<Offer> {
        let (version, nonce) = text.split_once(':')?;
        let mut parts = nonce.split('-');
        let (parent, features) = (parts.next()?, parts.next()?);
        let secret = parts.next().filter(|secret| {
            (16..=64).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_hexdigit())
        })?;
        let terms = Terms {
            version: version.parse().ok()?,
            features: features.parse().ok()?,
        };
        let offer = Offer::new(terms, parent.parse().ok()?, secret);
        (offer.to_text() == text).then_some(offer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "0123456789abcdef";
    const FRAMINGS: [Framing; 2] = [Framing::JsonLines, Framing::Advanced];

    fn terms(version: u32, features: u32) -> Terms {
        Terms { version, features }
    }

    #[test]
    fn versions_that_differ_agree_on_the_older_and_its_features() {
        let ours = Terms::of(VERSION);
        assert_eq!(ours.agree(ours), Some(ours));
        let newer = terms(VERSION + 1, 0xffff);
        assert_eq!(ours.agree(newer), Some(ours));
        assert_eq!(newer.agree(ours), Some(ours));
        let older = Terms::of(VERSION - 1);
        assert_eq!(ours.agree(older), Some(older));
        assert_eq!(older.agree(ours), Some(older));
        assert_eq!(ours.agree(terms(OLDEST - 1, 0)), None);
    }

    #[test]
    fn an_offer_survives_its_way_through_the_environment() {
        let offer = Offer::new(Terms::of(VERSION), 4711, SECRET);
        assert_eq!(Offer::parse(&offer.to_text()), Some(offer));
    }

    #[test]
    fn what_is_no_offer_is_ignored() {
        for text in [
            "",
            "1",
            "1:",
            ":1-1-0123456789abcdef",
            "1:1-1",
            "1:1-1-short",
            "1:1-1-0123456789abcdeg",
            "1:1-1-0123456789abcdef-x",
            "01:1-1-0123456789abcdef",
            "1:-1-1-0123456789abcdef",
            "99999999999:1-1-0123456789abcdef",
        ] {
            assert_eq!(Offer::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_announcement_is_recognised_by_step_and_nonce() {
        let stated = terms(1, 3);
        for framing in FRAMINGS {
            let said = announcement(framing, Step::Answer, "1-1-abc", stated);
            let heard = |step, nonce, payload| recognise(framing, step, nonce, payload);
            assert_eq!(heard(Step::Answer, "1-1-abc", &said[..]), Some(stated));
            assert_eq!(heard(Step::Switch, "1-1-abc", &said[..]), None);
            assert_eq!(heard(Step::Answer, "1-1-abd", &said[..]), None);
            assert_eq!(heard(Step::Answer, "1-1-ab", &said[..]), None);
            let more = [&said[..], b" "].concat();
            assert_eq!(heard(Step::Answer, "1-1-abc", &more[..]), None);
        }
    }

    #[test]
    fn a_step_may_state_only_what_went_before_permits() {
        let (nonce, all) = (String::new(), Terms::of(VERSION));
        let offered = Negotiation::Offered {
            nonce: nonce.clone(),
            terms: all,
        };
        assert!(offered.permits(all));
        assert!(offered.permits(terms(OLDEST, 0)));
        assert!(!offered.permits(terms(VERSION + 1, 0)));
        assert!(!offered.permits(terms(OLDEST - 1, 0)));
        assert!(!offered.permits(terms(VERSION, features::ALL + 1)));
        assert!(!offered.permits(terms(VERSION - 1, features::ALL)));
        let parent = Negotiation::Agreed {
            nonce: nonce.clone(),
            terms: all,
            switched: true,
        };
        assert!(parent.permits(all));
        assert!(!parent.permits(terms(VERSION, 0)));
        let child = Negotiation::Agreed {
            nonce,
            terms: all,
            switched: false,
        };
        assert!(child.permits(terms(VERSION, 0)));
        assert!(!child.permits(terms(VERSION - 1, 0)));
    }

    proptest! {
        #[test]
        fn only_what_announcement_writes_is_recognised(bytes: Vec<u8>, cut in 0usize..60) {
            for framing in FRAMINGS {
                let said = announcement(framing, Step::Switch, "n", terms(1, 3));
                let mut changed = said.clone();
                changed.truncate(cut.min(said.len()));
                changed.extend_from_slice(&bytes);
                if let Some(stated) = recognise(framing, Step::Switch, "n", &changed) {
                    prop_assert_eq!(announcement(framing, Step::Switch, "n", stated), changed);
                }
            }
        }
    }
}

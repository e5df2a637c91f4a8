//! The worker of a client, by weighted rendezvous hashing: every worker draws a number for the
//! client, and the best draw wins. A worker that leaves takes only its own draws with it, so only
//! its clients move; one that joins wins its share from all. The draws are SipHash under a secret
//! key: a client can neither compute its worker nor find an address that goes to the same.

use std::hash::Hasher;
use std::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::Candidate;

#[derive(Debug)]
pub(super) struct Affinity {
    keyed: SipHasher13,
}

impl Affinity {
    pub(super) fn new(key: &[u8; 16]) -> Affinity {
        Affinity {
            keyed: SipHasher13::new_with_key(key),
        }
    }

    /// The index of the client's worker, if that one is free. Draining ones draw no number.
    pub(super) fn of(&self, client: IpAddr, candidates: &[Candidate]) -> Option<usize> {
        let client = self.hasher_of(client);
        let staying = candidates.iter().enumerate();
        let (_, index) = staying
            .filter(|(_, candidate)| !candidate.draining)
            .map(|(index, candidate)| (draw(client, candidate), index))
            .min_by(|(a, first), (b, second)| {
                let by_id = || candidates[*first].id.cmp(&candidates[*second].id);
                a.total_cmp(b).then_with(by_id)
            })?;
        candidates[index].free.then_some(index)
    }

    /// A client is the same whether it came over IPv4 or through a dual-stack socket.
    fn hasher_of(&self, client: IpAddr) -> SipHasher13 {
        let mut hasher = self.keyed;
        match client.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            IpAddr::V6(address) => hasher.write(&address.octets()),
        }
        hasher
    }
}

/// When this worker would come for the client: an exponentially distributed time whose rate is the
/// weight. The earliest of such times is each worker's with a probability proportional to its rate.
fn draw(mut client: SipHasher13, candidate: &Candidate) -> f64 {
    client.write(&candidate.id.to_le_bytes());
    // 53 bits as a fraction above 0 and up to 1.
    let fraction = ((client.finish() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    -fraction.ln() / candidate.share() as f64
}

/// A number made from the key that says nothing about it.
pub(super) fn derive(key: &[u8; 16], purpose: &[u8]) -> u64 {
    SipHasher13::new_with_key(key).hash(purpose)
}

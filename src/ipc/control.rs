//! The three messages of Node's handle protocol, by name. Finding them in a frame is left to
//! `json_lines` and `advanced`, acting on them to `channel`.

/// A message that the channel itself has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// `NODE_HANDLE`: owns the next descriptor that was received.
    Handle,
    /// `NODE_HANDLE_ACK`: the peer has our handle.
    Ack,
    /// `NODE_HANDLE_NACK`: the message reached the peer, the handle did not.
    Nack,
}

impl Control {
    /// What every control message contains, so that all others can be passed over quickly.
    pub(crate) const NEEDLE: &'static str = "NODE_HANDLE";

    /// The control message with this `cmd`, if it is one.
    pub fn from_cmd(cmd: &str) -> Option<Self> {
        match cmd {
            "NODE_HANDLE" => Some(Self::Handle),
            "NODE_HANDLE_ACK" => Some(Self::Ack),
            "NODE_HANDLE_NACK" => Some(Self::Nack),
            _ => None,
        }
    }
}

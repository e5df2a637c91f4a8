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

    /// The message's `cmd`.
    pub fn cmd(self) -> &'static str {
        match self {
            Self::Handle => "NODE_HANDLE",
            Self::Ack => "NODE_HANDLE_ACK",
            Self::Nack => "NODE_HANDLE_NACK",
        }
    }

    /// The control message with this `cmd`, if it is one.
    pub fn from_cmd(cmd: &str) -> Option<Self> {
        [Self::Handle, Self::Ack, Self::Nack]
            .into_iter()
            .find(|control| control.cmd() == cmd)
    }
}

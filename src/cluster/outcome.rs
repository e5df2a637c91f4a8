//! What has become of connections that were handed to a worker, and of its permits to accept some.

use super::connection::Connection;

/// News of one worker since it was last asked.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many it has taken.
    pub taken: u64,
    /// How many it would not serve; they are among `returned`.
    pub declined: u64,
    /// Connections that another worker is to get.
    pub returned: Vec<Connection>,
    /// For each connection it has accepted itself, the listener's number.
    pub accepted: Vec<u32>,
}

impl Outcome {
    /// The worker serves one.
    pub fn take(&mut self) {
        self.taken += 1;
    }

    /// The worker has accepted one of a listener's connections and serves it.
    pub fn accept(&mut self, listener: u32) {
        self.taken += 1;
        self.accepted.push(listener);
    }

    /// The worker has said that it will not accept a connection. It is in the backlog still.
    pub fn decline_permit(&mut self) {
        self.declined += 1;
    }

    /// The worker has said that it will not serve this one.
    pub fn decline(&mut self, connection: Connection) {
        self.declined += 1;
        self.returned.push(connection);
    }

    /// The worker is gone and may have begun to serve this one: it goes to another only when it
    /// certainly has not, for none may be served twice. Otherwise it is closed.
    pub fn orphan(&mut self, connection: Connection) {
        if connection.is_untouched() {
            self.returned.push(connection);
        }
    }
}

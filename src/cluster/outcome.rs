//! What has become of connections that were handed to a worker.

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
}

impl Outcome {
    /// The worker serves one.
    pub fn take(&mut self) {
        self.taken += 1;
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

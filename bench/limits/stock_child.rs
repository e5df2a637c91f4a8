//! A stock Node child with a channel whose other end is ours: what the programs beside this file
//! talk to.

use std::error::Error;
use std::os::unix::net::UnixStream;

use brood::process::{Child, Command, Environment, Stdio, spawn};

/// Runs `node script ...arguments` with `environment` added to ours. The channel blocks, and has
/// brood's buffers.
pub fn start(
    node: &str,
    script: &str,
    arguments: &[&str],
    environment: &[&str],
) -> Result<(Child, UnixStream), Box<dyn Error>> {
    let words: Vec<&str> = [node, script].iter().chain(arguments).copied().collect();
    let mut overrides = vec!["NODE_CHANNEL_FD=3"];
    overrides.extend(environment);
    let command = Command {
        file: node.into(),
        arguments: words.join("\0").into_bytes(),
        environment: Environment::Inherited {
            overrides: overrides.join("\0").into_bytes(),
        },
        stdio: vec![
            Stdio::Ignore,
            Stdio::Ignore,
            Stdio::Inherit(2),
            Stdio::Channel,
        ],
        ..Command::default()
    };
    let mut spawned = spawn(command).map_err(|failed| failed.errno)?;
    let end = spawned.ends.pop().flatten().ok_or("no channel")?;
    let channel = UnixStream::from(end);
    channel.set_nonblocking(false)?;
    Ok((spawned.child, channel))
}

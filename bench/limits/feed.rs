//! The limit of row S5: feeds a stock Node child with small messages, 64 KiB a write, without any
//! JavaScript on this side. `feed NODE SCRIPT COUNT` prints messages a second.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use brood::process::{Command, Environment, Stdio, spawn};

const MESSAGE: &str = r#"{"type":"task","id":12345,"name":"some name","values":[1,2,3],"ok":true}"#;
const BLOCK: usize = 64 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(node), Some(script), Some(count)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        return Err("usage: feed NODE SCRIPT COUNT".into());
    };
    let command = Command {
        file: node.clone().into_bytes(),
        arguments: [node, script, count.clone()].join("\0").into_bytes(),
        environment: Environment::Inherited {
            overrides: b"NODE_CHANNEL_FD=3".to_vec(),
        },
        stdio: vec![Stdio::Ignore, Stdio::Ignore, Stdio::Inherit(2), Stdio::Pipe],
        ..Command::default()
    };
    let mut spawned = spawn(command).map_err(|failed| failed.errno)?;
    let end = spawned
        .ends
        .pop()
        .flatten()
        .ok_or("the channel is missing")?;
    let channel = UnixStream::from(end);
    channel.set_nonblocking(false)?;
    let mut replies = BufReader::new(channel.try_clone()?);
    let rate = feed(channel, &mut replies, count.parse()?)?;
    println!("{rate}");
    drop(replies);
    spawned.child.wait()?;
    Ok(())
}

fn feed(
    mut channel: UnixStream,
    replies: &mut impl BufRead,
    count: usize,
) -> Result<f64, Box<dyn Error>> {
    let line = format!("{MESSAGE}\n");
    let per_block = BLOCK / line.len();
    let block = line.repeat(per_block);
    let mut reply = String::new();
    replies.read_line(&mut reply)?;
    let start = Instant::now();
    let mut left = count;
    while left > 0 {
        let now = left.min(per_block);
        channel.write_all(&block.as_bytes()[..now * line.len()])?;
        left -= now;
    }
    replies.read_line(&mut reply)?;
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

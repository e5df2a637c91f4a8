//! The limit of rows S11 to S13: accepts connections and hands them on without JavaScript on this
//! side.
//!
//! `dispatch cluster NODE SCRIPT`: to two stock cluster workers, in the protocol of round robin.
//! `dispatch send NODE SCRIPT`: to one stock child, as `send(message, socket)` does.
//! `dispatch plain`: to two threads that answer HTTP themselves, without any protocol.
//!
//! Prints `{"port":...}` when it is ready, and for each line on standard input what it has done so
//! far: connections, and microseconds of processor time. Ends with its input.

use std::error::Error;
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use brood::process::Child;
use brood::sys::socket::{self, Ancillary};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

mod stock_child;

type Outcome<T> = Result<T, Box<dyn Error>>;

const NEW_CONNECTION: &str = concat!(
    r#"{"cmd":"NODE_HANDLE","type":"net.Native","#,
    r#""msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"limit","seq":1}}"#,
    "\n"
);
const SOCKET: &str = concat!(
    r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"socket"}"#,
    "\n"
);
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let receivers = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["cluster", node, script] => vec![
            Receiver::worker(node, script, 1)?,
            Receiver::worker(node, script, 2)?,
        ],
        ["send", node, script] => vec![Receiver::child(node, script)?],
        ["plain", ..] => vec![Receiver::thread()?, Receiver::thread()?],
        _ => return Err("usage: dispatch cluster|send|plain NODE SCRIPT".into()),
    };
    let mut dispatcher = Dispatcher {
        listener,
        port,
        receivers,
        next: 0,
        accepted: 0,
    };
    while dispatcher.receivers.iter().any(|receiver| !receiver.ready) {
        if !dispatcher.turn()? {
            return Ok(());
        }
    }
    println!(r#"{{"port":{port}}}"#);
    while dispatcher.turn()? {}
    dispatcher.end()
}

struct Dispatcher {
    listener: TcpListener,
    port: u16,
    receivers: Vec<Receiver>,
    next: usize,
    accepted: usize,
}

impl Dispatcher {
    /// Waits for something to do and does it; false when the input has ended.
    fn turn(&mut self) -> Outcome<bool> {
        let [input, listening, receivers @ ..] = &self.wait()?[..] else {
            return Err("poll lost a descriptor".into());
        };
        for (receiver, readable) in self.receivers.iter_mut().zip(receivers) {
            if *readable {
                receiver.read(self.port)?;
            }
        }
        if *listening {
            self.accept()?;
        }
        if !input {
            return Ok(true);
        }
        if std::io::stdin().read(&mut [0; 64])? == 0 {
            return Ok(false);
        }
        self.report()?;
        Ok(true)
    }

    /// Which of the input, the listener and the receivers' channels are readable. While nobody is
    /// free, connections wait in the backlog.
    fn wait(&self) -> Outcome<Vec<bool>> {
        let input = std::io::stdin();
        let wanted = |wanted| match wanted {
            true => PollFlags::POLLIN,
            false => PollFlags::empty(),
        };
        let anybody = self.receivers.iter().any(Receiver::is_free);
        let mut descriptors = vec![
            PollFd::new(input.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), wanted(anybody)),
        ];
        for receiver in &self.receivers {
            let speaks = receiver.message.is_some();
            descriptors.push(PollFd::new(receiver.channel.as_fd(), wanted(speaks)));
        }
        poll(&mut descriptors, PollTimeout::NONE)?;
        Ok(descriptors
            .iter()
            .map(|descriptor| descriptor.any() == Some(true))
            .collect())
    }

    /// Hands on connections while there are any and a receiver is free.
    fn accept(&mut self) -> Outcome<()> {
        while let Some(free) = self.next_free() {
            match self.listener.accept() {
                Ok((connection, _)) => self.receivers[free].give(&connection)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            self.next = free + 1;
            self.accepted += 1;
        }
        Ok(())
    }

    fn next_free(&self) -> Option<usize> {
        let count = self.receivers.len();
        let mut in_turn = (0..count).map(|i| (self.next + i) % count);
        in_turn.find(|&i| self.receivers[i].is_free())
    }

    fn report(&self) -> Outcome<()> {
        let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
        let cpu = (usage.user_time() + usage.system_time()).num_microseconds();
        println!(r#"{{"accepted":{},"cpu":{cpu}}}"#, self.accepted);
        Ok(())
    }

    /// Closes the channels, at which the children end.
    fn end(self) -> Outcome<()> {
        for receiver in self.receivers {
            drop(receiver.channel);
            if let Some(mut child) = receiver.child {
                child.wait()?;
            }
        }
        Ok(())
    }
}

/// Who gets connections.
struct Receiver {
    child: Option<Child>,
    channel: UnixStream,
    /// What travels with a connection; none where no protocol is spoken.
    message: Option<&'static str>,
    ready: bool,
    /// Whether it has yet to acknowledge a connection.
    owes: bool,
    unread: Vec<u8>,
}

impl Receiver {
    fn new(child: Option<Child>, channel: UnixStream, message: Option<&'static str>) -> Receiver {
        Receiver {
            child,
            channel,
            ready: message.is_none(),
            message,
            owes: false,
            unread: Vec::new(),
        }
    }

    fn worker(node: &str, script: &str, id: u32) -> Outcome<Receiver> {
        let id = format!("NODE_UNIQUE_ID={id}");
        let (child, channel) = stock_child::start(node, script, &[], &[&id])?;
        Ok(Receiver::new(Some(child), channel, Some(NEW_CONNECTION)))
    }

    fn child(node: &str, script: &str) -> Outcome<Receiver> {
        let (child, channel) = stock_child::start(node, script, &[], &[])?;
        Ok(Receiver::new(Some(child), channel, Some(SOCKET)))
    }

    fn thread() -> Outcome<Receiver> {
        let (ours, theirs) = UnixStream::pair()?;
        thread::spawn(move || {
            if let Err(error) = answer_all(&theirs) {
                eprintln!("{error}");
                std::process::exit(1);
            }
        });
        Ok(Receiver::new(None, ours, None))
    }

    fn is_free(&self) -> bool {
        self.ready && !self.owes
    }

    fn give(&mut self, connection: &TcpStream) -> Outcome<()> {
        let message = self.message.unwrap_or("c");
        let bytes = [IoSlice::new(message.as_bytes())];
        socket::send(self.channel.as_fd(), &bytes, &[connection.as_fd()])?;
        self.owes = self.message.is_some();
        Ok(())
    }

    fn read(&mut self, port: u16) -> Outcome<()> {
        let mut block = [0; 4096];
        let bytes = self.channel.read(&mut block)?;
        if bytes == 0 {
            return Err("a child closed its channel".into());
        }
        self.unread.extend_from_slice(&block[..bytes]);
        while let Some(end) = memchr::memchr(b'\n', &self.unread) {
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            self.hear(&String::from_utf8(line)?, port)?;
        }
        Ok(())
    }

    /// The few lines that matter here; a worker that declines a connection is not expected.
    fn hear(&mut self, line: &str, port: u16) -> Outcome<()> {
        if line.contains("NODE_HANDLE_ACK") {
            self.owes = false;
        } else if line.contains(r#""act":"queryServer""#) {
            let query: serde_json::Value = serde_json::from_str(line)?;
            let reply = serde_json::json!({
                "cmd": "NODE_CLUSTER",
                "ack": query["seq"],
                "key": "limit",
                "errno": 0,
                "sockname": { "address": "127.0.0.1", "family": "IPv4", "port": port },
            });
            self.channel.write_all(format!("{reply}\n").as_bytes())?;
        } else if line.contains(r#""act":"listening""#) || line.trim() == r#""ready""# {
            self.ready = true;
        }
        Ok(())
    }
}

/// The receiving end without a protocol: one byte and one descriptor each.
fn answer_all(channel: &UnixStream) -> Outcome<()> {
    loop {
        poll(
            &mut [PollFd::new(channel.as_fd(), PollFlags::POLLIN)],
            PollTimeout::NONE,
        )?;
        let received = socket::receive(channel.as_fd(), &mut [0])?;
        if received.bytes == 0 {
            return Ok(());
        }
        if let Ancillary::Complete(descriptors) = received.ancillary {
            for descriptor in descriptors {
                answer(descriptor.into())?;
            }
        }
    }
}

fn answer(mut connection: TcpStream) -> Outcome<()> {
    connection.set_nonblocking(false)?;
    if connection.read(&mut [0; 4096])? > 0 {
        connection.write_all(RESPONSE)?;
    }
    Ok(())
}

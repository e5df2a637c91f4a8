//! Signals a child with all its descendants. Those whose parents have died are adopted by init and
//! can no longer be found by their parent's number, so every child is born with a mark that its
//! descendants inherit: the soft `RLIMIT_LOCKS`, which Linux has not enforced since 2.4 and which
//! fork, exec, a new environment and new credentials all leave alone.
//!
//! A session of its own is a wish to be left alone (`detached`, daemons): it ends the tree.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use super::child::Child;
use crate::sys::pidfd::{PidFd, file_locks_limit};

/// How long to try to make the whole tree stand still. More than a few milliseconds means that
/// something in it cannot be stopped.
const PATIENCE: Duration = Duration::from_millis(500);

/// What a child is marked with: eight bits that say it is a mark, 34 of the process that launched
/// it, 22 of its own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Mark(u64);

impl Mark {
    const MAGIC: u64 = 0x42 << 56;
    const NUMBER: u64 = (1 << 22) - 1;
    const ORIGIN: u64 = (1 << 56) - 1 - Mark::NUMBER;

    /// The mark a limit stands for, if it does.
    fn parse(limit: u64) -> Option<Mark> {
        (limit & (0xff << 56) == Mark::MAGIC).then_some(Mark(limit))
    }

    /// What the marks of children have in common, launched by a process with this mark or none.
    fn origin_of(launcher: Option<Mark>) -> u64 {
        let seed = launcher.map_or_else(|| RandomState::new().build_hasher().finish(), |m| m.0);
        // The finalizer of SplitMix64: all bits of the seed reach all bits of the result.
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & Mark::ORIGIN
    }

    fn origin(self) -> u64 {
        self.0 & Mark::ORIGIN
    }
}

/// The mark of our children, to which each adds its number. `None` when the limit is in use here.
pub(super) fn mark() -> Option<u64> {
    static MARK: OnceLock<Option<u64>> = OnceLock::new();
    *MARK.get_or_init(|| {
        let (soft, hard) = getrlimit(Resource::RLIMIT_LOCKS).ok()?;
        let origin = Mark::origin_of(Mark::parse(soft));
        (hard == RLIM_INFINITY).then_some(Mark::MAGIC | origin)
    })
}

/// The child at the root of a tree.
#[derive(Clone, Copy, Debug)]
pub enum Root<'a> {
    /// A child whose end has not been taken.
    Child(&'a Child),
    /// The number of a child whose end has been taken: it may mean another process by now.
    Ended(i32),
}

impl Root<'_> {
    fn pid(&self) -> i32 {
        match self {
            Root::Child(child) => child.pid(),
            Root::Ended(pid) => *pid,
        }
    }

    fn is_child(&self) -> bool {
        matches!(self, Root::Child(child) if child.as_fd().is_some())
    }

    fn mark(&self) -> Option<Mark> {
        mark().map(|mark| Mark(mark | self.pid() as u64))
    }
}

/// Sends `signal` to the child and its descendants, and returns how many got it. Until the signal
/// is sent they are all stopped: otherwise one that forks could be ahead of us for ever.
///
/// # Errors
/// `EINVAL` for a signal that is none, `EPERM` when nothing may be signalled, errors of `/proc`,
/// `ENOENT` where it is not mounted; nobody has been signalled then.
pub fn kill_tree(root: Root<'_>, signal: i32) -> Result<usize, Errno> {
    if !(0..=64).contains(&signal) {
        return Err(Errno::EINVAL);
    }
    let mut tree = Tree::new(root);
    let stop = !matches!(signal, 0 | libc::SIGCONT);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let grown = tree.grow(stop)?;
        if !grown && (!stop || tree.stands_still()) || Instant::now() >= deadline {
            break;
        }
        if !grown {
            thread::sleep(Duration::from_micros(200));
        }
    }
    tree.signal(signal, stop)
}

/// The processes of a tree, as far as they are known.
struct Tree<'a> {
    root: Root<'a>,
    own: Entry,
    members: HashMap<i32, Member>,
}

struct Member {
    pidfd: PidFd,
    started: u64,
    /// Whether it was stopped before we came.
    stopped: bool,
}

impl<'a> Tree<'a> {
    fn new(root: Root<'a>) -> Tree<'a> {
        let own = Entry::read(std::process::id() as i32).unwrap_or_default();
        Tree {
            root,
            own,
            members: HashMap::new(),
        }
    }

    /// Looks for members and stops the new ones; whether there were any.
    fn grow(&mut self, stop: bool) -> Result<bool, Errno> {
        let table = processes()?;
        let mut grown = false;
        for entry in self.find(&table) {
            let known = self.members.get(&entry.pid);
            if known.is_some_and(|member| member.started == entry.started) {
                continue;
            }
            let Some(member) = Member::open(entry) else {
                continue; // it has ended
            };
            if stop {
                let _ = member.pidfd.signal(entry.pid, libc::SIGSTOP);
            }
            self.members.insert(entry.pid, member);
            grown = true;
        }
        Ok(grown)
    }

    /// The living processes of `table` that belong to the tree.
    fn find<'t>(&self, table: &'t [Entry]) -> Vec<&'t Entry> {
        let mut kin = Kin::default();
        kin.sessions.extend([self.own.session, self.root.pid()]);
        kin.add_mark(self.root.mark());
        let root = table.iter().find(|entry| entry.pid == self.root.pid());
        if !self.root.is_child() && root.is_some_and(|root| root.mark == self.root.mark()) {
            return Vec::new(); // a later child of ours has got the number, and with it the mark
        }
        let mut found: Vec<&Entry> = root.filter(|_| self.root.is_child()).into_iter().collect();
        for root in &found {
            kin.sessions.insert(root.session);
            kin.pids.insert(root.pid);
        }
        loop {
            let before = found.len();
            for entry in table.iter().filter(|entry| entry.pid != self.own.pid) {
                if kin.is_related(entry) && kin.pids.insert(entry.pid) {
                    kin.add_mark(entry.mark.filter(|&mark| Some(mark) != self.own.mark));
                    found.push(entry);
                }
            }
            if found.len() == before {
                break;
            }
        }
        found.retain(|entry| !entry.has_ended());
        found
    }

    /// Whether nothing in the tree runs, so that nothing can be added to it.
    fn stands_still(&self) -> bool {
        self.members.keys().all(|&pid| threads_stand_still(pid))
    }

    fn signal(&self, signal: i32, stopped: bool) -> Result<usize, Errno> {
        let mut count = 0;
        let mut refused = None;
        for (&pid, member) in &self.members {
            match member.pidfd.signal(pid, signal) {
                Ok(()) => count += 1,
                Err(Errno::ESRCH) => {}
                Err(errno) => refused = Some(errno),
            }
        }
        if stopped && !matches!(signal, libc::SIGSTOP | libc::SIGKILL) {
            for (&pid, member) in self.members.iter().filter(|(_, member)| !member.stopped) {
                let _ = member.pidfd.signal(pid, libc::SIGCONT);
            }
        }
        match refused {
            Some(errno) if count == 0 => Err(errno),
            _ => Ok(count),
        }
    }
}

/// What makes a process one of the tree, as far as the tree is known.
#[derive(Default)]
struct Kin {
    sessions: HashSet<i32>,
    pids: HashSet<i32>,
    marks: HashSet<Mark>,
    /// Of the marks that members which use brood themselves give to their children.
    origins: HashSet<u64>,
}

impl Kin {
    fn add_mark(&mut self, mark: Option<Mark>) {
        self.marks.extend(mark);
        self.origins
            .extend(mark.map(|mark| Mark::origin_of(Some(mark))));
    }

    fn is_related(&self, entry: &Entry) -> bool {
        let known =
            |mark: Mark| self.marks.contains(&mark) || self.origins.contains(&mark.origin());
        let related = self.pids.contains(&entry.parent) || entry.mark.is_some_and(known);
        related && self.sessions.contains(&entry.session)
    }
}

impl Member {
    /// Gets hold of the process the entry is about, and of no other that has its number by now.
    fn open(entry: &Entry) -> Option<Member> {
        let pidfd = PidFd::open(entry.pid).ok()?;
        let now = Entry::read(entry.pid)?;
        (now.started == entry.started).then_some(Member {
            pidfd,
            started: entry.started,
            stopped: now.state == b'T',
        })
    }
}

/// What `/proc` says about a process.
#[derive(Debug, Default)]
struct Entry {
    pid: i32,
    state: u8,
    parent: i32,
    session: i32,
    started: u64,
    mark: Option<Mark>,
}

impl Entry {
    fn read(pid: i32) -> Option<Entry> {
        let mut entry = parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)?;
        entry.mark = file_locks_limit(pid).ok().and_then(Mark::parse);
        Some(entry)
    }

    fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

fn processes() -> Result<Vec<Entry>, Errno> {
    let directory = std::fs::read_dir("/proc");
    let directory =
        directory.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::ENOENT)))?;
    let pids = directory.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let found: Vec<Entry> = pids.filter_map(Entry::read).collect();
    let is_here = |entry: &Entry| entry.pid == std::process::id() as i32;
    // Without ourselves it is not what it should be: nobody, then, does not mean that nobody is left.
    if found.iter().any(is_here) {
        Ok(found)
    } else {
        Err(Errno::ENOENT)
    }
}

/// The second field is the program's name in parentheses and may contain anything.
fn parse_stat(text: &[u8]) -> Option<Entry> {
    let name_end = memchr::memrchr(b')', text)?;
    let (before, after) = (text.get(..name_end)?, text.get(name_end + 1..)?);
    let before = std::str::from_utf8(before.split(|&byte| byte == b' ').next()?).ok()?;
    let mut fields = std::str::from_utf8(after).ok()?.split_ascii_whitespace();
    let state = fields.next()?.bytes().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    let started = fields.nth(15)?.parse().ok()?;
    Some(Entry {
        pid: before.parse().ok()?,
        state,
        parent,
        session,
        started,
        mark: None,
    })
}

/// A thread that waits uninterruptibly, such as a vfork parent whose child we have stopped, meets
/// the stop before it can run again.
fn threads_stand_still(pid: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return true;
    };
    let stats = threads.filter_map(|thread| std::fs::read(thread.ok()?.path().join("stat")).ok());
    stats
        .filter_map(|text| parse_stat(&text))
        .all(|thread| !matches!(thread.state, b'R' | b'S'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_confuse_the_reader() {
        let text = b"42 (a) R 1 (b) S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 1234 99";
        let entry = parse_stat(text).unwrap();
        assert_eq!((entry.pid, entry.state, entry.parent), (42, b'S', 7));
        assert_eq!((entry.session, entry.started), (9, 1234));
    }
}

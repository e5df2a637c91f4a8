//! Killing trees: nothing of the tree escapes, nothing else is touched.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::process::tree::{Root, kill_tree};
use crate::sys::pidfd::PidFd;

/// Runs a script that writes one line of process numbers.
fn tree(script: &str) -> (Child, Vec<PidFd>, Vec<Option<OwnedFd>>) {
    let stdio = vec![Stdio::Ignore, Stdio::Pipe];
    let spawned = spawn(Command {
        stdio,
        ..shell(script)
    })
    .unwrap();
    let line = read_line(spawned.ends[1].as_ref().unwrap());
    let pids = line.split_whitespace().map(|pid| pid.parse().unwrap());
    let members = pids.map(|pid| PidFd::open(pid).unwrap()).collect();
    (spawned.child, members, spawned.ends)
}

fn has_ended(member: &PidFd, wait: u16) -> bool {
    let mut fds = [PollFd::new(member.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(wait)).unwrap() == 1
}

fn end(member: &PidFd) {
    let _ = member.signal_by_descriptor(libc::SIGKILL);
}

#[test]
fn children_and_grandchildren_are_killed() {
    let (child, members, _ends) =
        tree("sleep 1000 & a=$!; sh -c 'sleep 1000 & echo $$ $!; wait' & wait");
    let count = kill_tree(Root::Child(&child), libc::SIGKILL).unwrap();
    assert_eq!(count, 4);
    assert!(members.iter().all(|member| has_ended(member, 5000)));
}

#[test]
fn a_descendant_whose_parent_has_died_is_killed() {
    let (child, members, _ends) = tree("echo $(sleep 1000 >&- 2>&- & echo $!); exec sleep 1000");
    assert_eq!(kill_tree(Root::Child(&child), libc::SIGKILL).unwrap(), 2);
    assert!(has_ended(&members[0], 5000));
}

#[test]
fn a_descendant_is_found_when_the_child_itself_is_gone() {
    let (mut child, members, _ends) = tree("echo $(env -i sleep 1000 >&- 2>&- & echo $!)");
    let pid = child.pid();
    child.wait().unwrap();
    assert_eq!(kill_tree(Root::Ended(pid), libc::SIGKILL).unwrap(), 1);
    assert!(has_ended(&members[0], 5000));
}

#[test]
fn a_session_of_its_own_is_left_alone() {
    // It says so itself once it has its session.
    let (child, members, _ends) = tree("setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000");
    assert_eq!(kill_tree(Root::Child(&child), libc::SIGKILL).unwrap(), 1);
    assert!(!has_ended(&members[0], 50));
    end(&members[0]);
}

#[test]
fn a_detached_childs_own_tree_is_killed() {
    let stdio = vec![Stdio::Ignore, Stdio::Pipe];
    let command = shell("echo $(sleep 1000 >&- 2>&- & echo $!); exec sleep 1000");
    let spawned = spawn(Command {
        stdio,
        detached: true,
        ..command
    })
    .unwrap();
    let line = read_line(spawned.ends[1].as_ref().unwrap());
    let member = PidFd::open(line.trim().parse().unwrap()).unwrap();
    assert_eq!(
        kill_tree(Root::Child(&spawned.child), libc::SIGKILL).unwrap(),
        2
    );
    assert!(has_ended(&member, 5000));
}

#[test]
fn a_sibling_is_left_alone() {
    let (other, others, _other_ends) =
        tree("echo $(sleep 1000 >&- 2>&- & echo $!); exec sleep 1000");
    let (child, _members, _ends) = tree("echo $$; exec sleep 1000");
    assert_eq!(kill_tree(Root::Child(&child), libc::SIGKILL).unwrap(), 1);
    assert!(!has_ended(&others[0], 50));
    assert_eq!(kill_tree(Root::Child(&other), libc::SIGKILL).unwrap(), 2);
}

/// Every generation lives for an instant and has a child: a list of numbers is always too old.
#[test]
fn a_tree_that_keeps_forking_cannot_run_away() {
    let script = "run() { run & }; echo $$; run; exec sleep 1000";
    let (child, _members, ends) = tree(script);
    kill_tree(Root::Child(&child), libc::SIGKILL).unwrap();
    // The last one of the tree closes the pipe.
    let mut fds = [PollFd::new(
        ends[1].as_ref().unwrap().as_fd(),
        PollFlags::POLLIN,
    )];
    assert_eq!(poll(&mut fds, PollTimeout::from(5000u16)).unwrap(), 1);
    // A process that is being killed closes its files some time before it has ended.
    let deadline = Instant::now() + Duration::from_secs(5);
    while kill_tree(Root::Child(&child), 0).unwrap() > 0 {
        assert!(Instant::now() < deadline, "somebody has run away");
        thread::yield_now();
    }
}

#[test]
fn a_signal_that_can_be_caught_is_caught_and_the_tree_goes_on() {
    let script = "trap 'echo caught; exit 3' TERM; echo $$; while :; do sleep 0.01; done";
    let (mut child, _members, ends) = tree(script);
    kill_tree(Root::Child(&child), libc::SIGTERM).unwrap();
    assert_eq!(read_line(ends[1].as_ref().unwrap()), "caught");
    assert_eq!(child.wait().unwrap().status, Status::Exited(3));
}

#[test]
fn asking_touches_nothing_and_bad_signals_are_refused() {
    let (child, members, _ends) = tree("sleep 1000 & echo $!; wait");
    assert_eq!(kill_tree(Root::Child(&child), 0).unwrap(), 2);
    assert!(kill_tree(Root::Child(&child), 65).is_err());
    assert!(!has_ended(&members[0], 20));
    assert_eq!(kill_tree(Root::Child(&child), libc::SIGKILL).unwrap(), 2);
}

alone! {
    /// What the children of a process are marked with tells whose children they are, also when
    /// that process was marked by another brood and all of them are init's by now.
    fn the_children_of_a_member_that_uses_brood_itself_are_killed_too() {
        const ROLE: &str = "BROOD_TEST_INNER_BROOD";
        if std::env::var_os(ROLE).is_some() {
            let script = "echo $(sleep 1000 >&- 2>&- & echo $!)";
            let inner = spawn(Command {
                stdio: vec![Stdio::Ignore, Stdio::Inherit(2)],
                ..shell(script)
            });
            assert_eq!(inner.unwrap().child.wait().unwrap().status, Status::Exited(0));
            return;
        }
        let binary = std::env::current_exe().unwrap();
        let name = std::env::args().nth(1).unwrap();
        let binary = binary.to_str().unwrap();
        let script = format!("echo $({ROLE}=1 {binary} {name} --exact --nocapture 2>&1 >&3)");
        let stdio = vec![Stdio::Ignore, Stdio::Pipe, Stdio::Ignore, Stdio::Inherit(2)];
        let spawned = spawn(Command { stdio, ..shell(&script) }).unwrap();
        let line = read_line(spawned.ends[1].as_ref().unwrap());
        let member = PidFd::open(line.trim().parse().expect(&line)).unwrap();
        let mut child = spawned.child;
        let pid = child.pid();
        child.wait().unwrap();
        assert_eq!(kill_tree(Root::Ended(pid), libc::SIGKILL).unwrap(), 1);
        assert!(has_ended(&member, 5000));
    }
}

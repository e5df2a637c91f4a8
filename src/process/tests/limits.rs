//! Limits, and children that die with their parent.

use std::io::{BufRead, BufReader};
use std::process::Stdio as StdStdio;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;

use super::*;
use crate::sys::features;
use crate::sys::pidfd::PidFd;

fn limited(limits: Limits, script: &str) -> Command {
    Command {
        limits,
        ..shell(script)
    }
}

#[test]
fn resource_limits_are_the_childs() {
    let resources = vec![
        (libc::RLIMIT_NOFILE, 64, 128),
        (libc::RLIMIT_CPU, 100, libc::RLIM_INFINITY),
    ];
    let limits = Limits {
        resources,
        ..Limits::default()
    };
    let text = written(limited(
        limits,
        "ulimit -Sn; ulimit -Hn; ulimit -St; ulimit -Ht",
    ));
    assert_eq!(text, "64\n128\n100\nunlimited\n");
    let failed = spawn(limited(
        Limits {
            resources: vec![(99, 1, 1)],
            ..Limits::default()
        },
        "true",
    ));
    assert_eq!(failed.unwrap_err().errno, Errno::EINVAL);
}

#[test]
fn nice_processors_and_memory_score_are_the_childs() {
    let limits = Limits {
        nice: Some(7),
        processors: Some(vec![0]),
        oom_score_adj: Some(500),
        ..Limits::default()
    };
    let script = "nice; cat /proc/self/oom_score_adj; grep Cpus_allowed_list /proc/self/status";
    let text = written(limited(limits, script));
    assert_eq!(text, "7\n500\nCpus_allowed_list:\t0\n");
    assert_eq!(
        std::fs::read_to_string("/proc/self/oom_score_adj").unwrap(),
        "0\n"
    );
}

#[test]
fn an_impossible_limit_is_an_error_of_the_spawn() {
    let limits = Limits {
        cgroup: Some(b"/nonexistent".into()),
        ..Limits::default()
    };
    assert_eq!(
        spawn(limited(limits, "true")).unwrap_err().errno,
        Errno::ENOENT
    );
    let limits = Limits {
        oom_score_adj: Some(5000),
        ..Limits::default()
    };
    assert_eq!(
        spawn(limited(limits, "true")).unwrap_err().errno,
        Errno::EINVAL
    );
}

/// A cgroup we may use, where there is one: a hierarchy of version 2 and the right to write.
struct Group(PathBuf);

impl Group {
    fn new() -> Option<Group> {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let mount = mounts.lines().find(|line| line.starts_with("cgroup2 "))?;
        let name = format!("brood-test-{}", std::process::id());
        let path = PathBuf::from(mount.split(' ').nth(1)?).join(name);
        std::fs::create_dir(&path).ok()?;
        Some(Group(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

alone! {
    fn a_child_is_born_in_its_cgroup_or_moves_there() {
        let Some(group) = Group::new() else {
            return eprintln!("skipped: no cgroup of version 2 that we may write to");
        };
        let name = group.0.file_name().unwrap().to_str().unwrap();
        for _ in 0..2 {
            let cgroup = Some(group.0.to_str().unwrap().into());
            let limits = Limits { cgroup, ..Limits::default() };
            let text = written(limited(limits, "grep ^0: /proc/self/cgroup"));
            assert_eq!(text, format!("0::/{name}\n"));
            features::CLONE_INTO_CGROUP.write_off();
        }
        let limits = Limits { cgroup: Some(b"/tmp".into()), ..Limits::default() };
        assert_eq!(spawn(limited(limits, "true")).unwrap_err().errno, Errno::ENOENT);
    }
}

/// Waits for the end of a process that is not our child.
fn ends(pid: i32) -> bool {
    let Ok(pidfd) = PidFd::open(pid) else {
        return true;
    };
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(5000u16)).unwrap() == 1
}

#[test]
fn a_child_dies_with_a_parent_that_is_killed() {
    const ROLE: &str = "BROOD_TEST_DYING_PARENT";
    let command = Command {
        die_with_parent: true,
        ..command(&["sleep", "1000"])
    };
    if std::env::var_os(ROLE).is_some() {
        let spawned = spawn(command).unwrap();
        eprintln!("pid {}", spawned.child.pid());
        loop {
            std::thread::park();
        }
    }
    let name = concat!(
        module_path!(),
        "::a_child_dies_with_a_parent_that_is_killed"
    );
    let mut parent = StdCommand::new(std::env::current_exe().unwrap())
        .args([name.split_once("::").unwrap().1, "--exact", "--nocapture"])
        .env(ROLE, "1")
        .stdout(StdStdio::null())
        .stderr(StdStdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stderr.take().unwrap()).lines();
    let mut pids = lines.filter_map(|line| line.unwrap().strip_prefix("pid ")?.parse().ok());
    let child: i32 = pids.next().unwrap();
    assert!(std::fs::exists(format!("/proc/{child}")).unwrap());
    parent.kill().unwrap();
    parent.wait().unwrap();
    assert!(ends(child));
}

#[test]
fn a_child_that_dies_with_the_parent_outlives_the_thread_that_spawned_it() {
    let command = Command {
        die_with_parent: true,
        stdio: vec![Stdio::Pipe, Stdio::Pipe],
        ..command(&["cat"])
    };
    let spawning = std::thread::spawn(|| spawn(command).unwrap());
    let mut spawned = spawning.join().unwrap();
    // The thread is gone; a child that answers now was not killed with it.
    let input = File::from(spawned.ends[0].take().unwrap());
    std::io::Write::write_all(&mut &input, b"alive\n").unwrap();
    assert_eq!(read_line(spawned.ends[1].as_ref().unwrap()), "alive");
    drop(input);
    assert_eq!(spawned.child.wait().unwrap().status, Status::Exited(0));
}

#[test]
fn a_child_that_dies_with_the_parent_reports_its_errors_too() {
    let command = Command {
        die_with_parent: true,
        ..command(&["/nonexistent"])
    };
    assert_eq!(spawn(command).unwrap_err().errno, Errno::ENOENT);
}

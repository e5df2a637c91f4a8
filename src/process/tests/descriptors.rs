//! Which descriptors a child gets, and which ones the parent keeps.

use std::collections::BTreeMap;
use std::os::fd::FromRawFd;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::*;
use crate::sys::features;

/// The descriptor table of a child: number and what it leads to.
fn table(mut command: Command) -> BTreeMap<i32, String> {
    command.file = b"ls".into();
    command.arguments = b"ls\0-l\0/proc/self/fd".into();
    let text = written(command);
    let links = text.lines().filter_map(|line| line.split_once(" -> "));
    let entries = links.map(|(left, target)| {
        let number = left.rsplit(' ').next().unwrap().parse().unwrap();
        (number, target.to_owned())
    });
    // The directory that ls itself reads.
    entries
        .filter(|(_, target)| !target.ends_with("/fd"))
        .collect()
}

/// Puts a fresh file at the descriptor `number`, without close-on-exec.
fn place_file(number: i32) {
    let name = format!("file-{number}");
    let file = memfd_create(&*name, MFdFlags::MFD_CLOEXEC).unwrap();
    if raw(&file) == number {
        return std::mem::forget(file);
    }
    assert_eq!(unsafe { libc::dup2(raw(&file), number) }, number);
}

fn named(number: i32) -> String {
    format!("/memfd:file-{number} (deleted)")
}

#[test]
fn a_child_gets_only_the_standard_streams_when_it_is_given_nothing_else() {
    let numbers: Vec<i32> = table(Command::default()).into_keys().collect();
    assert_eq!(numbers, [0, 1, 2]);
}

alone! {
    fn a_descriptor_without_close_on_exec_does_not_reach_the_child() {
        place_file(40);
        let numbers: Vec<i32> = table(Command::default()).into_keys().collect();
        assert_eq!(numbers, [0, 1, 2]);
        features::CLOSE_RANGE.write_off();
        let numbers: Vec<i32> = table(Command::default()).into_keys().collect();
        assert_eq!(numbers, [0, 1, 2]);
    }
}

alone! {
    fn an_ignored_slot_above_two_is_closed_also_when_the_parent_uses_the_number() {
        for number in 3..=6 {
            place_file(number);
        }
        let mut stdio = vec![Stdio::Ignore; 5];
        stdio.push(Stdio::Inherit(4));
        let found = table(Command { stdio, ..Command::default() });
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 5]);
        assert_eq!(found[&5], named(4));
        assert_eq!((&*found[&0], &*found[&2]), ("/dev/null", "/dev/null"));
    }
}

alone! {
    fn any_number_of_slots_arrive() {
        place_file(500);
        let mut stdio = vec![Stdio::Inherit(500); 300];
        stdio[299] = Stdio::Pipe;
        let found = table(Command { stdio, ..Command::default() });
        assert_eq!(found.len(), 300);
        assert!(found[&299].starts_with("socket:"));
        assert!((2..299).all(|number| found[&number] == named(500)));
    }
}

alone! {
    /// Every way to hand on some of 0 to 7 as some of 0 to 7 that a few hundred random tries meet.
    fn overlapping_descriptors_end_up_where_they_belong() {
        let saved = [1, 2].map(|fd| (fd, unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100) }));
        for number in 0..8 {
            place_file(number);
        }
        let mut seed = 1u64;
        let mut random = |bound: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % bound
        };
        let mut wrong = None;
        for _ in 0..150 {
            let count = 1 + random(8) as usize;
            let mut stdio: Vec<Stdio> = (0..count)
                .map(|_| match random(10) as i32 {
                    number @ 0..8 => Stdio::Inherit(number),
                    8 => Stdio::Pipe,
                    _ => Stdio::Ignore,
                })
                .collect();
            stdio.resize(10, Stdio::Ignore);
            stdio[9] = Stdio::Pipe;
            // In a subshell: a shell may redirect its own descriptors for a command.
            let script = "for i in 0 1 2 3 4 5 6 7 8; do (readlink /proc/$$/fd/$i || echo) >&9; done";
            let mut spawned = spawn(Command { stdio: stdio.clone(), ..shell(script) }).unwrap();
            let text = read_all(spawned.ends[9].take().unwrap());
            spawned.child.wait().unwrap();
            for ((index, line), entry) in text.lines().enumerate().zip(&stdio) {
                let expected = match entry {
                    Stdio::Inherit(number) => named(*number),
                    Stdio::Ignore if index < 3 => "/dev/null".into(),
                    Stdio::Ignore => String::new(),
                    Stdio::Pipe | Stdio::Channel => line[..line.len().min(7)].replace("socket:", line),
                };
                if line != expected {
                    wrong = Some(format!("{index} of {stdio:?} is {line}, not {expected}"));
                }
            }
        }
        for (fd, copy) in saved {
            assert_eq!(unsafe { libc::dup2(copy, fd) }, fd);
        }
        assert_eq!(wrong, None);
    }
}

alone! {
    fn a_parent_without_standard_streams_can_spawn() {
        let kept = memfd_create("kept", MFdFlags::MFD_CLOEXEC).unwrap();
        let saved: Vec<i32> = (0..3).map(|fd| unsafe { libc::dup(fd) }).collect();
        (0..3).for_each(|fd| assert_eq!(unsafe { libc::close(fd) }, 0));
        let found = table(Command {
            stdio: vec![Stdio::Ignore, Stdio::Pipe, Stdio::Ignore, Stdio::Inherit(raw(&kept))],
            ..Command::default()
        });
        for (&fd, number) in saved.iter().zip(0..) {
            assert_eq!(unsafe { libc::dup2(fd, number) }, number);
        }
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!((&*found[&0], &*found[&2]), ("/dev/null", "/dev/null"));
    }
}

#[test]
fn a_standard_stream_is_made_blocking_and_others_are_left_alone() {
    let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let one = OwnedFd::from(one);
    let flags = |slot: usize| {
        fcntl(&one, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let mut stdio = vec![Stdio::Ignore; 4];
        stdio[slot] = Stdio::Inherit(raw(&one));
        stdio[1] = Stdio::Pipe;
        let text = written(Command {
            stdio,
            ..shell(&format!("grep flags /proc/self/fdinfo/{slot}"))
        });
        let octal = text.split_whitespace().nth(1).unwrap().to_owned();
        i32::from_str_radix(&octal, 8).unwrap() & libc::O_NONBLOCK
    };
    assert_eq!(flags(0), 0);
    assert_eq!(flags(3), libc::O_NONBLOCK);
}

#[test]
fn the_parents_end_of_a_pipe_is_non_blocking_and_the_childs_is_not() {
    let mut command = shell("grep flags /proc/self/fdinfo/1");
    command.stdio = vec![Stdio::Ignore, Stdio::Pipe];
    let mut spawned = spawn(command).unwrap();
    let end = spawned.ends[1].take().unwrap();
    let ours = OFlag::from_bits_retain(fcntl(&end, FcntlArg::F_GETFL).unwrap());
    assert!(ours.contains(OFlag::O_NONBLOCK));
    assert_eq!(fcntl(&end, FcntlArg::F_GETFD).unwrap(), libc::FD_CLOEXEC);
    assert_eq!(read_all(end).split_whitespace().nth(1), Some("02"));
    spawned.child.wait().unwrap();
}

#[test]
fn a_descriptor_that_is_not_open_is_refused() {
    let stdio = vec![Stdio::Ignore, Stdio::Inherit(19_999)];
    let failed = spawn(Command {
        stdio,
        ..command(&["true"])
    })
    .unwrap_err();
    assert_eq!(failed.errno, Errno::EBADF);
}

alone! {
    fn spawns_good_and_bad_leave_no_descriptor_and_no_zombie_behind() {
        let stdio = vec![Stdio::Pipe; 5];
        spawn(Command { stdio: stdio.clone(), ..command(&["true"]) }).unwrap().child.wait().unwrap();
        let before = open_descriptors();
        for _ in 0..50 {
            let good = Command { stdio: stdio.clone(), ..command(&["true"]) };
            spawn(good).unwrap().child.wait().unwrap();
            let bad = Command { stdio: stdio.clone(), ..command(&["/nonexistent"]) };
            assert_eq!(spawn(bad).unwrap_err().errno, Errno::ENOENT);
            let bad = Command { directory: Some(b"/nonexistent".into()), ..command(&["true"]) };
            assert_eq!(spawn(bad).unwrap_err().errno, Errno::ENOENT);
        }
        assert_eq!(open_descriptors(), before);
        assert_eq!(nix::sys::wait::wait(), Err(Errno::ECHILD));
    }
}

alone! {
    /// At every number of free descriptors a spawn works or fails cleanly: in the pipes, or with
    /// them made when there is none left for the process.
    fn a_shortage_of_descriptors_is_one_error_and_leaves_nothing_behind() {
        let stdio = vec![Stdio::Pipe; 3];
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        spawn(command(&["true"])).unwrap().child.wait().unwrap(); // opens what all children share
        let before = open_descriptors();
        // What runs the tests may have left open some higher numbers.
        let is_free = |&number: &i32| unsafe { libc::fcntl(number, libc::F_GETFD) } == -1;
        let unused: Vec<i32> = (0..).filter(is_free).take(9).collect();
        let mut outcomes = Vec::new();
        for limit in unused {
            setrlimit(Resource::RLIMIT_NOFILE, limit as u64, hard).unwrap();
            let mut result = spawn(Command { stdio: stdio.clone(), ..command(&["true"]) });
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
            outcomes.push(result.as_ref().map(drop).map_err(|failed| failed.errno));
            if let Ok(spawned) = &mut result {
                spawned.child.wait().unwrap();
            }
            drop(result);
            assert_eq!(open_descriptors(), before);
        }
        assert_eq!(outcomes[0], Err(Errno::EMFILE));
        assert_eq!(outcomes[6], Err(Errno::EMFILE));
        assert_eq!(outcomes[7], Ok(()));
        assert_eq!(nix::sys::wait::wait(), Err(Errno::ECHILD));
    }
}

#[test]
fn a_program_that_does_not_exist_still_leaves_streams_at_their_end() {
    let stdio = vec![Stdio::Pipe; 3];
    let mut failed = spawn(Command {
        stdio,
        ..command(&["/nonexistent"])
    })
    .unwrap_err();
    assert_eq!(failed.ends.len(), 3);
    assert_eq!(read_all(failed.ends[1].take().unwrap()), "");
}

/// Opens files until their descriptors have numbers above `bound`.
fn crowd(bound: i32) -> Vec<OwnedFd> {
    let mut files = vec![memfd_create("crowd", MFdFlags::MFD_CLOEXEC).unwrap()];
    while files.last().is_some_and(|file| raw(file) < bound) {
        files.push(files[0].try_clone().unwrap());
    }
    files
}

alone! {
    fn a_crowded_parent_hands_on_the_right_descriptors() {
        let _files = crowd(2000);
        let high = memfd_create("high", MFdFlags::MFD_CLOEXEC).unwrap();
        let high = Stdio::Inherit(raw(&high));
        for extra in 0..6 {
            let mut stdio = vec![Stdio::Pipe, Stdio::Pipe, high];
            stdio.resize(3 + extra, high);
            let before = open_descriptors();
            let found = table(Command { stdio, ..Command::default() });
            assert_eq!(found.len(), 3 + extra);
            assert!(found.values().skip(2).all(|target| target.starts_with("/memfd:high")));
            assert!(extra == 0 || open_descriptors() == before);
        }
        let stdio = vec![Stdio::Pipe, Stdio::Inherit(19_999)];
        let failed = spawn(Command { stdio, ..command(&["true"]) }).unwrap_err();
        assert_eq!(failed.errno, Errno::EBADF);
    }
}

alone! {
    fn a_crowded_parent_does_not_hold_the_childs_ends_of_pipes() {
        let _files = crowd(200);
        let script = command(&["sh", "-c", "exec 1>&-; cat >/dev/null"]);
        let stdio = vec![Stdio::Pipe; 3];
        let mut spawned = spawn(Command { stdio, ..script }).unwrap();
        assert_eq!(read_all(spawned.ends[1].take().unwrap()), "");
        drop(spawned.ends);
        assert_eq!(spawned.child.wait().unwrap().status, Status::Exited(0));
    }
}

alone! {
    fn many_threads_of_a_crowded_parent_can_spawn_at_once() {
        let _files = crowd(500);
        spawn_from_many_threads();
    }
}

alone! {
    /// As long as its first child came before the crowd.
    fn a_crowded_parent_spawns_as_fast() {
        let best = || {
            let stdio = || vec![Stdio::Pipe; 3];
            let times = (0..60).map(|_| {
                let start = std::time::Instant::now();
                let mut spawned = spawn(Command { stdio: stdio(), ..command(&["true"]) }).unwrap();
                let time = start.elapsed();
                spawned.child.wait().unwrap();
                time
            });
            times.min().unwrap()
        };
        let alone = best();
        let _files = crowd(10_000);
        let crowded = best();
        assert!(crowded < alone * 2, "{alone:?} and {crowded:?} with 10 000 descriptors");
    }
}

#[test]
fn an_inherited_descriptor_stays_with_the_parent() {
    let file = memfd_create("ours", MFdFlags::MFD_CLOEXEC).unwrap();
    let stdio = vec![Stdio::Ignore, Stdio::Ignore, Stdio::Inherit(raw(&file))];
    written(Command {
        stdio,
        ..shell("echo text >&2")
    });
    let copy = unsafe { OwnedFd::from_raw_fd(libc::dup(raw(&file))) };
    let mut text = String::new();
    std::io::Seek::rewind(&mut File::from(file)).unwrap();
    File::from(copy).read_to_string(&mut text).unwrap();
    assert_eq!(text, "text\n");
}

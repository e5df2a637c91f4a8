#!/usr/bin/env bash
# Runs the tests of the pure parts under Miri, which finds what the compiler may take amiss: framing
# and queues of a channel, the lane's messages, schedulers and the scoreboard. Wants a nightly
# compiler (`rustup component add --toolchain nightly miri rust-src`); all else makes system calls
# that Miri does not know. Arguments, if any, are names of tests instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pure=(
  ipc::advanced ipc::answers ipc::batch_reader ipc::buffer ipc::busy ipc::frame_reader ipc::json_lines
  ipc::layout ipc::pace ipc::upgrade ipc::v8_value
  cluster::gather cluster::lane:: cluster::scheduler cluster::scoreboard cluster::stock::
  # Every split of a long stream, lines of megabytes, tens of thousands of connections: hours.
  --skip every_two_split_points --skip simulation --skip a_clients_worker_cannot_be_told
  --skip clients_are_spread_by_weight --skip a_worker_that_leaves_or_joins_moves
  --skip the_clients_of_a_worker_that_left --skip what_waits_behind_missing_descriptors
  --skip the_smallest_weight_gets_its_turns --skip the_memory_of_a_large_content
  --skip frames_without_messages_take_no_memory --skip an_endless_line_is_refused
  --skip memory_shrinks_back_after_a_large_message
  # A memfd.
  --skip a_board_of_another_version
)
if [ $# -gt 0 ]; then pure=("$@"); fi

# A few cases of each property: an interpreter is some hundred times slower.
export PROPTEST_CASES=${PROPTEST_CASES:-4}
# The tests name files and look at the clock.
export MIRIFLAGS=${MIRIFLAGS:--Zmiri-disable-isolation}
exec cargo +nightly miri test --lib -- "${pure[@]}"

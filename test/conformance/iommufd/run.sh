#!/bin/sh
# usage: run.sh OUTDIR SERVER-COMMAND... -- TEST [ARGS]     (OUTDIR: what build.sh filled; TEST: a binary there)
# Starts the server with a socket path appended to its command, waits for the socket, then runs the test with /dev/iommu and
# /dev/vfio redirected to it. The exit status is the test's.
set -u
out=$(cd "$1" && pwd)
shift
srv=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	srv="$srv $1"
	shift
done
shift
dir=$(mktemp -d)
sock=$dir/host.sock
# its own process group, so that a server behind npx goes too
setsid $srv "$sock" &
pid=$!
trap 'kill -- -$pid 2>/dev/null; wait $pid 2>/dev/null; rm -rf "$dir"' EXIT INT TERM
# the socket's file is there a moment before anybody listens: 00010000 is the flag of a listening socket
while ! grep -q " 00010000 .* $sock\$" /proc/net/unix; do
	kill -0 $pid 2>/dev/null || {
		echo "run.sh: the server ended before it listened"
		exit 1
	}
	sleep 0.05
done
test=$1
shift
HOSTSHIM_ASSUME_ROOT=1 HOSTSHIM_FAKE_HUGETLB=1 HOSTSHIM_SOCK=$sock LD_PRELOAD=$out/hostshim.so "$out/$test" "$@"

#!/bin/sh
# usage: run-all.sh            (npm run conformance:iommufd)
# Builds Linux 7.2's iommufd selftests and runs them, unmodified, against the host model: `nestbox host run --selftest`.
# Passes when 241 of the 246 cases pass and 5 skip themselves, fail_nth passes 8 of 8, and the shim's own test passes; the server
# must end with no object and no pin left, and a replay of each recorded run must give the same answers. Exit status 77: this machine lacks what is needed to build them.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
out=$root/.cache/conformance-iommufd
for tool in gcc make xz dpkg-deb; do
	command -v $tool >/dev/null || {
		echo "conformance:iommufd: $tool is missing; Linux's selftests cannot be built here"
		exit 77
	}
done
mkdir -p "$out"
if [ ! -x "$out/fdsemantics" ] || [ ! -x "$out/iommufd_fail_nth" ] || [ "$here/stub/kselftest_harness.h" -nt "$out/iommufd" ] || 
	[ "$here/tests/fdsemantics.c" -nt "$out/fdsemantics" ]; then
	echo "building Linux's iommufd selftests (first time: downloads linux-source-7.2)"
	"$here/build.sh" "$out" "$@" >"$out.log" 2>&1
	status=$?
	if [ $status -eq 77 ]; then
		grep '^debian-get: ' "$out.log"
		exit 77
	elif [ $status -ne 0 ]; then
		tail -n 20 "$out.log"
		echo "conformance:iommufd: the selftests could not be built (all of it: $out.log)"
		exit 1
	fi
fi
failed=0


# one LABEL EXPECTED-TOTALS TEST: runs one test program; its totals line must begin as expected.
one() {
	label=$1 expected=$2
	shift 2
	log=$out/$label.log
	program=$1
	shift
	NESTBOX_HOST_FAKE_HUGETLB=1 node "$root/vmm/cli/nestbox.mjs" host run --selftest --strict --record "$out/$label.nestbox" -- "$out/$program" "$@" >"$log" 2>&1
	status=$?
	totals=$(grep -E '^(# Totals:|ok fdsemantics)' "$log" | sed 's/^# Totals: //')
	echo "$label: ${totals:-no result} (exit status $status)"
	sed -n 's/^nestbox: host: /    /p' "$log"
	grep '^not ok' "$log" | sed 's/^/    /'
	case $totals in
	"$expected"*) ;;
	*) failed=1 ;;
	esac
	[ $status -eq 0 ] || failed=1
	grep -q '^nestbox: host: left over: nothing$' "$log" || {
		echo "    the server did not end with nothing alive (see $log)"
		failed=1
	}
	node "$root/vmm/cli/nestbox.mjs" replay "$out/$label.nestbox" >"$log.replay" 2>&1 || failed=1
	echo "    recorded in $(wc -c <"$out/$label.nestbox") bytes, replayed: $(sed -n 's/^nestbox: replay: //p' "$log.replay")"
	rm -f "$out/$label.nestbox"
}

one iommufd "pass:241 fail:0 xfail:0 xpass:0 skip:5 error:0" iommufd
export NESTBOX_HOST_FAIL_NTH=1
one iommufd_fail_nth "pass:8 fail:0 xfail:0 xpass:0 skip:0 error:0" iommufd_fail_nth
unset NESTBOX_HOST_FAIL_NTH
one fdsemantics "ok fdsemantics" fdsemantics
exit $failed

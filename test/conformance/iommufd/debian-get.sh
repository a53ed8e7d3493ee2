#!/bin/sh
# usage: debian-get.sh SUITE OUTDIR PACKAGE
# Downloads a package of Debian's SUITE, signature-checked by apt, from the mirror this system is configured with; installs nothing
# and leaves the system's own apt state alone. Prints the path of the .deb. Exit status 77: this machine lacks something.
set -eu
suite=$1 out=$2 package=$3
lacks() {
	echo "debian-get: $*" >&2
	exit 77
}
command -v apt-get >/dev/null || lacks "apt-get is missing"
mirror=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep '/debian/$' | head -n1 || true)
[ -n "$mirror" ] || lacks "no Debian mirror in this system's apt sources (run apt-get update first?)"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || lacks "$keyring is missing (package debian-archive-keyring)"
mkdir -p "$out" && cd "$out"
state=$PWD/apt-$suite
mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
: >"$state/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$state/sources.list"
apt() {
	apt-get -qq -o Dir::Etc::SourceList="$state/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State::Lists="$state/lists" -o Dir::State::status="$state/status" -o Dir::Cache="$state/cache" \
		-o APT::Sandbox::User= "$@"
}
apt update >&2 || lacks "the Debian mirror cannot be reached"
apt download "$package" >&2 || lacks "$package cannot be downloaded"
ls -1 "$PWD/${package}_"*.deb

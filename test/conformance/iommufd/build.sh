#!/bin/sh
# usage: build.sh OUTDIR [LINUX-SOURCE-TREE]
# Builds Linux's own iommufd selftests, unmodified, and the shim's own test into OUTDIR. Without a tree it gets Debian's
# linux-source-7.2 there first. Needs gcc, make, xz, flex, bison; about 600 MB of disk and half a minute the first time.
# The kernel's sources are GPL-2.0: they are read and compiled here, never part of this project.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)
src=${2:-$out/linux-source-7.2}
if [ ! -e "$src/drivers/dma/ioat/hw.h" ]; then
	deb=$("$here/debian-get.sh" forky "$out/deb" linux-source-7.2)
	dpkg-deb -x "$deb" "$out/deb/x"
	# only what the selftests and `make headers` read
	tar -C "$out" -xf "$out/deb/x/usr/src/linux-source-7.2.tar.xz" \
		linux-source-7.2/Makefile linux-source-7.2/include linux-source-7.2/scripts linux-source-7.2/tools \
		linux-source-7.2/arch/x86 linux-source-7.2/arch/arm64 linux-source-7.2/arch/riscv linux-source-7.2/usr/include \
		linux-source-7.2/drivers/iommu/iommufd linux-source-7.2/drivers/dma/ioat linux-source-7.2/drivers/dma/idxd
	rm -rf "$out/deb"
fi
[ -e "$out/khdr/usr/include/linux/iommufd.h" ] ||
	make -s -C "$src" O="$out/khdr" ARCH="$(uname -m)" headers >/dev/null
st=$src/tools/testing/selftests
for t in iommufd iommufd_fail_nth; do
	gcc -Wall -O2 -Wno-unused-function -D_GNU_SOURCE= -isystem "$out/khdr/usr/include" \
		-I"$here/stub" -I"$st" -o "$out/$t" "$st/iommu/$t.c"
done
gcc -O1 -Wall -isystem "$out/khdr/usr/include" -o "$out/fdsemantics" "$here/tests/fdsemantics.c"

#!/bin/sh
# usage: run-all.sh            (npm run conformance:vfio)
# Builds Linux 7.2's VFIO selftests and runs them, unmodified, on a modelled host: `nestbox host run`. Passes when every program's totals are
# as README.md lists them, and nothing is left in the host. Exit status 77: this machine lacks what is needed to build them.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
# Source and headers are the iommufd selftests'.
linux=$root/.cache/conformance-iommufd
out=$root/.cache/conformance-vfio
lacks() {
	echo "conformance:vfio: $*; Linux's selftests cannot be built here"
	exit 77
}
for tool in gcc make xz dpkg-deb; do
	command -v $tool >/dev/null || lacks "$tool is missing"
done
echo '#include <uuid/uuid.h>' | gcc -E - >/dev/null 2>&1 || lacks "uuid/uuid.h is missing (Debian: uuid-dev)"
mkdir -p "$linux" "$out"
source=$linux/linux-source-7.2
if [ ! -e "$source/drivers/dma/ioat/hw.h" ] || [ ! -e "$linux/khdr/usr/include/linux/iommufd.h" ]; then
	"$root/test/conformance/iommufd/build.sh" "$linux" >"$out/source.log" 2>&1
	status=$?
	if [ $status -eq 77 ]; then
		grep '^debian-get: ' "$out/source.log"
		exit 77
	elif [ $status -ne 0 ]; then
		tail -n 20 "$out/source.log"
		echo "conformance:vfio: Linux's source could not be prepared"
		exit 1
	fi
fi
st=$source/tools/testing/selftests
case $(uname -m) in
x86_64) drivers="$st/vfio/lib/drivers/dsa/dsa.c $st/vfio/lib/drivers/ioat/ioat.c" ;;
*) drivers= ;;
esac
failed=0

# one PROGRAM HOST DEVICE EXPECTED: builds and runs a program; its totals line, or what it says when it skips all, must begin as expected.
one() {
	program=$1 host=$2 device=$3 expected=$4
	if [ ! -x "$out/$program" ] || [ "$0" -nt "$out/$program" ]; then
		# 7.2.12 uses a function that its own sources do not have: calloc_assert.
		gcc -O2 -w -D_GNU_SOURCE= -Dcalloc_assert=calloc -isystem "$linux/khdr/usr/include" \
			-I"$root/test/conformance/iommufd/stub" -I"$st" -I"$source/tools/include" -I"$st/vfio/lib/include" \
			-o "$out/$program" "$st/vfio/$program.c" "$st"/vfio/lib/*.c $drivers -luuid -lpthread >"$out/$program.build" 2>&1 || {
			echo "$program: not built (see $out/$program.build)"
			failed=1
			return
		}
	fi
	log=$out/$program-$device.log
	NESTBOX_HOST_FAKE_HUGETLB=1 node "$root/vmm/cli/nestbox.mjs" host run --strict --check stale --host "$host" -- \
		"$out/$program" "$device" >"$log" 2>&1
	status=$?
	said=$(grep -E '^# Totals:|SKIP SR-IOV|^No driver found' "$log" | sed 's/^# Totals: //; s/^.*# SKIP/SKIP/' | head -n 1)
	echo "$program on $device: ${said:-no result} (exit status $status)"
	grep '^not ok' "$log" | sed 's/^/    /'
	case $said in
	"$expected"*) ;;
	*) failed=1 ;;
	esac
	# 4: the program skipped itself
	[ $status -eq 0 ] || [ $status -eq 4 ] || failed=1
	grep -q '^nestbox: host: left over: nothing$' "$log" || {
		echo "    something is left in the host (see $log)"
		failed=1
	}
}

edu=0000:00:01.0 nvme=0000:01:00.0 intel_nvme=0000:00:03.0
cat >"$out/nvme.json" <<END
{ "name": "nvme", "iommus": [{ "name": "iommu0", "kind": "riscv" }],
  "devices": [{ "model": "nvme", "bdf": "$nvme", "iommu": "iommu0" }] }
END
one vfio_dma_mapping_test two-iommus $edu "pass:30 fail:0 xfail:0 xpass:0 skip:0 error:0"
one vfio_dma_mapping_test arm $edu "pass:30 fail:0 xfail:0 xpass:0 skip:0 error:0"
one vfio_dma_mapping_test intel $edu "pass:30 fail:0 xfail:0 xpass:0 skip:0 error:0"
one vfio_iommufd_setup_test two-iommus $edu "pass:6 fail:0 xfail:0 xpass:0 skip:0 error:0"
one vfio_iommufd_setup_test intel $edu "pass:6 fail:0 xfail:0 xpass:0 skip:0 error:0"
one vfio_pci_device_init_perf_test two-iommus $edu "pass:5 fail:0 xfail:0 xpass:0 skip:0 error:0"
# edu has no MSI-X, the drive no MSI
one vfio_pci_device_test two-iommus $edu "pass:4 fail:0 xfail:0 xpass:0 skip:1 error:0"
one vfio_pci_device_test intel $edu "pass:4 fail:0 xfail:0 xpass:0 skip:1 error:0"
one vfio_pci_device_test intel $intel_nvme "pass:4 fail:0 xfail:0 xpass:0 skip:1 error:0"
one vfio_pci_device_test "$out/nvme.json" $nvme "pass:4 fail:0 xfail:0 xpass:0 skip:1 error:0"
# BARs of a served device cannot be mapped
one vfio_dma_mapping_mmio_test two-iommus $edu "pass:0 fail:0 xfail:0 xpass:0 skip:15 error:0"
# only for Intel's DSA and I/OAT, which are not modelled
one vfio_pci_driver_test two-iommus $edu "No driver found for device"
# no device here has virtual functions
one vfio_pci_sriov_uapi_test two-iommus $edu "SKIP SR-IOV may not be supported"
exit $failed

#!/bin/busybox sh
# First process of the Debian fixture: loads the modules of its initramfs, then a shell, or (nestbox.script on the kernel's
# command line) the drive test.
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /tmp /mnt /etc
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb --install -s /bin
PATH=/bin
export PATH

while read -r module; do
  insmod "/modules/$module.ko" || echo "init: module $module was refused"
done < /modules/order

fail() { echo "nestbox-demo: FAILED: $*"; poweroff -f; sleep 60; }

drive_test() {
  echo "nestbox-demo: kernel $(uname -r) on $(uname -m)"
  echo "nestbox-demo: iommus: $(ls /sys/class/iommu 2>/dev/null | tr '\n' ' ')"
  for group in /sys/kernel/iommu_groups/*; do
    [ -d "$group" ] || continue
    echo "nestbox-demo: group $(basename "$group") type $(cat "$group/type") devices $(ls "$group/devices" | tr '\n' ' ')"
  done
  n=0
  while [ ! -b /dev/nvme0n1 ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
  [ -b /dev/nvme0n1 ] || fail "there is no /dev/nvme0n1"
  echo "nestbox-demo: drive $(cat /sys/block/nvme0n1/size) sectors, model $(cat /sys/block/nvme0n1/device/model)"
  # One primary partition over the whole drive.
  printf 'o\nn\np\n1\n\n\nw\n' | fdisk /dev/nvme0n1 >/dev/null 2>&1
  n=0
  while [ ! -b /dev/nvme0n1p1 ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
  [ -b /dev/nvme0n1p1 ] || fail "the partition did not appear"
  mke2fs -q /dev/nvme0n1p1 >/dev/null || fail "mke2fs"
  mount -t ext4 /dev/nvme0n1p1 /mnt || fail "mount"
  dd if=/dev/urandom of=/mnt/data bs=64k count=64 2>/dev/null || fail "write"
  written=$(sha256sum /mnt/data)
  sync
  umount /mnt || fail "umount"
  echo 3 > /proc/sys/vm/drop_caches
  mount -t ext4 /dev/nvme0n1p1 /mnt || fail "second mount"
  read_back=$(sha256sum /mnt/data)
  [ "$written" = "$read_back" ] || fail "checksum: wrote $written, read $read_back"
  echo "nestbox-demo: checksum verified: ${read_back%% *}"
  umount /mnt
  echo "nestbox-demo: done"
}

if grep -q nestbox.script /proc/cmdline; then
  drive_test
  poweroff -f
  sleep 60
fi
echo "nestbox: Debian kernel $(uname -r), busybox shell; poweroff -f ends the machine"
exec setsid cttyhack sh

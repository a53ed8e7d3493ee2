#!/bin/busybox sh
# First process of the Debian fixture: loads the modules of its initramfs, then a shell; or, by words on the kernel's command line:
#   nestbox.poweroff   powers off at once, before modules
#   nestbox.script     the drive test; with nestbox.reads=N, N direct reads of 4 KiB after it
#   nestbox.bench      reads from the drive, saying when it begins and ends
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /tmp /mnt /etc
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb --install -s /bin
PATH=/bin
export PATH
echo "nestbox: userland"
if grep -q nestbox.poweroff /proc/cmdline; then
  poweroff -f
  sleep 60
fi

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
  await_drive
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

await_drive() {
  n=0
  while [ ! -b /dev/nvme0n1 ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
  [ -b /dev/nvme0n1 ] || fail "there is no /dev/nvme0n1"
}

# Direct reads, timed outside by when the lines arrive and inside by the guest's clock.
drive_bench() {
  await_drive
  read -r now _ < /proc/uptime
  echo "nestbox-bench: random begins at $now"
  # One process a read would measure process creation: 4 KiB blocks of the drive in an order that is not sequential, 256 a dd.
  for start in 9 3 14 1 12 6 15 0 10 4 13 7 2 11 5 8; do
    dd if=/dev/nvme0n1 of=/dev/null bs=4k skip=$((start * 1024)) count=256 iflag=direct 2>/dev/null
  done
  read -r now _ < /proc/uptime
  echo "nestbox-bench: random ends at $now after 4096 reads"
  read -r now _ < /proc/uptime
  echo "nestbox-bench: sequential begins at $now"
  dd if=/dev/nvme0n1 of=/dev/null bs=1M count=64 iflag=direct 2>/dev/null
  read -r now _ < /proc/uptime
  echo "nestbox-bench: sequential ends at $now after 64 MiB"
}

if grep -q nestbox.bench /proc/cmdline; then
  drive_bench
  poweroff -f
  sleep 60
fi
if grep -q nestbox.script /proc/cmdline; then
  drive_test
  reads=$(sed -n 's/.*nestbox.reads=\([0-9]*\).*/\1/p' /proc/cmdline)
  if [ -n "$reads" ]; then
    dd if=/dev/nvme0n1 of=/dev/null bs=4k count="$reads" iflag=direct 2>/dev/null || fail "direct reads"
    echo "nestbox-demo: $reads direct reads"
  fi
  poweroff -f
  sleep 60
fi
echo "nestbox: Debian kernel $(uname -r), busybox shell; poweroff -f ends the machine"
exec setsid cttyhack sh

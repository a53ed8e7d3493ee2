#!/bin/busybox sh
# First process of the Debian fixture: loads the modules of its initramfs, then a shell; or, by words on the kernel's command line:
#   nestbox.poweroff   powers off at once, before modules
#   nestbox.script     the drive test; with nestbox.reads=N, N direct reads of 4 KiB after it
#   nestbox.session    work for all CPUs at once
#   nestbox.install    puts Debian's minimal system, an archive on the second drive, on the first drive, and configures it
#   nestbox.root       boots the system that is on the first drive
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

# Everything at once on all CPUs; each line says what an order of events, a lost wakeup or a store that was not seen would change.
session() {
  cpus=$(grep -c ^processor /proc/cpuinfo)
  echo "nestbox-session: $cpus CPUs, online $(cat /sys/devices/system/cpu/online)"
  last=$((cpus - 1))
  for cpu in $(seq 0 $last); do
    taskset $(printf %x $((1 << cpu))) sh -c '
      sum=0; n=0
      while [ $n -lt 2000 ]; do n=$((n + 1)); sum=$((sum + n)); done
      read -r stat < /proc/$$/stat
      set -- $stat
      echo "nestbox-session: CPU ${39} adds to $sum"' > /tmp/sum$cpu &
  done
  wait
  for cpu in $(seq 0 $last); do cat /tmp/sum$cpu; done
  # a pipe through all CPUs
  sum=$(seq 1 20000 | taskset 1 tac | taskset $(printf %x $((1 << last))) sort -n | taskset 2 cat | sha256sum)
  [ "$sum" = "$(seq 1 20000 | sha256sum)" ] && echo "nestbox-session: the pipe is in order"
  # one counter, all CPUs, a lock
  echo 0 > /tmp/counter
  for cpu in $(seq 0 $last); do
    taskset $(printf %x $((1 << cpu))) sh -c '
      set -C
      for n in 1 2 3 4 5 6 7 8 9 10; do
        until true > /tmp/lock; do :; done 2>/dev/null
        read -r count < /tmp/counter
        echo $((count + 1)) >| /tmp/counter
        rm /tmp/lock
      done' &
  done
  wait
  echo "nestbox-session: counted $(cat /tmp/counter) of $((cpus * 10))"
  # a CPU is switched off and comes again
  echo 0 > /sys/devices/system/cpu/cpu$last/online
  echo "nestbox-session: online $(cat /sys/devices/system/cpu/online)"
  echo 1 > /sys/devices/system/cpu/cpu$last/online
  echo "nestbox-session: online $(cat /sys/devices/system/cpu/online)"
  sed -n 's/^ *\(IPI[0-9]*\): *\(.*\)/nestbox-session: \1 \2/p' /proc/interrupts | head -n 2
}

root_install() {
  await_drive
  n=0
  while [ ! -b /dev/nvme1n1 ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
  echo "nestbox-root: file system on a drive of $(cat /sys/block/nvme0n1/size) sectors"
  mke2fs -F /dev/nvme0n1 >/dev/null || fail "mke2fs"
  mount -t ext4 /dev/nvme0n1 /mnt || fail "mount"
  tar -xf /dev/nvme1n1 -C /mnt || fail "tar"
  echo "nestbox-root: $(find /mnt | wc -l) files unpacked"
  for place in proc sys dev; do mount --move /$place /mnt/$place || fail "mount $place"; done
  chroot /mnt /nestbox-configure
  configured=$?
  rm /mnt/nestbox-configure
  for place in proc sys dev; do mount --move /mnt/$place /$place; done
  [ $configured = 0 ] || fail "configure"
  umount /mnt || fail "umount"
  echo "nestbox-root: done"
}

root_boot() {
  await_drive
  mount -t ext4 /dev/nvme0n1 /mnt || fail "mount"
  for place in proc sys dev; do mount --move /$place /mnt/$place || fail "mount $place"; done
  exec switch_root /mnt /sbin/init
}

if grep -q nestbox.session /proc/cmdline; then
  session
  poweroff -f
  sleep 60
fi
if grep -q nestbox.install /proc/cmdline; then
  root_install
  poweroff -f
  sleep 60
fi
grep -q nestbox.root /proc/cmdline && root_boot
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

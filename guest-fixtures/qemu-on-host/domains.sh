#!/bin/busybox sh
# First process of a guest that moves its drive between domains: a file is written through a strict first stage, then read back and written again after each
# change of the drive's group (pass-through, lazily invalidated, strict again), its driver unbound in between. Prints one line each, then powers off.
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /tmp /mnt /etc
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb --install -s /bin
PATH=/bin
export PATH
while read -r module; do
  insmod "/modules/$module.ko"
done < /modules/order

fail() { echo "nestbox-domains: FAILED: $*"; poweroff -f; sleep 60; }

await_drive() {
  n=0
  while [ $n -lt 100 ]; do
    for drive in /dev/nvme*n1; do [ -b "$drive" ] && return; done
    sleep 0.1
    n=$((n + 1))
  done
  fail "there is no drive"
}

# 2 MiB of random bytes, on the drive and no longer in the cache; their checksum is in $written.
write_file() {
  mount -t ext4 "$drive" /mnt || fail "mount"
  dd if=/dev/urandom of=/mnt/data bs=64k count=32 2>/dev/null || fail "write"
  written=$(sha256sum /mnt/data)
  umount /mnt || fail "umount"
  echo 3 > /proc/sys/vm/drop_caches
}

read_file() {
  mount -t ext4 "$drive" /mnt || fail "mount"
  [ "$(sha256sum /mnt/data)" = "$written" ] || fail "checksum"
  umount /mnt || fail "umount"
}

await_drive
mke2fs -q "$drive" >/dev/null || fail "mke2fs"
write_file
function=$(basename "$(readlink -f /sys/block/nvme*n1/device/device)")
group=/sys/bus/pci/devices/$function/iommu_group
echo "nestbox-domains: written as $(cat "$group/type")"
for type in identity DMA-FQ DMA; do
  echo "$function" > /sys/bus/pci/drivers/nvme/unbind || fail "unbind"
  echo $type > "$group/type" || fail "group type $type"
  echo "$function" > /sys/bus/pci/drivers/nvme/bind || fail "bind"
  await_drive
  read_file
  write_file
  read_file
  echo "nestbox-domains: verified as $(cat "$group/type")"
done
poweroff -f
sleep 60

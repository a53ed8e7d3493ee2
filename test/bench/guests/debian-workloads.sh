#!/bin/busybox sh
# First process of a guest that is measured: the work that bench.work=NAME on the kernel's command line names, then power off. Prints what it computed,
# so that two machines can be compared.
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /tmp
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb --install -s /bin
PATH=/bin
export PATH
while read -r module; do
  insmod "/modules/$module.ko"
done < /modules/order
n=0
while [ ! -b /dev/nvme0n1 ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
[ -b /dev/nvme0n1 ] || poweroff -f

# some 10 MB of program and data that both machines have alike
corpus() { cat /modules/*.ko /bin/busybox /modules/ext4.ko; }

work=$(sed -n 's/.*bench\.work=\([a-z0-9]*\).*/\1/p' /proc/cmdline)
case $work in
  boot) result=up ;;
  loop)
    i=0
    while [ $i -lt 300000 ]; do i=$((i + 1)); done
    result=$i
    ;;
  sha256) result=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | sha256sum) ;;
  reads) result=$(dd if=/dev/nvme0n1 bs=4k count=2000 iflag=direct 2>/dev/null | wc -c) ;;
  sequential) result=$(dd if=/dev/nvme0n1 bs=1M count=64 iflag=direct 2>/dev/null | wc -c) ;;
  gzip) result=$(corpus | gzip -9 | wc -c) ;;
  gunzip) # ten times what one compression gives
    corpus | gzip -1 > /tmp/corpus.gz
    result=$(for n in 1 2 3 4 5 6 7 8 9 10; do gunzip -c /tmp/corpus.gz; done | wc -c)
    ;;
  bzip2) result=$(head -c 2000000 /bin/busybox | bzip2 | wc -c) ;;
  awk) result=$(awk 'BEGIN { for (i = 0; i < 400000; i++) { x = (x * 31 + i) % 65521; s[x % 97] += x } print x, s[13] }') ;;
  sort) result=$(seq 1 60000 | awk '{ print ($1 * 7919) % 60013, $1 }' | sort -n | sha256sum) ;;
  find) result=$(for n in 1 2 3 4 5 6; do find /sys -type f; done | wc -l) ;;
  fork)
    n=0
    while [ $n -lt 500 ]; do /bin/true; n=$((n + 1)); done
    result=$n
    ;;
  pipes)
    n=0
    while [ $n -lt 300 ]; do echo $n | (read -r x; echo "$x") > /dev/null; n=$((n + 1)); done
    result=$n
    ;;
esac
echo "bench: $work <$result>"
poweroff -f
sleep 60

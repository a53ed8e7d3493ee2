#!/bin/busybox sh
# First process of a guest that is measured: the work that bench.work=NAME on the kernel's command line names, then power off. Prints when it begins, and
# what it computed, so that two machines can be compared. What busybox has not comes from Debian's packages, below /usr.
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /tmp
$bb mount -t proc proc /proc
$bb mount -t sysfs sysfs /sys
$bb mount -t devtmpfs devtmpfs /dev
$bb --install -s /bin
PATH=/bin:/usr/sbin:/usr/bin
export PATH
while read -r module; do
  insmod "/modules/$module.ko"
done < /modules/order
n=0
while [ ! -b /dev/nvme0n1 ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n + 1)); done
[ -b /dev/nvme0n1 ] || poweroff -f

# some 10 MB of program and data that both machines have alike
corpus() { cat /modules/*.ko /bin/busybox /modules/ext4.ko; }
# Nothing is counted or hashed that a program can say itself: busybox's wc takes longer for a byte than any of them.
drive_reads() { dd if=/dev/nvme0n1 of=/dev/null iflag=direct "$@" 2>&1 | sed 1q; }
sums='BEGIN { for (i = 0; i < 400000; i++) { x = (x * 31 + i) % 65521; s[x % 97] += x } print x, s[13] }'

work=$(sed -n 's/.*bench\.work=\([a-z0-9]*\).*/\1/p' /proc/cmdline)
echo "bench: $work begins"
case $work in
  boot) result=up ;;
  loop)
    i=0
    while [ $i -lt 300000 ]; do i=$((i + 1)); done
    result=$i
    ;;
  sha256) result=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | sha256sum) ;;
  reads) result=$(drive_reads bs=4k count=4000) ;;
  sequential) result=$(drive_reads bs=1M count=64) ;;
  gzip) result=$(corpus | gzip -9 | wc -c) ;;
  gunzip) # ten times what one compression gives
    corpus | gzip -1 > /tmp/corpus.gz
    result=$(for n in 1 2 3 4 5 6 7 8 9 10; do gunzip -t /tmp/corpus.gz && echo $n; done)
    ;;
  bzip2) result=$(head -c 2000000 /bin/busybox | bzip2 | wc -c) ;;
  xz) result=$(head -c 1000000 /bin/busybox | /usr/bin/xz -T1 | wc -c) ;;
  unxz)
    corpus | /usr/bin/xz -T1 -0 > /tmp/corpus.xz
    result=$(for n in 1 2 3 4 5; do /usr/bin/unxz -t /tmp/corpus.xz && echo $n; done)
    ;;
  awk) result=$(awk "$sums") ;;
  mawk) result=$(mawk "$sums") ;;
  perl)
    result=$(perl -e '
      my %seen; my ($text, $x) = ("", 1);
      for my $i (1 .. 120000) {
        $x = ($x * 1103515245 + 12345) % 2147483648;
        my $word = sprintf("%x", $x % 5003);
        $seen{$word}++;
        $text .= "$word " if $i % 8 == 0;
      }
      my $found = () = $text =~ /\b([0-9]+)[a-f]\w* /g;
      $text =~ s/(\w+) (\w+)/$2 $1/g;
      my @most = sort { $seen{$b} <=> $seen{$a} || $a cmp $b } keys %seen;
      print scalar(@most), " $most[0] $found ", substr($text, 0, 20);')
    ;;
  python)
    result=$(python3 -S -c '
class Node:
    def __init__(self, key): self.key, self.left, self.right = key, None, None

def insert(root, key):
    while root.key != key:
        side = "left" if key < root.key else "right"
        below = getattr(root, side)
        if below is None:
            setattr(root, side, Node(key))
            return 1
        root = below
    return 0

x, count, root = 1, 1, Node(2**30)
for _ in range(12000):
    x = (x * 1103515245 + 12345) % 2147483648
    count += insert(root, x)
words = {}
for n in range(60000): words.setdefault(str(n * 7919 % 6007), []).append(n)
print(count, len(words), sum(len(w) * v[-1] for w, v in words.items()), sum(i * i % 7 for i in range(200000)), 3**3000 % 10**9)')
    ;;
  openssl)
    result=$(dd if=/dev/zero bs=1M count=32 2>/dev/null |
      openssl enc -aes-256-ctr -K "$(printf %064d 7)" -iv "$(printf %032d 9)" | openssl dgst -sha512)
    ;;
  ext4) # a tree of small files unpacked twice, copied, removed, and read from the drive again
    /usr/sbin/mke2fs -q -F -t ext4 /dev/nvme0n1
    mkdir /drive
    mount -t ext4 /dev/nvme0n1 /drive
    tar -cf /tmp/tree.tar /usr/lib/*/perl-base /usr/lib/python3* 2>/dev/null
    for n in 1 2; do
      mkdir "/drive/$n"
      tar -xf /tmp/tree.tar -C "/drive/$n"
      sync
    done
    cp -a /drive/1 /drive/3
    rm -r /drive/1
    umount /drive
    mount -t ext4 /dev/nvme0n1 /drive
    result=$(find /drive/2 /drive/3 -type f | sort | xargs cat | sha256sum; find /drive | wc -l)
    umount /drive
    ;;
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
echo "bench: $work <$(echo $result)>"
# whoever measures reads the times of a process that is there
n=0
while [ $n -lt 20000 ]; do n=$((n + 1)); done
poweroff -f
sleep 60

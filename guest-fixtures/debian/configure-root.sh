#!/bin/sh
# Runs in the new root, in the guest: configures what was unpacked, as debootstrap's second stage does, with the distribution's own dpkg and scripts.
set -e
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C PATH=/usr/sbin:/usr/bin
info=/var/lib/dpkg/info
ldconfig
for script in $info/*.preinst; do
  package=$(basename "$script" .preinst)
  DPKG_MAINTSCRIPT_PACKAGE=${package%%:*} DPKG_MAINTSCRIPT_NAME=preinst DPKG_MAINTSCRIPT_ARCH=$(dpkg --print-architecture) \
    "$script" install || echo "nestbox-root: preinst of $package ended with $?"
done
# Others' scripts count on these, although nothing depends on what is essential.
dpkg --force-depends --configure base-passwd base-files libc6 dpkg mawk debconf perl-base
dpkg --configure -a
echo nestbox >/etc/hostname
passwd -d root >/dev/null
echo "nestbox-root: $(dpkg-query -f '${db:Status-Abbrev}\n' -W | grep -c '^ii') packages installed"

#!/bin/bash
# A Debian 12 with real cloud-init, from Debian's packages: a qcow2 that boots by itself (MBR, a FAT partition with
# syslinux and the kernel, the root file system last, so that cloud-init can grow it). Nothing of cloud-init is changed
# from how Debian ships it. Needs root (debootstrap), mkfs.ext4 and qemu-img.
# Usage: debian-cloud-image.sh OUT.qcow2 DIRECTORY (some 2 GB, emptied before and afterwards)
set -eEuo pipefail
out=$1 dir=$2 root=$2/root
trap 'echo "FAILED: line $LINENO: $BASH_COMMAND"; tail -n 5 "$dir"/*.log' ERR
clean() { umount "$root/proc" 2>/dev/null || true; rm -rf "$root" "$dir"/*.img; }
trap clean EXIT
mkdir -p "$dir"; clean; mkdir -p "$root"

mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -1 || true)
debootstrap --variant=minbase \
  --include=systemd-sysv,systemd-resolved,dbus,udev,iproute2,ca-certificates,initramfs-tools,zstd,syslinux,syslinux-common,mtools \
  bookworm "$root" "${mirror:-http://deb.debian.org/debian}" > "$dir/debootstrap.log"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp --remove-destination "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
mount -t proc proc "$root/proc"
# What an emulated disk needs, and nothing else: the kernel unpacks it at every boot.
sed -i 's/^MODULES=.*/MODULES=list/' "$root/etc/initramfs-tools/initramfs.conf"
printf 'virtio_pci\nvirtio_blk\next4\n' >> "$root/etc/initramfs-tools/modules"
inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
inside apt-get -qq -o Acquire::Retries=3 update > "$dir/apt.log" 2>&1
inside apt-get -qq -o Acquire::Retries=3 install -y --no-install-recommends linux-image-cloud-amd64 cloud-init \
  cloud-guest-utils e2fsprogs locales openssh-server procps sudo wget >> "$dir/apt.log" 2>&1
inside apt-get clean
# cloud-init wants this locale unless it is told otherwise; Debian's own images have it, too.
echo 'en_US.UTF-8 UTF-8' > "$root/etc/locale.gen"
inside locale-gen >> "$dir/apt.log" 2>&1
inside systemctl -q enable systemd-networkd systemd-resolved ssh
# What each machine makes for itself.
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/resolv.conf" "$root"/var/lib/dbus/machine-id "$root"/var/lib/apt/lists/*_*
ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
: > "$root/etc/machine-id"
echo localhost > "$root/etc/hostname"
echo 'LABEL=root / ext4 defaults,discard 0 1' > "$root/etc/fstab"

# The boot partition, by the packages' own tools on a file: nothing is mounted.
truncate -s 96M "$root/boot.img"
# Emulated, with a busy host below, the timer may not pass the check that the kernel makes of it.
cat > "$root/syslinux.cfg" <<'CFG'
DEFAULT linux
PROMPT 0
LABEL linux
  KERNEL vmlinuz
  APPEND initrd=initrd.img root=LABEL=root rw no_timer_check console=tty0 console=ttyS0,115200
CFG
inside sh -ec 'mformat -i boot.img -F -H 2048 -v boot ::
  mcopy -i boot.img /boot/vmlinuz-* ::vmlinuz
  mcopy -i boot.img /boot/initrd.img-* ::initrd.img
  mcopy -i boot.img syslinux.cfg ::syslinux.cfg
  syslinux --install boot.img' > "$dir/boot.log" 2>&1
mv "$root/boot.img" "$dir/boot.img"; rm "$root/syslinux.cfg"
umount "$root/proc"
truncate -s 1400M "$dir/root.img"
mkfs.ext4 -q -L root -E discard -d "$root" "$dir/root.img"

truncate -s 1497M "$dir/disk.img"
# Boot code, and two partitions: FAT at sector 2048, 196608 long, which is booted; ext4 at 198656, 2867200 long.
{
  head -c 440 "$root/usr/lib/syslinux/mbr/mbr.bin"; head -c $((446 - $(head -c 440 "$root/usr/lib/syslinux/mbr/mbr.bin" | wc -c))) /dev/zero
  printf '\x80\xfe\xff\xff\x0c\xfe\xff\xff\x00\x08\x00\x00\x00\x00\x03\x00'
  printf '\x00\xfe\xff\xff\x83\xfe\xff\xff\x00\x08\x03\x00\x00\xc0\x2b\x00'
  head -c 32 /dev/zero; printf '\x55\xaa'
} | dd of="$dir/disk.img" conv=notrunc status=none
dd if="$dir/boot.img" of="$dir/disk.img" bs=1M seek=1 conv=notrunc,sparse status=none
dd if="$dir/root.img" of="$dir/disk.img" bs=1M seek=97 conv=notrunc,sparse status=none
qemu-img convert -O qcow2 "$dir/disk.img" "$out.part"
mv "$out.part" "$out"

//! Our own files in the image, compiled in. The directory `overlay/` holds them as they are in the guest.

/// One file of the guest's root file system.
pub struct OverlayFile {
    /// Path below the root.
    pub path: &'static str,
    /// Permissions.
    pub mode: u32,
    /// Content.
    pub data: &'static [u8],
}

macro_rules! files {
    ($($mode:literal $path:literal,)*) => {
        &[$(OverlayFile { path: $path, mode: $mode, data: include_bytes!(concat!("../overlay/", $path)) },)*]
    };
}

/// Paths start with the part of the disk they belong to: `rootfs/`, `initramfs/` or `boot/`.
pub const FILES: &[OverlayFile] = files! {
    0o644 "boot/syslinux.cfg",
    0o755 "initramfs/init",
    0o755 "rootfs/etc/acpi/PWRF/00000080",
    0o644 "rootfs/etc/dhcpcd.conf",
    0o400 "rootfs/etc/doas.conf",
    0o644 "rootfs/etc/fstab",
    0o644 "rootfs/etc/group",
    0o644 "rootfs/etc/hosts",
    0o644 "rootfs/etc/inittab",
    0o644 "rootfs/etc/issue",
    0o644 "rootfs/etc/nsswitch.conf",
    0o644 "rootfs/etc/pam.d/doas",
    0o644 "rootfs/etc/passwd",
    0o644 "rootfs/etc/profile",
    0o600 "rootfs/etc/shadow",
    0o644 "rootfs/etc/shells",
    0o755 "rootfs/usr/bin/chpasswd",
    0o755 "rootfs/usr/bin/curl",
    0o755 "rootfs/usr/bin/halt",
    0o755 "rootfs/usr/bin/mkfs",
    0o755 "rootfs/usr/bin/ping",
    0o755 "rootfs/usr/bin/ping6",
    0o755 "rootfs/usr/bin/poweroff",
    0o755 "rootfs/usr/bin/reboot",
    0o755 "rootfs/usr/bin/shutdown",
    0o755 "rootfs/usr/bin/sudo",
    0o644 "rootfs/usr/lib/haneul/cloud-config.awk",
    0o755 "rootfs/usr/lib/haneul/common",
    0o755 "rootfs/usr/lib/haneul/console",
    0o755 "rootfs/usr/lib/haneul/dhcp4",
    0o755 "rootfs/usr/lib/haneul/dhcp6",
    0o755 "rootfs/usr/lib/haneul/hotplug",
    0o644 "rootfs/usr/lib/haneul/json.awk",
    0o755 "rootfs/usr/lib/haneul/late",
    0o755 "rootfs/usr/lib/haneul/metadata",
    0o755 "rootfs/usr/lib/haneul/nic-up",
    0o755 "rootfs/usr/lib/haneul/rc",
    0o755 "rootfs/usr/lib/haneul/sshd",
    0o755 "rootfs/usr/lib/haneul/stop",
    0o755 "rootfs/usr/lib/haneul/userdata",
};

/// The files of one part, with the part's name cut off.
pub(crate) fn part(name: &'static str) -> impl Iterator<Item = (&'static str, &'static OverlayFile)> {
    FILES
        .iter()
        .filter_map(move |f| Some((f.path.strip_prefix(name)?.strip_prefix('/')?, f)))
}

#!/bin/bash
# The front door on a machine that has nothing: a minimal Debian 12 with Rust and a C compiler, made by debootstrap.
# First as a developer meets it (`cargo xtask up`, the openstack client, `down --purge`), then as a user does (the
# tarball, systemd, a reboot). It shares the host's kernel and network, and nothing else of it but the toolchain.
# Usage: bare-machine.sh REPOSITORY DIRECTORY [tarball] (some 8 GB; what is built there makes the next run quicker;
# `tarball`: only the second half).
set -eEuo pipefail
repo=$1 dir=$2 root=$2/root
here=$(dirname "$(readlink -f "$0")")
cargo_home=${CARGO_HOME:-$HOME/.cargo} rustup_home=${RUSTUP_HOME:-$HOME/.rustup}
say() { printf '== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; exit 1; }

nspawn=
finish() {
  set +e
  [ -z "$nspawn" ] || { booted 'haneul down --purge --yes'; kill "$nspawn"; wait "$nspawn"; } 2>/dev/null
  # What a cloud that failed half-way left behind.
  [ ! -x "$root/src/target/debug/haneul" ] || [ ! -d "$root/var/lib/haneul" ] || bare "/src/target/debug/haneul down --purge --yes" || true
  rm -rf "$root"
} >&2
trap finish EXIT
trap 'echo "FAILED: line $LINENO: $BASH_COMMAND"' ERR

bare() { # runs a command in the bare root, with mounts that end with it
  R=$root C=$cargo_home U=$rustup_home T=$dir/target unshare --mount --propagation private bash -c '
    mount --bind "$R" "$R"
    for d in proc sys dev; do mount --rbind "/$d" "$R/$d"; done
    mount -t tmpfs tmpfs "$R/run"
    mkdir -p "$R"/root/.cargo/{bin,registry} "$R/root/.rustup" "$R/src/target"
    mount --bind "$C/bin" "$R/root/.cargo/bin"
    mount --bind "$C/registry" "$R/root/.cargo/registry"
    mount --rbind "$U" "$R/root/.rustup"
    mount --bind "$T" "$R/src/target"
    exec chroot "$R" env -i HOME=/root TERM=dumb PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
      PIP_CERT=/etc/ssl/certs/ca-certificates.crt sh -ec "$1"' bash "$1"
}
booted() { # runs a command in the booted root
  nsenter -t "$(pgrep -P "$nspawn" | head -1)" -m -u -i -p -r -w -- env -i HOME=/root TERM=dumb \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -ec "$1"
}
boot() {
  SYSTEMD_NSPAWN_API_VFS_WRITABLE=1 systemd-nspawn -q -D "$root" --register=no --keep-unit --boot --capability=all \
    --bind=/dev/net/tun --bind-ro=/etc/resolv.conf --machine=bare > "$dir/boot.log" 2>&1 < /dev/null &
  nspawn=$!
  running
}
running() {
  for _ in $(seq 300); do
    booted 'systemctl is-active --quiet multi-user.target' 2>/dev/null && return
    sleep 0.2
  done
  fail "systemd does not come up: $(tail -5 "$dir/boot.log")"
}
traces() { # of a cloud on the host: namespaces, devices, filters, mounts, accounts
  ip netns list; ip -o link show | awk -F': ' '{print $2}'; nft list tables; grep -c haneul /proc/self/mounts || true
  chroot "$root" sh -c 'cut -d: -f1 /etc/passwd; ls -d /etc/apt/sources.list.d/* /etc/systemd/system/haneul* /var/lib/haneul /etc/haneul /root/.config/* 2>&1' || true
}
login() { echo "ssh -n -i /root/.config/haneul/id_ed25519 -o StrictHostKeyChecking=accept-new -o ConnectTimeout=5 -o BatchMode=yes haneul@172.24.4.3"; }

say a minimal Debian 12
rm -rf "$root"; mkdir -p "$dir/target"
mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -1 || true)
debootstrap --variant=minbase --include=ca-certificates,systemd,systemd-sysv,dbus,gcc,libc6-dev \
  bookworm "$root" "${mirror:-http://deb.debian.org/debian}" > "$dir/debootstrap.log"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp --remove-destination "$(readlink -f /etc/resolv.conf)" "$root/etc/resolv.conf"
git clone -q "$repo" "$root/src"
# Files that a run leaves outside of target/ would be there for the next one, too.
traces > "$dir/before"
for program in nft ip qemu-system-x86_64 conntrack ssh python3; do
  [ -z "$(chroot "$root" sh -c "command -v $program")" ] || fail "$program is there already: this machine is not bare"
done

# One shell for all of it: the cloud's namespaces are mounts, and end with it.
cat > "$root/root/developer" <<'END'
cd /src
say() { printf '== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; exit 1; }
# A cloud must not outlive the shell that sees its namespaces.
trap '[ ! -d /var/lib/haneul ] || /src/target/debug/haneul down --purge --yes' EXIT
say cargo xtask up
cargo xtask up
say a login
[ "$(LOGIN hostname)" = first ] || fail "no login"
[ "$(stat -c %a ~/.config/openstack/clouds.yaml)" = 600 ] || fail "clouds.yaml is not 0600"
say all three processes killed: the guest goes on, and up takes it over
boot=$(LOGIN cat /proc/sys/kernel/random/boot_id)
for p in run serve agent; do kill -9 "$(cut -d' ' -f1 /var/lib/haneul/run/$p.pid)"; done
[ "$(LOGIN cat /proc/sys/kernel/random/boot_id)" = "$boot" ] || fail "the guest noticed"
cargo xtask up > again 2>&1 || { cat again; fail "up after all were killed"; }
[ "$(LOGIN cat /proc/sys/kernel/random/boot_id)" = "$boot" ] || fail "the guest noticed"
say again: nothing to do
cargo xtask up > again 2>&1 || { cat again; fail "the second up"; }
! grep -E 'installed|made|wrote|built,|in the background' again || fail "the second up did something"
say the openstack client, as up says
apt-get -qq install -y --no-install-recommends python3-venv > apt.log 2>&1 || { cat apt.log; fail apt; }
python3 -m venv ~/openstack
~/openstack/bin/pip install --quiet --disable-pip-version-check -r tools/xtask/requirements.txt
target/debug/haneul guest-image --out ~/guest.qcow2 > /dev/null
mkdir -p ~/life
PATH=~/openstack/bin:$PATH OS_CLOUD=haneul bin/haneul/tests/scripts/openstack-life.sh ~/guest.qcow2 ~/life
say audit
target/debug/haneul audit
say doctor
target/debug/haneul doctor
say cargo xtask down, and up again
cargo xtask down
! LOGIN -q true 2>/dev/null || fail "the guest runs after down"
cargo xtask up > again 2>&1 || { cat again; fail "up after down"; }
[ "$(LOGIN hostname)" = first ] || fail "no login after down and up"
say cargo xtask down --purge
cargo xtask down --purge --yes
END
sed -i "s|LOGIN|$(login)|g" "$root/root/developer"
# With bash, which every Debian has, for the trap.
[ "${3:-}" = tarball ] || bare 'exec bash -eu /root/developer'
compare() {
  traces > "$dir/after"
  ! diff "$dir/before" "$dir/after" | grep '^>' || fail "traces are left"
}
compare

say a tarball, under systemd
(cd "$root/src" && CARGO_TARGET_DIR=$dir/target cargo xtask dist --dev > "$dir/dist.log" 2>&1) || { tail "$dir/dist.log"; fail dist; }
mkdir "$root/opt/t" && tar xzf "$root"/src/dist/haneul-*.tar.gz -C "$root/opt/t" --strip-components=1
rm -f "$root/root/.ssh/known_hosts" # of another guest, with the same address
boot
booted 'cd /opt/t && ./install.sh && cd / && haneul up --yes'
booted 'systemctl is-active haneul-serve haneul-agent'
say both processes killed: systemd starts them again, and the guest does not notice
before=$(booted "$(login) cat /proc/sys/kernel/random/boot_id")
booted 'systemctl kill --kill-whom main --signal KILL haneul-serve haneul-agent; haneul up > /dev/null'
[ "$before" = "$(booted "$(login) cat /proc/sys/kernel/random/boot_id")" ] || fail "the guest noticed"
say a reboot: the guest comes back, with its host key
booted 'systemctl reboot' || true
wait "$nspawn" || true # which ends, for its caller to boot again
boot
booted 'haneul up > /dev/null'
[ "$(booted "$(login) hostname")" = first ] || fail "no login after the reboot"
[ "$before" != "$(booted "$(login) cat /proc/sys/kernel/random/boot_id")" ] || fail "no reboot"
booted 'haneul audit'
say haneul down --purge
booted 'haneul down --purge --yes'
booted 'systemctl poweroff' || true
wait "$nspawn" || true
nspawn=
rm -rf "$root/usr/local/bin/haneul" "$root/etc/haneul"
compare
say all done

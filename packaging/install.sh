#!/bin/sh
# Puts Haneul on this machine: the program, an example configuration and, where systemd runs, its units.
# Starts nothing: `haneul up` does. Run it again to upgrade; guests do not notice.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "run this as root" >&2; exit 1; }
[ "$(uname -m)" = x86_64 ] || { echo "this build is for x86_64" >&2; exit 1; }

install -D -m 755 "$here/haneul" /usr/local/bin/haneul.new
mv /usr/local/bin/haneul.new /usr/local/bin/haneul
[ -e /etc/haneul/haneul.toml ] || install -D -m 644 "$here/haneul.toml" /etc/haneul/haneul.toml

echo "Installed $(/usr/local/bin/haneul version) in /usr/local/bin, configuration in /etc/haneul."
echo "Next: haneul doctor, then haneul up."

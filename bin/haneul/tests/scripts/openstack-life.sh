#!/bin/bash
# The life of a server in plain `openstack` commands, with the unmodified client from PyPI. Needs: OS_CLIENT_CONFIG_FILE
# and OS_CLOUD, the guest image's file as $1, a directory for its own files as $2. Ends with the first thing that
# is not as a user would expect.
set -euo pipefail
image=$1 dir=$2
say() { printf '== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; exit 1; }
opts=(-o StrictHostKeyChecking=no -o UserKnownHostsFile="$dir/known" -o LogLevel=ERROR -o BatchMode=yes -o ConnectTimeout=5 -i "$dir/key")

say image from a file
openstack image create --file "$image" --disk-format qcow2 --container-format bare life-image -f value -c status
say flavor, network, subnet, router with external gateway
openstack flavor create --ram 128 --disk 1 --vcpus 1 life-flavor -f value -c name
openstack network create life-net -f value -c status
openstack subnet create --network life-net --subnet-range 192.168.77.0/24 life-subnet -f value -c cidr
openstack router create life-router -f value -c status
openstack router set --external-gateway public life-router
openstack router add subnet life-router life-subnet
say security group rules
openstack security group create life-group -f value -c name
openstack security group rule create --proto tcp --dst-port 22 life-group -f value -c id
openstack security group rule create --proto icmp life-group -f value -c id
say keypair
[ -e "$dir/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$dir/key"
openstack keypair create --public-key "$dir/key.pub" life-key -f value -c name
say server
printf '#!/bin/sh\necho user-data-ran > /root/user-data\n' > "$dir/user-data"
openstack server create --image life-image --flavor life-flavor --network life-net --security-group life-group \
  --key-name life-key --user-data "$dir/user-data" --property colour=blue --wait life-server -f value -c status
say floating IP
ip=$(openstack floating ip create public -f value -c floating_ip_address)
openstack server add floating ip life-server "$ip"

reach() { # waits until a login works
  for _ in $(seq 1 120); do
    if out=$(timeout 10 ssh "${opts[@]}" "root@$ip" "$@" 2>/dev/null); then printf '%s\n' "$out"; return 0; fi
    sleep 0.5
  done
  openstack console log show life-server | tail -30
  fail "no login on $ip"
}

say login on "$ip"
name=$(reach hostname)
[ "$name" = life-server ] || fail "the host name is '$name'"
meta=$(reach 'wget -q -O - http://169.254.169.254/openstack/latest/meta_data.json')
id=$(openstack server show life-server -f value -c id)
case $meta in *"$id"*) ;; *) fail "metadata does not name the server: $meta" ;; esac
case $meta in *blue*) ;; *) fail "metadata lacks the property: $meta" ;; esac
[ "$(reach 'i=0; while [ ! -s /root/user-data ] && [ $i -lt 50 ]; do sleep 0.2; i=$((i+1)); done; cat /root/user-data')" = user-data-ran ] || fail "user-data did not run"
up=$(reach 'cut -d. -f1 /proc/uptime; echo kept > /root/kept; sync' | head -1)
key=$(ssh-keygen -l -f "$dir/known" | awk '{print $2}' | sort -u)

say reboot
openstack server reboot --hard --wait life-server
again=$(reach 'cut -d. -f1 /proc/uptime; cat /root/kept')
[ "$(printf '%s' "$again" | tail -1)" = kept ] || fail "the disk did not survive: $again"
[ "$(ssh-keygen -l -f "$dir/known" | awk '{print $2}' | sort -u)" = "$key" ] || fail "the host key changed"
printf 'uptime before %s, after %s\n' "$up" "$(printf '%s' "$again" | head -1)"

say console log
openstack console log show life-server | grep -q sshd || fail "the console log does not show the boot"

say delete
openstack server delete --wait life-server
openstack floating ip delete "$ip"
openstack router remove subnet life-router life-subnet
openstack router delete life-router
openstack network delete life-net
openstack security group delete life-group
openstack keypair delete life-key
openstack image delete life-image
openstack flavor delete life-flavor
say all done

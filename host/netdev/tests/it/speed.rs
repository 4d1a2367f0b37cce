//! Throughput beside the same path built by hand with `ip` and `nft`. Run alone, on purpose:
//! `cargo nextest run -p haneul-netdev --run-ignored only -E 'test(throughput)' --no-capture`

use crate::lab::*;
use std::time::Duration;

/// Anti-spoofing and a security group of three guests, by hand.
const RULES: &str = r#"
table bridge guard {
  set port_mac_ip { type ifname . ether_addr . ipv4_addr; elements = { "tap1" . 02:00:00:00:00:11 . 10.0.1.11, "tap2" . 02:00:00:00:00:12 . 10.0.1.12, "tap3" . 02:00:00:00:00:13 . 10.0.2.13 } }
  set vmports { type ifname; elements = { "tap1","tap2","tap3" } }
  map portmark { type ifname : mark; elements = { "tap1" : 0x1, "tap2" : 0x2, "tap3" : 0x3 } }
  chain pre { type filter hook prerouting priority -300; iifname @vmports jump spoof; }
  chain spoof {
    ether type arp iifname . arp saddr ether . arp saddr ip @port_mac_ip accept
    ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
    ether type ip iifname . ether saddr . ip saddr @port_mac_ip accept
    counter drop
  }
  chain fw { type filter hook forward priority -200;
    udp sport 67 udp dport 68 iifname @vmports drop
    meta mark set 0
    oifname @vmports meta mark set oifname map @portmark
  }
}
table inet zones {
  chain z { type filter hook prerouting priority -310; ct zone set iifname map { "br-a" : 1, "br-b" : 2 }; }
}
table inet sg {
  chain sg1 { tcp dport 5201 accept; }
  chain in_tap { jump sg1; drop; }
  map out_dispatch { type mark : verdict; elements = { 0x1 : jump in_tap, 0x2 : jump in_tap, 0x3 : jump in_tap } }
  chain fw { type filter hook forward priority 0;
    ct state established,related accept
    ct state invalid drop
    meta mark vmap @out_dispatch
  }
}
"#;

/// The same topology by hand: bridges, veths, a router, anti-spoofing, a security group.
struct Hand(String);

impl Hand {
    fn new() -> Hand {
        let t = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..6]);
        let k = format!("{t}-k");
        let r = format!("{t}-r");
        let hand = Hand(t.clone());
        let mut s = format!(
            "set -e; ip netns add {k}; ip -n {k} link set lo up
             ip netns exec {k} sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 net.bridge.bridge-nf-call-arptables=0 net.ipv6.conf.all.disable_ipv6=1
             for b in br-a br-b; do ip -n {k} link add $b type bridge stp_state 0 forward_delay 0 mcast_snooping 0; ip -n {k} link set $b mtu 1450 up; done
             ip netns add {r}; ip -n {r} link set lo up; ip netns exec {r} sysctl -qw net.ipv4.ip_forward=1
             for p in 'qra br-a 10.0.1.1/24' 'qrb br-b 10.0.2.1/24'; do set -- $p; ip link add p-$1 netns {k} type veth peer name $1 netns {r}; ip -n {k} link set p-$1 mtu 1450 master $2 up; ip -n {r} addr add $3 dev $1; ip -n {r} link set $1 mtu 1450 up; done\n"
        );
        for (i, (b, a, g)) in [
            ("br-a", "10.0.1.11", "10.0.1.1"),
            ("br-a", "10.0.1.12", "10.0.1.1"),
            ("br-b", "10.0.2.13", "10.0.2.1"),
        ]
        .iter()
        .enumerate()
        {
            let v = format!("{t}-v{}", i + 1);
            let n = i + 1;
            s += &format!(
                "ip netns add {v}; ip link add tap{n} netns {k} type veth peer name eth0 netns {v}; ip -n {v} link set eth0 address 02:00:00:00:00:1{n}
                 ip -n {v} link set lo up; ip -n {v} link set eth0 mtu 1450 up; ip -n {k} link set tap{n} mtu 1450 master {b} up; ip -n {v} addr add {a}/24 dev eth0; ip -n {v} route add default via {g}\n"
            );
        }
        ok(&s);
        let f = std::env::temp_dir().join(format!("{t}.nft"));
        std::fs::write(&f, RULES).unwrap();
        ok(&format!("ip netns exec {k} nft -f {}", f.display()));
        std::fs::remove_file(f).unwrap();
        // A router with conntrack and a table, as ours has: translation has to look at each packet.
        ok(&format!(
            "ip netns exec {r} nft 'table ip nat {{ map fip {{ type ipv4_addr : ipv4_addr; }}; chain pre {{ type nat hook prerouting priority dstnat; dnat to ip daddr map @fip; }}; chain post {{ type nat hook postrouting priority srcnat; oifname \"qg\" snat to ip saddr map @fip; }}; }}'"
        ));
        hand
    }
    fn vm(&self, n: u8) -> String {
        format!("{}-v{n}", self.0)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        for n in ["k", "r", "v1", "v2", "v3"] {
            sh(&format!("ip netns del {}-{n}", self.0));
        }
    }
}

fn median(mut v: Vec<f64>) -> f64 {
    v.sort_by(f64::total_cmp);
    v[v.len() / 2]
}

/// Gbit/s of one TCP stream.
fn stream(from: &str, to: &str, at: &str) -> f64 {
    let mut server = std::process::Command::new("ip")
        .args(["netns", "exec", to, "iperf3", "-s", "-1"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let out = sh(&format!("ip netns exec {from} iperf3 -c {at} -t 2 -J"));
    let _ = server.wait();
    let v: serde_json::Value = serde_json::from_str(&out).unwrap();
    v["end"]["sum_received"]["bits_per_second"].as_f64().unwrap() / 1e9
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and wants a quiet machine"]
async fn throughput_beside_the_path_built_by_hand() {
    if !able() {
        return;
    }
    let hand = Hand::new();
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let m = lab.network(&["10.0.2.0/24"]);
    let g = lab.group(vec![tcp_in(5201)]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    let b = lab.port(n, &["10.0.1.12"], &[g]);
    let c = lab.port(m, &["10.0.2.13"], &[g]);
    lab.router(&[n, m], None);
    lab.apply().await;
    let (ga, gb, gc) = (lab.configure(a), lab.configure(b), lab.configure(c));
    for (what, ours, theirs) in [
        (
            "one network",
            (&gb, &ga, "10.0.1.11"),
            (hand.vm(2), hand.vm(1), "10.0.1.11"),
        ),
        ("routed", (&ga, &gc, "10.0.2.13"), (hand.vm(1), hand.vm(3), "10.0.2.13")),
    ] {
        let (mut x, mut y) = (vec![], vec![]);
        for _ in 0..9 {
            x.push(stream(ours.0, ours.1, ours.2));
            y.push(stream(&theirs.0, &theirs.1, theirs.2));
        }
        let (x, y) = (median(x), median(y));
        println!("{what}: {x:.1} Gbit/s, by hand {y:.1} Gbit/s, ratio {:.2}", x / y);
    }
}

/// Two hosts by hand: a bridge with a guest on each, and VXLAN between them.
struct HandTunnel(String);

impl HandTunnel {
    fn new() -> HandTunnel {
        let t = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..6]);
        let hand = HandTunnel(t.clone());
        let f = std::env::temp_dir().join(format!("{t}.nft"));
        std::fs::write(&f, RULES).unwrap();
        ok(&format!(
            "ip netns add {t}-w; ip -n {t}-w link add br0 type bridge forward_delay 0 mcast_snooping 0; ip -n {t}-w link set br0 up"
        ));
        for (i, j) in [(1, 2), (2, 1)] {
            let (h, k, v) = (format!("{t}-h{i}"), format!("{t}-k{i}"), format!("{t}-v{i}"));
            ok(&format!(
                "set -e; ip netns add {h}; ip netns add {k}; ip netns add {v}
                 ip netns exec {k} sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 net.bridge.bridge-nf-call-arptables=0 net.ipv6.conf.all.disable_ipv6=1
                 ip link add u0 netns {h} type veth peer name p{i} netns {t}-w
                 ip -n {t}-w link set p{i} master br0 up
                 ip -n {h} addr add 10.99.1.{i}/24 dev u0; ip -n {h} link set u0 up
                 ip -n {k} link add br-a type bridge forward_delay 0 mcast_snooping 0; ip -n {k} link set br-a mtu 1450 up
                 ip -n {h} link add vx100 type vxlan id 100 dstport 4789 local 10.99.1.{i} nolearning
                 ip -n {h} link set vx100 netns {k}
                 ip -n {k} link set vx100 mtu 1450 master br-a up
                 ip -n {k} link set vx100 type bridge_slave learning off neigh_suppress on
                 bridge -n {k} fdb append 00:00:00:00:00:00 dev vx100 dst 10.99.1.{j} self
                 bridge -n {k} fdb add 02:00:00:00:00:1{j} dev vx100 dst 10.99.1.{j} self
                 bridge -n {k} fdb add 02:00:00:00:00:1{j} dev vx100 master static
                 ip link add tap{i} netns {k} mtu 1450 type veth peer name eth0 netns {v} mtu 1450
                 ip -n {k} link set tap{i} master br-a up
                 ip -n {v} link set eth0 address 02:00:00:00:00:1{i} up; ip -n {v} addr add 10.0.1.1{i}/24 dev eth0
                 ip netns exec {k} nft -f {}",
                f.display()
            ));
        }
        std::fs::remove_file(f).unwrap();
        hand
    }
}

impl Drop for HandTunnel {
    fn drop(&mut self) {
        for n in ["w", "h1", "h2", "k1", "k2", "v1", "v2"] {
            sh(&format!("ip netns del {}-{n}", self.0));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute and wants a quiet machine"]
async fn throughput_between_hosts_beside_the_path_built_by_hand() {
    if !able() {
        return;
    }
    let hand = HandTunnel::new();
    let wire = Wire::new();
    let (mut a, mut b) = (Lab::on(&wire, 1), Lab::on(&wire, 2));
    let n = a.network(&["10.0.1.0/24"]);
    let g = a.group(vec![tcp_in(5201)]);
    crate::hosts::share(&a, n, &mut b);
    crate::hosts::share_group(&a, g, &mut b);
    let (pa, pb) = (a.port(n, &["10.0.1.11"], &[g]), b.port(n, &["10.0.1.12"], &[g]));
    crate::hosts::spread(&mut [&mut a, &mut b]).await;
    let (ga, gb) = (a.configure(pa), b.configure(pb));
    let (ha, hb) = (format!("{}-v1", hand.0), format!("{}-v2", hand.0));
    let (mut x, mut y) = (vec![], vec![]);
    for _ in 0..9 {
        x.push(stream(&gb, &ga, "10.0.1.11"));
        y.push(stream(&hb, &ha, "10.0.1.11"));
    }
    let (x, y) = (median(x), median(y));
    println!(
        "between hosts: {x:.1} Gbit/s, by hand {y:.1} Gbit/s, ratio {:.2}",
        x / y
    );
}

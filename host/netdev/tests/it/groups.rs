//! Security groups, anti-spoofing, isolation.

use crate::lab::*;
use haneul_agent_api::*;
use haneul_netdev::NetDriver;

#[tokio::test(flavor = "multi_thread")]
async fn groups_open_what_they_say_and_nothing_else() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24", "fd00:1::/64"]);
    let v6 = Rule { protocol: Some(58), ..rule(Direction::Ingress, EtherType::Ipv6) };
    let v6tcp = Rule {
        protocol: Some(6),
        port_min: Some(20),
        port_max: Some(30),
        ..rule(Direction::Ingress, EtherType::Ipv6)
    };
    let open = lab.group(vec![tcp_in(22), icmp_in(), v6, v6tcp]);
    let closed = lab.group(vec![]);
    let a = lab.port(n, &["10.0.1.11", "fd00:1::11"], &[open]);
    let b = lab.port(n, &["10.0.1.12", "fd00:1::12"], &[closed]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    for g in [&ga, &gb] {
        for at in ["0.0.0.0:22", "0.0.0.0:80", "[::]:2222"] {
            serve(g, at);
        }
    }
    in_ns(&ga, || ());
    serve(&ga, "[fd00:1::11]:22");
    assert!(ping(&gb, "10.0.1.11"), "icmp is open");
    assert!(reaches(&gb, "10.0.1.11:22"), "22 is open");
    assert!(!reaches(&gb, "10.0.1.11:80"), "80 is not");
    assert!(ping(&gb, "fd00:1::11"), "icmpv6 is open");
    assert!(reaches(&gb, "[fd00:1::11]:22"), "22 is open on v6");
    assert!(!reaches(&gb, "[fd00:1::11]:2222"), "2222 is not");
    assert!(!reaches(&ga, "10.0.1.12:22"), "the closed group lets nothing in");
    assert!(!ping(&ga, "10.0.1.12"));
    assert!(!ping(&ga, "fd00:1::12"));
}

#[tokio::test(flavor = "multi_thread")]
async fn same_addresses_of_another_tenant_are_another_world() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let all = lab.group(vec![rule(Direction::Ingress, EtherType::Ipv4)]);
    let (n1, n2) = (lab.network(&["10.0.1.0/24"]), lab.network(&["10.0.1.0/24"]));
    let a1 = lab.port(n1, &["10.0.1.11"], &[all]);
    let b1 = lab.port(n1, &["10.0.1.12"], &[all]);
    let a2 = lab.port(n2, &["10.0.1.11"], &[all]);
    let c2 = lab.port(n2, &["10.0.1.13"], &[all]);
    lab.apply().await;
    let (ga1, gb1, ga2, gc2) =
        (lab.configure(a1), lab.configure(b1), lab.configure(a2), lab.configure(c2));
    serve(&ga1, "0.0.0.0:22");
    serve(&gc2, "0.0.0.0:22");
    assert!(reaches(&gb1, "10.0.1.11:22"));
    assert!(reaches(&ga2, "10.0.1.13:22"));
    assert!(!reaches(&gc2, "10.0.1.12:22"), "no way into the other tenant's network");
    assert!(!ping(&gc2, "10.0.1.12"));
    assert!(!reaches(&gb1, "10.0.1.13:22"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_group_is_its_members_and_no_rule_outlives_itself() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let friends = lab.group(vec![]);
    let server = lab.group(vec![Rule { remote_group: Some(friends), ..tcp_in(22) }, tcp_in(80)]);
    let a = lab.port(n, &["10.0.1.11"], &[server]);
    let b = lab.port(n, &["10.0.1.12"], &[friends]);
    let c = lab.port(n, &["10.0.1.13"], &[]);
    let egress = lab.group(vec![]);
    lab.port_mut(c).security_groups = vec![egress];
    lab.apply().await;
    let (ga, gb, gc) = (lab.configure(a), lab.configure(b), lab.configure(c));
    serve(&ga, "0.0.0.0:22");
    serve(&ga, "0.0.0.0:80");
    let (mut ssh, _) = connect(&gb, "10.0.1.11:22").expect("a member is let in");
    let (mut web, _) = connect(&gb, "10.0.1.11:80").expect("80 is open");
    assert!(!reaches(&gc, "10.0.1.11:22"), "who is no member is not");
    assert!(alive(&mut ssh) && alive(&mut web));
    // Membership goes: the connection goes with it, the other one stays.
    lab.group_mut(friends).members.clear();
    lab.apply().await;
    assert!(!alive(&mut ssh), "cut with the membership");
    assert!(alive(&mut web), "untouched");
    assert!(!reaches(&gb, "10.0.1.11:22"));
    // Membership comes.
    lab.group_mut(friends).members.push(ip("10.0.1.13"));
    lab.apply().await;
    assert!(reaches(&gc, "10.0.1.11:22"));
    // A rule goes.
    lab.group_mut(server).rules.retain(|r| r.port_min != Some(80));
    lab.apply().await;
    assert!(!alive(&mut web), "cut with the rule");
    assert!(!reaches(&gb, "10.0.1.11:80"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_without_egress_rules_lets_nothing_out() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let all = lab.group(vec![rule(Direction::Ingress, EtherType::Ipv4)]);
    let mute = lab.group(vec![tcp_in(22)]);
    lab.group_mut(mute).rules.retain(|r| r.direction == Direction::Ingress);
    let a = lab.port(n, &["10.0.1.11"], &[all]);
    let b = lab.port(n, &["10.0.1.12"], &[mute]);
    let c = lab.port(n, &["10.0.1.13"], &[]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    let gc = lab.configure(c);
    serve(&ga, "0.0.0.0:22");
    serve(&gb, "0.0.0.0:22");
    assert!(!reaches(&gb, "10.0.1.11:22"), "nothing goes out");
    assert!(!ping(&gb, "10.0.1.11"));
    assert!(reaches(&ga, "10.0.1.12:22"), "answers to what was let in do");
    assert!(!ping(&gc, "10.0.1.11"), "a port without groups is shut");
    // Port security off: open both ways. Administratively down: shut.
    lab.port_mut(c).port_security = false;
    lab.apply().await;
    assert!(ping(&gc, "10.0.1.11"));
    assert!(ping(&ga, "10.0.1.13"));
    lab.port_mut(c).admin_state_up = false;
    lab.apply().await;
    assert!(!ping(&ga, "10.0.1.13"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_speaks_for_itself_only() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24", "fd00:1::/64"]);
    let all = lab.group(vec![
        rule(Direction::Ingress, EtherType::Ipv4),
        rule(Direction::Ingress, EtherType::Ipv6),
    ]);
    let a = lab.port(n, &["10.0.1.11", "fd00:1::11"], &[all]);
    let b = lab.port(n, &["10.0.1.12", "fd00:1::12"], &[all]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    assert!(ping(&gb, "10.0.1.11") && ping(&gb, "fd00:1::11"));
    // Another address.
    ok(&format!("ip -n {gb} addr add 10.0.1.99/24 dev eth0; ip -n {gb} addr add fd00:1::99/64 dev eth0 nodad"));
    assert!(!ping(&gb, "-I 10.0.1.99 10.0.1.11"), "spoofed IPv4 source");
    assert!(!ping(&gb, "-I fd00:1::99 fd00:1::11"), "spoofed IPv6 source");
    assert!(!ping(&ga, "fd00:1::99"), "a neighbour advertisement for a foreign address");
    // ARP for somebody else's address.
    sh(&format!("ip -n {ga} neigh flush all; ip netns exec {gb} arping -c2 -w1 -U -I eth0 -s 10.0.1.99 10.0.1.99"));
    sh(&format!("ip netns exec {gb} arping -c2 -w1 -A -I eth0 -s 10.0.1.99 10.0.1.11"));
    assert!(!sh(&format!("ip -n {ga} neigh")).contains("10.0.1.99 dev eth0 lladdr"), "ARP for a foreign address");
    assert!(!ping(&ga, "10.0.1.99"));
    // An address pair makes it its own.
    lab.port_mut(b).allowed_address_pairs = vec![
        AddressPair { ip: net("10.0.1.99/32"), mac: lab.want.ports[1].mac.clone() },
        AddressPair { ip: net("fd00:1::99/128"), mac: lab.want.ports[1].mac.clone() },
        AddressPair { ip: net("10.9.0.0/16"), mac: lab.want.ports[1].mac.clone() },
    ];
    lab.apply().await;
    assert!(ping(&gb, "-I 10.0.1.99 10.0.1.11"), "an allowed pair");
    assert!(ping(&gb, "-I fd00:1::99 fd00:1::11"), "an allowed IPv6 pair");
    ok(&format!("ip -n {gb} addr add 10.9.3.4/16 dev eth0; ip -n {ga} addr add 10.9.3.5/16 dev eth0"));
    assert!(!ping(&ga, "-I 10.9.3.5 10.9.3.4"), "the other side has no such pair");
    // Another MAC.
    ok(&format!("ip -n {gb} link set eth0 address fa:16:3e:66:66:66"));
    assert!(!ping(&gb, "10.0.1.11"), "spoofed MAC");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rogue_dhcp_server_or_router_is_not_heard() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let all = lab.group(vec![
        rule(Direction::Ingress, EtherType::Ipv4),
        rule(Direction::Ingress, EtherType::Ipv6),
    ]);
    let a = lab.port(n, &["10.0.1.11"], &[all]);
    let b = lab.port(n, &["10.0.1.12"], &[all]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    let hear = in_ns(&ga, || std::net::UdpSocket::bind("0.0.0.0:68").unwrap());
    hear.set_read_timeout(Some(std::time::Duration::from_millis(400))).unwrap();
    let say = |from: &str| {
        let from = from.to_string();
        in_ns(&gb, move || {
            let s = std::net::UdpSocket::bind(from).unwrap();
            s.send_to(b"offer", "10.0.1.11:68").unwrap();
        });
    };
    let mut buf = [0u8; 16];
    say("10.0.1.12:67");
    assert!(hear.recv(&mut buf).is_err(), "a DHCP answer from a guest");
    say("10.0.1.12:1067");
    assert!(hear.recv(&mut buf).is_ok(), "the way itself is open");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_answers_for_unknown_and_removed_groups() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let all = lab.group(vec![rule(Direction::Ingress, EtherType::Ipv4)]);
    let a = lab.port(n, &["10.0.1.11"], &[all]);
    let b = lab.port(n, &["10.0.1.12"], &[all]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    serve(&ga, "0.0.0.0:22");
    let (mut s, _) = connect(&gb, "10.0.1.11:22").unwrap();
    // Absence is never delete.
    let none = NetDesired::default();
    lab.real.apply(&none).await.unwrap();
    assert!(alive(&mut s), "a port that the desired set forgot keeps working");
    assert!(reaches(&gb, "10.0.1.11:22"));
    lab.restart();
    lab.real.apply(&none).await.unwrap();
    assert!(alive(&mut s), "also after a restart");
    lab.real.remove(Kind::SecurityGroup, all).await.unwrap();
    assert!(!alive(&mut s), "a tombstone takes away");
    lab.real.remove(Kind::SecurityGroup, all).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateless_group_needs_a_rule_for_each_way() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let plain = lab.group(vec![tcp_in(22)]);
    let bare = lab.group(vec![tcp_in(22)]);
    lab.group_mut(bare).stateful = false;
    let a = lab.port(n, &["10.0.1.11"], &[plain]);
    let b = lab.port(n, &["10.0.1.12"], &[bare]);
    lab.apply().await;
    let (ga, gb) = (lab.configure(a), lab.configure(b));
    serve(&ga, "0.0.0.0:22");
    serve(&gb, "0.0.0.0:22");
    assert!(reaches(&ga, "10.0.1.12:22"), "in by its rule, out by the other");
    assert!(!reaches(&gb, "10.0.1.11:22"), "the answer has no rule");
    lab.group_mut(bare).rules.push(Rule { protocol: Some(6), ..rule(Direction::Ingress, EtherType::Ipv4) });
    lab.apply().await;
    assert!(reaches(&gb, "10.0.1.11:22"));
    lab.group_mut(bare).stateful = true;
    lab.apply().await;
    assert!(reaches(&gb, "10.0.1.11:22"));
}

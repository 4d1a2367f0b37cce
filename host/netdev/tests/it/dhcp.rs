//! What the responders tell: DHCP, metadata, DNS.

use crate::lab::*;
use dhcproto::v4::{DhcpOption, Message, MessageType, OptionCode};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};
use haneul_agent_api::*;
use haneul_netdev::{MetadataSource, NetDriver, PasswordRefused};
use std::collections::HashMap;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use uuid::Uuid;

struct Docs(Vec<(Uuid, Uuid, &'static str)>, Mutex<HashMap<Uuid, String>>);

impl MetadataSource for Docs {
    fn by_port(&self, port: Uuid) -> Option<(Uuid, String, Metadata)> {
        let (_, guest, name) = self.0.iter().find(|(p, _, _)| *p == port)?;
        let m = Metadata {
            hostname: (*name).into(),
            ..Metadata::default()
        };
        Some((*guest, "project".into(), m))
    }

    fn password(&self, guest: Uuid) -> Option<String> {
        self.1.lock().unwrap().get(&guest).cloned()
    }

    fn set_password(&self, guest: Uuid, password: &str) -> Result<(), PasswordRefused> {
        let mut all = self.1.lock().unwrap();
        if all.contains_key(&guest) {
            return Err(PasswordRefused::Taken);
        }
        all.insert(guest, password.into());
        Ok(())
    }
}

/// A client that asks and times the answer.
pub fn ask(ns: &str, mac: &str, kind: MessageType, want: Option<Ipv4Addr>) -> (Message, Duration) {
    within(PATIENCE, ns, mac, kind, want).expect("an answer")
}

/// A client that asks and is not answered.
pub fn unanswered(ns: &str, mac: &str, kind: MessageType) -> bool {
    within(Duration::from_secs(1), ns, mac, kind, None).is_none()
}

fn within(
    limit: Duration,
    ns: &str,
    mac: &str,
    kind: MessageType,
    want: Option<Ipv4Addr>,
) -> Option<(Message, Duration)> {
    let mac: Vec<u8> = mac.split(':').map(|b| u8::from_str_radix(b, 16).unwrap()).collect();
    let mut m = Message::default();
    m.set_chaddr(&mac)
        .set_flags(dhcproto::v4::Flags::default().set_broadcast());
    m.opts_mut().insert(DhcpOption::MessageType(kind));
    if let Some(ip) = want {
        m.opts_mut().insert(DhcpOption::RequestedIpAddress(ip));
    }
    let mut out = vec![];
    m.encode(&mut Encoder::new(&mut out)).unwrap();
    in_ns(ns, || {
        sh(&format!("ip -n {ns} route replace 255.255.255.255 dev eth0"));
        let s = UdpSocket::bind("0.0.0.0:68").unwrap();
        s.set_broadcast(true).unwrap();
        s.set_read_timeout(Some(limit)).unwrap();
        let t = Instant::now();
        s.send_to(&out, "255.255.255.255:67").unwrap();
        let mut b = [0u8; 1500];
        let n = s.recv(&mut b).ok()?;
        let took = t.elapsed();
        Some((Message::decode(&mut Decoder::new(&b[..n])).unwrap(), took))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_gets_its_lease_and_its_documents() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    lab.net_mut(n).subnets[0].host_routes = vec![(net("10.77.0.0/16"), ip("10.0.1.7"))];
    let g = lab.group(vec![]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    let b = lab.port(n, &["10.0.1.12"], &[g]);
    lab.port_mut(a).extra_dhcp_opts = vec![
        ("bootfile-name".into(), "boot.ipxe".into(), 4),
        ("tftp-server".into(), "10.0.1.200".into(), 4),
    ];
    let docs = Docs(
        [(a, "alpha"), (b, "beta")]
            .iter()
            .map(|(p, name)| {
                let port = lab.want.ports.iter().find(|x| x.id == *p).unwrap();
                (*p, port.guest_id.unwrap(), *name)
            })
            .collect(),
        Mutex::default(),
    );
    lab.real.set_metadata(Arc::new(docs));
    lab.apply().await;
    let ga = lab.guest(a);
    let script = lab.dir.join("udhcpc.sh");
    std::fs::write(
        &script,
        "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nenv | sort > \"$OUT\"\nip addr add $ip/$mask dev $interface\n\
         set -- $staticroutes; while [ -n \"$1\" ]; do ip route add $1 via $2 dev $interface onlink; shift; shift; done\n",
    )
    .unwrap();
    ok(&format!("chmod +x {}", script.display()));
    let out = lab.dir.join("env");
    let t = Instant::now();
    ok(&format!(
        "OUT={} ip netns exec {ga} busybox udhcpc -i eth0 -f -n -q -t 3 -T 1 -s {} -O staticroutes -O mtu -O bootfile -O tftp",
        out.display(),
        script.display()
    ));
    println!("udhcpc, from start to bound: {:?}", t.elapsed());
    let env = std::fs::read_to_string(&out).unwrap();
    for line in [
        "ip=10.0.1.11",
        "subnet=255.255.255.0",
        "router=10.0.1.1",
        "dns=10.0.1.2",
        "serverid=10.0.1.2",
        "lease=86400",
        "mtu=1450",
        "domain=lab.test",
        "hostname=vm",
        "staticroutes=169.254.169.254/32 10.0.1.2 10.77.0.0/16 10.0.1.7 0.0.0.0/0 10.0.1.1",
        "bootfile=boot.ipxe",
        "tftp=10.0.1.200",
    ] {
        assert!(env.contains(line), "{line} in {env}");
    }
    // Metadata, over the route just told.
    let get = |ns: &str, path: &str| {
        sh(&format!(
            "ip netns exec {ns} curl -sS -m 20 http://169.254.169.254{path}"
        ))
    };
    assert!(get(&ga, "/openstack/latest/meta_data.json").contains("\"alpha\""));
    assert!(get(&ga, "/latest/meta-data/hostname").contains("alpha"));
    assert!(get(&ga, "/nothing").contains("404"));
    // Its password: once, text, not too long, and by POST only.
    let long = lab.dir.join("long");
    std::fs::write(&long, "x".repeat(1021)).unwrap();
    let binary = lab.dir.join("binary");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    let send = |what: &str, path: &str| {
        sh(&format!(
            "ip netns exec {ga} curl -sS -m 20 -w ' %{{http_code}}' {what} http://169.254.169.254/openstack/{path}"
        ))
    };
    let at_file = |f: &std::path::Path| format!("--data-binary @{}", f.display());
    for (what, path, says) in [
        (
            at_file(&long),
            "latest/password",
            "400 Bad Request: Request is too large",
        ),
        (at_file(&binary), "latest/password", "UTF-8"),
        (
            "-X PUT -d x".into(),
            "latest/password",
            "GET and POST only are supported",
        ),
        ("-d x".into(), "2012-08-10/password", " 405"),
        ("-d x".into(), "latest/meta_data.json", " 405"),
        ("-d sealed".into(), "2013-10-17/password", " 200"),
        ("-d again".into(), "latest/password", "409 Conflict"),
    ] {
        let answer = send(&what, path);
        assert!(answer.contains(says), "{what} {path}: {answer}");
    }
    assert_eq!(get(&ga, "/openstack/latest/password"), "sealed");
    let mut best = f64::MAX;
    for _ in 0..5 {
        let t = sh(&format!(
            "ip netns exec {ga} curl -sS -o /dev/null -w '%{{time_total}}' http://169.254.169.254/latest/meta-data/hostname"
        ));
        best = best.min(t.trim().parse().unwrap());
    }
    println!("metadata answer: {best} s");
    assert!(best < 0.1);
    // Each guest gets its own; over IPv6 too.
    let gb = lab.configure(b);
    ok(&format!("ip -n {gb} route add 169.254.169.254 via 10.0.1.2"));
    assert!(get(&gb, "/latest/meta-data/hostname").contains("beta"));
    // Its own link-local address first has to be through with duplicate detection.
    let six = sh(&format!(
        "ip netns exec {gb} curl -sS -m 8 --retry 20 --retry-delay 1 --retry-all-errors --retry-max-time 20 -g 'http://[fe80::a9fe:a9fe%25eth0]/latest/meta-data/hostname'"
    ));
    assert!(six.contains("beta"), "{six}");
    // And cannot ask for another's.
    let said = sh(&format!(
        "ip -n {gb} addr add 10.0.1.11/24 dev eth0; ip netns exec {gb} curl -sS -m 1 --interface 10.0.1.11 http://169.254.169.254/latest/meta-data/hostname"
    ));
    assert!(!said.contains("alpha"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_dhcp_message_has_its_answer() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["10.0.1.0/24"]);
    let g = lab.group(vec![]);
    let a = lab.port(n, &["10.0.1.11"], &[g]);
    lab.apply().await;
    let ga = lab.guest(a);
    let mac = lab.want.ports[0].mac.clone();
    let mut times = vec![];
    for _ in 0..9 {
        let (m, t) = ask(&ga, &mac, MessageType::Discover, None);
        assert_eq!(m.opts().msg_type(), Some(MessageType::Offer));
        assert_eq!(m.yiaddr(), Ipv4Addr::new(10, 0, 1, 11));
        times.push(t);
    }
    times.sort();
    println!("DHCP offer: median {:?}, worst {:?}", times[4], times[8]);
    assert!(times[4] < Duration::from_millis(200), "{:?}", times[4]);
    let (m, _) = ask(&ga, &mac, MessageType::Request, Some(Ipv4Addr::new(10, 0, 1, 11)));
    assert_eq!(m.opts().msg_type(), Some(MessageType::Ack));
    assert!(m.opts().get(OptionCode::ClasslessStaticRoute).is_some());
    let (m, _) = ask(&ga, &mac, MessageType::Request, Some(Ipv4Addr::new(10, 0, 1, 77)));
    assert_eq!(m.opts().msg_type(), Some(MessageType::Nak));
    assert!(unanswered(&ga, &mac, MessageType::Release));
    assert!(
        unanswered(&ga, "fa:16:3e:77:77:77", MessageType::Discover),
        "a stranger"
    );
    // A changed port is told at once.
    let subnet = lab.want.networks[0].subnets[0].id;
    lab.port_mut(a).fixed_ips = vec![FixedIp {
        subnet_id: subnet,
        ip: ip("10.0.1.55"),
    }];
    lab.apply().await;
    let (m, _) = ask(&ga, &mac, MessageType::Discover, None);
    assert_eq!(m.yiaddr(), Ipv4Addr::new(10, 0, 1, 55));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_answered_or_relayed() {
    if !able() {
        return;
    }
    // A resolver on the real host's loopback stands in for the host's own.
    let upstream = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = upstream.local_addr().unwrap();
    tokio::spawn(async move {
        let mut b = [0u8; 512];
        while let Ok((n, from)) = upstream.recv_from(&mut b).await {
            let mut a = b[..n].to_vec();
            a[2] |= 0x80;
            a[3] = 0x80 | 3;
            upstream.send_to(&a, from).await.unwrap();
        }
    });
    let mut lab = Lab::with(|c| c.dns_upstream = Some(vec![at]));
    let n = lab.network(&["10.0.1.0/24", "fd00:1::/64"]);
    let g = lab.group(vec![]);
    let a = lab.port(n, &["10.0.1.11", "fd00:1::11"], &[g]);
    let b = lab.port(n, &["10.0.1.12"], &[g]);
    lab.port_mut(a).dns_name = "alpha".into();
    lab.apply().await;
    let gb = lab.configure(b);
    let dig = |q: &str| sh(&format!("ip netns exec {gb} dig +time=5 +tries=3 @10.0.1.2 {q}"));
    assert_eq!(dig("+short alpha.lab.test A").trim(), "10.0.1.11");
    assert_eq!(dig("+short alpha.lab.test AAAA").trim(), "fd00:1::11");
    assert_eq!(dig("+short +tcp alpha A").trim(), "10.0.1.11");
    assert_eq!(dig("+short -x 10.0.1.11").trim(), "alpha.lab.test.");
    assert_eq!(dig("+short -x fd00:1::11").trim(), "alpha.lab.test.");
    let other = dig("example.org A");
    assert!(other.contains("NXDOMAIN"), "the resolver's answer: {other}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stateful_dhcpv6_gives_the_ports_address() {
    if !able() {
        return;
    }
    let mut lab = Lab::new();
    let n = lab.network(&["fd00:1::/64"]);
    let s = &mut lab.net_mut(n).subnets[0];
    s.ipv6_ra_mode = Some("dhcpv6-stateful".into());
    s.ipv6_address_mode = Some("dhcpv6-stateful".into());
    let g = lab.group(vec![]);
    let a = lab.port(n, &["fd00:1::11"], &[g]);
    lab.router(&[n], None);
    lab.apply().await;
    let ga = lab.guest(a);
    settled(&ga);
    let d = lab.dir.display().to_string();
    std::fs::write(format!("{d}/script"), format!("#!/bin/sh\nenv >> {d}/env6\nexit 0\n")).unwrap();
    ok(&format!("chmod +x {d}/script"));
    let said = sh(&format!(
        "timeout 60 ip netns exec {ga} dhclient -6 -1 -v -lf {d}/leases -pf {d}/pid -sf {d}/script eth0; kill $(cat {d}/pid)"
    ));
    let env = std::fs::read_to_string(format!("{d}/env6")).unwrap_or_default();
    assert!(env.contains("new_ip6_address=fd00:1::11"), "{said} {env}");
    assert!(env.contains("new_dhcp6_name_servers=fd00:1::2"), "{env}");
    assert!(env.contains("new_dhcp6_domain_search=lab.test"), "{env}");
    let told = sh(&format!("ip netns exec {ga} rdisc6 -1 -w 5000 eth0"));
    assert!(told.contains("Stateful address conf.    :          Yes"), "{told}");
}

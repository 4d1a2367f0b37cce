//! A data plane of its own for each test, and clients inside its guests.

use haneul_agent_api::*;
use haneul_netdev::NetDriver;
use haneul_netdev::real::{Real, RealConfig};
use ipnet::IpNet;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// False, with the reason printed, where the kernel or the tools for these tests are missing.
pub fn able() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let tools = ["nft", "ip", "busybox"]
        .iter()
        .all(|t| Command::new(t).arg("--help").output().is_ok() || Command::new(t).arg("-V").output().is_ok());
    let bridge = std::path::Path::new("/proc/sys/net/bridge").exists();
    if !(root && tools && bridge) {
        println!("SKIPPED: needs root ({root}), nft, ip and busybox ({tools}), br_netfilter ({bridge})");
    }
    root && tools && bridge
}

pub fn sh(cmd: &str) -> String {
    let out = Command::new("sh").arg("-c").arg(cmd).output().unwrap();
    String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr)
}

pub fn ok(cmd: &str) {
    let out = Command::new("sh").arg("-c").arg(cmd).output().unwrap();
    assert!(
        out.status.success(),
        "{cmd}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

pub fn succeeds(cmd: &str) -> bool {
    Command::new("sh").arg("-c").arg(cmd).output().unwrap().status.success()
}

/// Runs `f` inside a namespace.
pub fn in_ns<T: Send>(ns: &str, f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| {
        s.spawn(|| {
            let file = File::open(format!("/run/netns/{ns}")).unwrap();
            setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
            f()
        })
        .join()
        .unwrap()
    })
}

/// Answers every line it gets, and says who called on connect.
pub fn serve(ns: &str, at: &str) {
    let l = in_ns(ns, || TcpListener::bind(at).unwrap());
    std::thread::spawn(move || {
        for c in l.incoming().flatten() {
            std::thread::spawn(move || {
                let mut c = c;
                let peer = c.peer_addr().unwrap().ip();
                let _ = c.write_all(format!("{peer}\n").as_bytes());
                let mut b = [0u8; 64];
                while let Ok(n) = c.read(&mut b) {
                    if n == 0 || c.write_all(&b[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// How long what shall be there may take: a machine that builds beside the test answers late.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How long is listened for what shall not come.
pub const SILENCE: Duration = Duration::from_millis(400);

pub fn soon(mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Waits until a guest's addresses are through with their duplicate detection, the link-local one among them.
pub fn settled(ns: &str) {
    let shown = |what: &str| !sh(&format!("ip -n {ns} -6 -o addr show dev eth0 {what}")).is_empty();
    assert!(
        soon(|| shown("scope link") && !shown("tentative")),
        "an address stays tentative"
    );
}

/// Connects from a namespace; the stream and whom the server saw.
pub fn connect(ns: &str, to: &str) -> Option<(TcpStream, IpAddr)> {
    let to: SocketAddr = to.parse().unwrap();
    let mut s = in_ns(ns, || TcpStream::connect_timeout(&to, Duration::from_millis(700))).ok()?;
    s.set_read_timeout(Some(Duration::from_millis(900))).unwrap();
    let mut line = vec![];
    let mut b = [0u8; 1];
    while s.read(&mut b).ok()? == 1 && b[0] != b'\n' {
        line.push(b[0]);
    }
    let seen: IpAddr = String::from_utf8(line).unwrap().parse().unwrap();
    Some((s, seen))
}

pub fn reaches(ns: &str, to: &str) -> bool {
    connect(ns, to).is_some()
}

/// What was plugged a moment ago may lose its first packet to a question for an address.
pub fn connect_soon(ns: &str, to: &str) -> Option<(TcpStream, IpAddr)> {
    let mut open = None;
    soon(|| {
        open = connect(ns, to);
        open.is_some()
    });
    open
}

pub fn reaches_soon(ns: &str, to: &str) -> bool {
    connect_soon(ns, to).is_some()
}

/// Whether an open connection still carries bytes.
pub fn alive(s: &mut TcpStream) -> bool {
    let mut b = [0u8; 64];
    s.write_all(b"x").is_ok() && matches!(s.read(&mut b), Ok(n) if n > 0)
}

pub fn ping(ns: &str, to: &str) -> bool {
    succeeds(&format!("ip netns exec {ns} ping -c1 -W1 {to}"))
}

/// A host that others reach at this address.
pub fn at(address: IpAddr) -> Whereabouts {
    std::sync::Arc::new(Underlay { address, mtu: 1500 }.into())
}

/// An address that a lone host says to have.
pub const NOWHERE: &str = "10.99.0.1";

/// The network between hosts, as a bridge in a namespace of its own that counts what goes over it.
pub struct Wire(pub String);

impl Wire {
    pub fn new() -> Wire {
        let w = format!("t{}-wire", &Uuid::new_v4().simple().to_string()[..6]);
        ok(&format!(
            "ip netns add {w} && ip -n {w} link add br0 type bridge forward_delay 0 mcast_snooping 0 && ip -n {w} link set br0 up"
        ));
        // Behind the headers of UDP and VXLAN: the inner frame's MACs, its type, and of IPv6 the kind of ICMP.
        let mut rules =
            "add table bridge count\nadd chain bridge count fw { type filter hook forward priority 0; }\n".to_string();
        for (name, what) in [
            ("icmp", "@th,224,16 0x0800 @th,312,8 1"),
            ("arp", "@th,224,16 0x0806"),
            ("nd", "@th,224,16 0x86dd @th,288,8 58 @th,560,8 135"),
            ("dhcp", "@th,224,16 0x0800 @th,312,8 17 @th,416,16 67"),
            ("nobody", "@th,128,48 0xfa163e777777"),
            ("spoofed", "@th,224,16 0x0800 @th,336,32 0x0a000163"),
        ] {
            rules += &format!(
                "add counter bridge count n_{name}\nadd rule bridge count fw udp dport 4789 {what} counter name n_{name}\n"
            );
        }
        ok(&format!("ip netns exec {w} nft '{rules}'"));
        Wire(w)
    }

    /// Packets so far.
    pub fn count(&self, what: &str) -> u64 {
        let said = sh(&format!(
            "ip netns exec {} nft list counter bridge count n_{what}",
            self.0
        ));
        let n = said.split("packets ").nth(1).and_then(|s| s.split_whitespace().next());
        n.unwrap().parse().unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        sh(&format!("ip netns del {}", self.0));
    }
}

/// One host's data plane; everything goes when it is dropped, whatever happened.
pub struct Lab {
    pub real: Real,
    pub id: Uuid,
    pub want: NetDesired,
    pub host: String,
    pub config: RealConfig,
    pub dir: PathBuf,
    next: u32,
}

impl Drop for Lab {
    fn drop(&mut self) {
        let prefix = format!("h{}", &self.id.simple().to_string()[..6]);
        for n in std::fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let n = n.file_name().into_string().unwrap();
            let beside = !self.host.is_empty() && n.starts_with(&format!("{}-", self.host));
            if n.starts_with(&format!("{prefix}-")) || beside {
                sh(&format!("ip netns del {n}"));
            }
        }
        if !self.host.is_empty() {
            sh(&format!("ip netns del {}", self.host));
            let _ = std::fs::remove_file(format!("/run/haneul/sysctl-before{}.json", self.host));
            let _ = std::fs::remove_dir("/run/haneul");
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn net(s: &str) -> IpNet {
    s.parse().unwrap()
}

pub fn ip(s: &str) -> IpAddr {
    s.parse().unwrap()
}

impl Lab {
    pub fn new() -> Lab {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut RealConfig)) -> Lab {
        Self::of(Uuid::new_v4(), change)
    }

    /// The `n`th host on an underlay: its short numbers and MACs are no other's.
    pub fn on(wire: &Wire, n: u8) -> Lab {
        let address = ip(&format!("10.99.0.{n}"));
        let mut lab = Self::with(|c| {
            c.underlay = at(address);
            let host = c.lab_host_ns.clone().unwrap();
            let w = &wire.0;
            ok(&format!(
                "ip link add u0 netns {host} type veth peer name p{n} netns {w} && ip -n {w} link set p{n} master br0 up &&
                 ip -n {host} link set u0 up && ip -n {host} addr add {address}/24 dev u0"
            ));
        });
        lab.next = u32::from(n) * 40;
        lab
    }

    fn of(id: Uuid, change: impl FnOnce(&mut RealConfig)) -> Lab {
        let tag = &id.simple().to_string()[..6];
        let host = format!("t{tag}-host");
        // A new namespace takes the real host's value at the moment, and another test may have it at 1.
        ok(&format!(
            "ip netns add {host} && ip -n {host} link set lo up && ip netns exec {host} sysctl -qw net.ipv4.ip_forward=0"
        ));
        let dir = std::env::temp_dir().join(format!("netdev-{tag}"));
        let mut config = RealConfig::new(id, Uplink::Nat, &dir);
        config.lab_ports = true;
        config.lab_host_ns = Some(host.clone());
        config.dns_upstream = Some(vec![]);
        config.underlay = at(ip(NOWHERE));
        change(&mut config);
        Lab {
            real: Real::open(config.clone()).unwrap(),
            id,
            want: NetDesired::default(),
            host,
            config,
            dir,
            next: 1,
        }
    }

    pub fn index(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// As after a restart of the agent: a new driver on the same state.
    pub fn restart(&mut self) {
        self.real = Real::open(self.config.clone()).unwrap();
    }

    pub async fn apply(&self) {
        let troubles = self.real.apply(&self.want).await.unwrap();
        assert!(troubles.is_empty(), "{troubles:?}");
    }

    /// A network with the given subnets; the first address is the gateway's, the second the service's.
    pub fn network(&mut self, cidrs: &[&str]) -> Uuid {
        let index = self.index();
        let id = Uuid::new_v4();
        let service = Uuid::new_v4();
        let mac = format!("fa:16:3e:fe:00:{index:02x}");
        let subnets = cidrs
            .iter()
            .map(|c| {
                let cidr = net(c);
                let mut hosts = cidr.hosts();
                if cidr.addr().is_ipv6() {
                    hosts.next();
                }
                let gateway = hosts.next();
                Subnet {
                    id: Uuid::new_v4(),
                    cidr,
                    gateway,
                    enable_dhcp: true,
                    service: hosts.next().map(|ip| ServicePort {
                        port_id: service,
                        mac: mac.clone(),
                        ip,
                    }),
                    dns_servers: vec![],
                    host_routes: vec![],
                    ipv6_ra_mode: None,
                    ipv6_address_mode: None,
                }
            })
            .collect();
        self.want.networks.push(Network {
            id,
            index,
            mtu: 1450,
            subnets,
            external: false,
            admin_state_up: true,
            dns_domain: "lab.test".into(),
        });
        id
    }

    pub fn external(&mut self, cidr: &str) -> Uuid {
        let id = self.network(&[cidr]);
        let n = self.want.networks.last_mut().unwrap();
        n.external = true;
        n.mtu = 1500;
        n.subnets[0].enable_dhcp = false;
        n.subnets[0].service = None;
        id
    }

    pub fn net_mut(&mut self, id: Uuid) -> &mut Network {
        self.want.networks.iter_mut().find(|n| n.id == id).unwrap()
    }

    pub fn port_mut(&mut self, id: Uuid) -> &mut Port {
        self.want.ports.iter_mut().find(|p| p.id == id).unwrap()
    }

    pub fn group_mut(&mut self, id: Uuid) -> &mut SecurityGroup {
        self.want.security_groups.iter_mut().find(|p| p.id == id).unwrap()
    }

    /// A group that lets everything out and `rules` in.
    pub fn group(&mut self, rules: Vec<Rule>) -> Uuid {
        let id = Uuid::new_v4();
        let mut all = vec![
            rule(Direction::Egress, EtherType::Ipv4),
            rule(Direction::Egress, EtherType::Ipv6),
        ];
        all.extend(rules);
        self.want.security_groups.push(SecurityGroup {
            id,
            rules: all,
            members: vec![],
            stateful: true,
        });
        id
    }

    pub fn port(&mut self, network: Uuid, ips: &[&str], groups: &[Uuid]) -> Uuid {
        let index = self.index();
        let id = Uuid::new_v4();
        let n = self.want.networks.iter().find(|n| n.id == network).unwrap();
        let fixed_ips = ips
            .iter()
            .map(|a| FixedIp {
                subnet_id: n.subnets.iter().find(|s| s.cidr.contains(&ip(a))).unwrap().id,
                ip: ip(a),
            })
            .collect();
        self.want.ports.push(Port {
            id,
            index,
            network_id: network,
            guest_id: Some(Uuid::new_v4()),
            mac: format!("fa:16:3e:00:00:{index:02x}"),
            fixed_ips,
            allowed_address_pairs: vec![],
            port_security: true,
            security_groups: groups.to_vec(),
            admin_state_up: true,
            dns_name: format!("vm{index}"),
            extra_dhcp_opts: vec![],
        });
        for g in groups {
            let g = self.want.security_groups.iter_mut().find(|x| x.id == *g).unwrap();
            g.members.extend(ips.iter().map(|a| ip(a)));
        }
        id
    }

    /// The namespace that plays a port's guest.
    pub fn guest(&self, port: Uuid) -> String {
        let p = self.want.ports.iter().find(|p| p.id == port).unwrap();
        self.real.lab_guest(p.index)
    }

    /// Gives a guest its addresses and default routes, as cloud-init would.
    pub fn configure(&self, port: Uuid) -> String {
        let p = self.want.ports.iter().find(|p| p.id == port).unwrap();
        let n = self.want.networks.iter().find(|n| n.id == p.network_id).unwrap();
        let ns = self.guest(port);
        ok(&format!("ip -n {ns} link set eth0 mtu {}", n.mtu));
        for f in &p.fixed_ips {
            let s = n.subnets.iter().find(|s| s.id == f.subnet_id).unwrap();
            let nodad = if f.ip.is_ipv6() { "nodad" } else { "" };
            ok(&format!(
                "ip -n {ns} addr add {}/{} dev eth0 {nodad}",
                f.ip,
                s.cidr.prefix_len()
            ));
            if let Some(g) = s.gateway {
                let v = if g.is_ipv6() { "-6" } else { "-4" };
                sh(&format!("ip {v} -n {ns} route add default via {g} dev eth0"));
            }
        }
        ns
    }

    /// A port on a host that this one knows by name only.
    pub fn neighbour(&mut self, network: Uuid, address: &str, host: &str) -> Uuid {
        let (id, index) = (Uuid::new_v4(), self.index());
        self.want.neighbours.push(Neighbour {
            id,
            network_id: network,
            mac: format!("fa:16:3e:cc:00:{index:02x}"),
            addresses: vec![ip(address)],
            dns_name: String::new(),
            host: ip(host),
        });
        id
    }

    /// A router on `nets` (it holds their gateways' addresses), with or without a way out.
    pub fn router(&mut self, nets: &[Uuid], outside: Option<(Uuid, &str)>) -> Uuid {
        let index = self.index();
        let interfaces = nets
            .iter()
            .map(|id| {
                let index = self.index();
                let n = self.want.networks.iter().find(|n| n.id == *id).unwrap();
                RouterInterface {
                    port_id: Uuid::new_v4(),
                    index,
                    network_id: *id,
                    mac: format!("fa:16:3e:aa:00:{index:02x}"),
                    addresses: n
                        .subnets
                        .iter()
                        .filter_map(|s| IpNet::new(s.gateway?, s.cidr.prefix_len()).ok())
                        .collect(),
                }
            })
            .collect();
        let gateway = outside.map(|(id, addr)| {
            let index = self.index();
            let n = self.want.networks.iter().find(|n| n.id == id).unwrap();
            RouterGateway {
                port_id: Uuid::new_v4(),
                index,
                network_id: id,
                mac: format!("fa:16:3e:bb:00:{index:02x}"),
                addresses: vec![net(addr)],
                next_hops: n.subnets.iter().filter_map(|s| s.gateway).collect(),
                enable_snat: true,
            }
        });
        let id = Uuid::new_v4();
        self.want.routers.push(Router {
            id,
            index,
            admin_state_up: true,
            interfaces,
            gateway,
            routes: vec![],
            floating_ips: vec![],
        });
        id
    }
}

pub fn rule(direction: Direction, ethertype: EtherType) -> Rule {
    Rule {
        id: Uuid::new_v4(),
        direction,
        ethertype,
        protocol: None,
        port_min: None,
        port_max: None,
        remote_prefix: None,
        remote_group: None,
    }
}

pub fn tcp_in(port: u16) -> Rule {
    Rule {
        protocol: Some(6),
        port_min: Some(port),
        port_max: Some(port),
        ..rule(Direction::Ingress, EtherType::Ipv4)
    }
}

pub fn icmp_in() -> Rule {
    Rule {
        protocol: Some(1),
        ..rule(Direction::Ingress, EtherType::Ipv4)
    }
}

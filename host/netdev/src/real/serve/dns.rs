//! DNS on the service address: names of the network's own ports are answered here, the rest is
//! relayed to the host's resolvers from the host's namespace, so that guests resolve what the host
//! resolves, also where they have no route to its resolvers.
//!
//! Limits: 256 queries under way for a network (UDP), 32 TCP connections, 2 s for a resolver. Only
//! the network's own addresses are served: we are nobody's open resolver.

use crate::real::view::View;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const ANY: u16 = 255;
const TTL: u32 = 30;
const PATIENCE: Duration = Duration::from_secs(2);

/// Where questions go that we do not answer.
pub type Upstream = Arc<dyn Fn() -> Vec<SocketAddr> + Send + Sync>;

/// Answers UDP.
pub async fn udp(socket: UdpSocket, view: watch::Receiver<Arc<View>>, upstream: Upstream) {
    let socket = Arc::new(socket);
    let room = Arc::new(Semaphore::new(256));
    let mut buf = vec![0u8; 4096];
    loop {
        let Ok((n, from)) = socket.recv_from(&mut buf).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let v = view.borrow().clone();
        if !served(&v, from.ip()) {
            continue;
        }
        let query = buf.get(..n).unwrap_or_default().to_vec();
        if let Some(a) = local(&v, &query) {
            let _ = socket.send_to(&a, from).await;
            continue;
        }
        // Full: dropped, as a busy resolver would; clients ask again.
        let Ok(permit) = room.clone().try_acquire_owned() else {
            continue;
        };
        let (socket, upstream) = (socket.clone(), upstream.clone());
        tokio::spawn(async move {
            let a = match relay_udp(&query, &upstream()).await {
                Some(a) => a,
                None => refuse(&query, 2),
            };
            let _ = socket.send_to(&a, from).await;
            drop(permit);
        });
    }
}

/// Answers TCP.
pub async fn tcp(listener: TcpListener, view: watch::Receiver<Arc<View>>, upstream: Upstream) {
    let room = Arc::new(Semaphore::new(32));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let v = view.borrow().clone();
        if !served(&v, from.ip()) {
            continue;
        }
        let upstream = upstream.clone();
        tokio::spawn(async move {
            let _ = tokio::time::timeout(Duration::from_secs(30), session(stream, v, upstream)).await;
            drop(permit);
        });
    }
}

fn served(v: &View, ip: IpAddr) -> bool {
    v.holds(ip) || v.by_ip.contains_key(&ip)
}

async fn session(mut s: TcpStream, v: Arc<View>, upstream: Upstream) -> std::io::Result<()> {
    loop {
        let n = s.read_u16().await?;
        let mut query = vec![0u8; usize::from(n)];
        s.read_exact(&mut query).await?;
        let a = match local(&v, &query) {
            Some(a) => a,
            None => match relay_tcp(&query, &upstream()).await {
                Some(a) => a,
                None => refuse(&query, 2),
            },
        };
        let mut out = (a.len() as u16).to_be_bytes().to_vec();
        out.extend(a);
        s.write_all(&out).await?;
    }
}

async fn relay_udp(query: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    let id = query.get(..2)?;
    for s in servers {
        let any = if s.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let Ok(socket) = UdpSocket::bind(any).await else {
            continue;
        };
        if socket.connect(s).await.is_err() || socket.send(query).await.is_err() {
            continue;
        }
        let mut buf = vec![0u8; 4096];
        let got = tokio::time::timeout(PATIENCE, async {
            loop {
                match socket.recv(&mut buf).await {
                    Ok(n) if buf.get(..2) == Some(id) => return Some(n),
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        })
        .await;
        if let Ok(Some(n)) = got {
            buf.truncate(n);
            return Some(buf);
        }
    }
    None
}

async fn relay_tcp(query: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for s in servers {
        let one = async {
            let mut c = TcpStream::connect(s).await?;
            let mut out = (query.len() as u16).to_be_bytes().to_vec();
            out.extend(query);
            c.write_all(&out).await?;
            let n = c.read_u16().await?;
            let mut a = vec![0u8; usize::from(n)];
            c.read_exact(&mut a).await?;
            Ok::<_, std::io::Error>(a)
        };
        if let Ok(Ok(a)) = tokio::time::timeout(PATIENCE, one).await {
            return Some(a);
        }
    }
    None
}

/// The question of a query: name (lower case, no closing dot), type, and where it ends.
fn question(q: &[u8]) -> Option<(String, u16, usize)> {
    let flags = u16::from_be_bytes(q.get(2..4)?.try_into().ok()?);
    let count = u16::from_be_bytes(q.get(4..6)?.try_into().ok()?);
    // Standard queries with one question.
    if flags & 0xf800 != 0 || count != 1 {
        return None;
    }
    let mut at = 12;
    let mut labels: Vec<String> = vec![];
    loop {
        let len = usize::from(*q.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        // Questions are never compressed.
        if len > 63 || labels.len() > 127 {
            return None;
        }
        let label = q.get(at..at + len)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += len;
    }
    let kind = u16::from_be_bytes(q.get(at..at + 2)?.try_into().ok()?);
    let class = u16::from_be_bytes(q.get(at + 2..at + 4)?.try_into().ok()?);
    (class == 1).then_some((labels.join("."), kind, at + 4))
}

/// An answer with an error code and no records.
fn refuse(q: &[u8], code: u8) -> Vec<u8> {
    let end = question(q).map_or(12.min(q.len()), |(_, _, end)| end);
    let mut a = q.get(..end).unwrap_or_default().to_vec();
    a.resize(a.len().max(12), 0);
    a[2] = 0x80 | (a[2] & 0x79);
    a[3] = 0x80 | code;
    if end <= 12 {
        a[4..6].fill(0);
    }
    a[6..12].fill(0);
    a
}

/// The answer to a question about the network's own names; `None` when it is not about them.
pub fn local(v: &View, q: &[u8]) -> Option<Vec<u8>> {
    let (name, kind, end) = question(q)?;
    let mut records: Vec<(u16, Vec<u8>)> = vec![];
    if let Some(ip) = reverse(&name) {
        let host = v.names.get(&ip)?;
        if matches!(kind, PTR | ANY) {
            records.push((PTR, encode_name(&join(host, &v.domain))));
        }
    } else {
        let host = match name.strip_suffix(&v.domain) {
            Some(h) if !v.domain.is_empty() => h.strip_suffix('.').unwrap_or(h),
            // A bare name: what a guest without search domain asks.
            _ if !name.contains('.') => name.as_str(),
            _ => return None,
        };
        match v.by_name.get(host) {
            Some(addresses) => {
                for ip in addresses {
                    match ip {
                        IpAddr::V4(a) if matches!(kind, A | ANY) => {
                            records.push((A, a.octets().to_vec()));
                        }
                        IpAddr::V6(a) if matches!(kind, AAAA | ANY) => {
                            records.push((AAAA, a.octets().to_vec()));
                        }
                        _ => {}
                    }
                }
            }
            None => return None,
        }
    }
    let mut a = refuse(q, 0);
    a.truncate(end);
    a[2] |= 0x04;
    a[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
    for (kind, data) in records {
        a.extend([0xc0, 12]);
        a.extend(kind.to_be_bytes());
        a.extend([0, 1]);
        a.extend(TTL.to_be_bytes());
        a.extend((data.len() as u16).to_be_bytes());
        a.extend(data);
    }
    Some(a)
}

fn join(host: &str, domain: &str) -> String {
    if domain.is_empty() {
        host.into()
    } else {
        format!("{host}.{domain}")
    }
}

/// A name as DNS writes it.
pub fn encode_name(name: &str) -> Vec<u8> {
    let mut out = vec![];
    for label in name.split('.').filter(|l| !l.is_empty()) {
        let l = label.as_bytes();
        let n = l.len().min(63);
        out.push(n as u8);
        out.extend(l.iter().take(n));
    }
    out.push(0);
    out
}

fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(r) = name.strip_suffix(".in-addr.arpa") {
        let o: Vec<u8> = r.split('.').rev().map(|x| x.parse().ok()).collect::<Option<_>>()?;
        return Some(IpAddr::from(<[u8; 4]>::try_from(o).ok()?));
    }
    let r = name.strip_suffix(".ip6.arpa")?;
    let hex: String = r.split('.').rev().collect();
    if hex.len() != 32 {
        return None;
    }
    u128::from_str_radix(&hex, 16)
        .ok()
        .map(|n| IpAddr::V6(Ipv6Addr::from(n)))
}

/// Name servers of a resolv.conf.
pub fn resolv_conf(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|l| l.trim().strip_prefix("nameserver"))
        .filter_map(|r| r.trim().split('%').next().and_then(|a| a.parse::<IpAddr>().ok()))
        .map(|ip| SocketAddr::new(ip, 53))
        .collect()
}

//! The link to control. The agent always dials: one HTTP/2 connection carries the greeting, the watch
//! stream, the reports and the byte streams. When it breaks, it is dialled again and everything is said anew.

use crate::guests::Guests;
use crate::lease::Fences;
use crate::membership::Io;
use crate::store::{News, Stored};
use crate::{Shared, host_name, lease, tunnel};
use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use haneul_agent_api::{
    Ask, Failure, FailureCode, Greeting, HostAudit, HypervisorInfo, Kind, MAX_LINE, PING_SECONDS, PROTOCOL, Report,
    ToAgent, Welcome, limits, path,
};
use haneul_core::{Error, Result, fault_point, release};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full, Limited};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::io::StreamReader;
use uuid::Uuid;

/// What the link's file begins with while the link is open.
pub(crate) const CONNECTED: &str = "connected";
/// A host that others cannot reach looks for an address so often.
const REACH: Duration = Duration::from_secs(5);
/// Bytes of news that are taken together at the most.
const MAX_TOGETHER: usize = 1 << 20;

pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// The current connection, for those who need bytes from control.
#[derive(Clone, Default)]
pub(crate) struct Handle {
    sender: Arc<Mutex<Option<Sender>>>,
    heard: Arc<AtomicBool>,
}

impl Handle {
    fn set(&self, sender: Option<Sender>) {
        self.set_heard(false);
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = sender;
    }

    fn get(&self) -> Option<Sender> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_heard(&self, heard: bool) {
        self.heard.store(heard, Ordering::SeqCst);
    }

    /// Whether all that control had to say when the connection began is stored, and the connection has not ended since.
    pub fn has_heard(&self) -> bool {
        self.heard.load(Ordering::SeqCst)
    }

    /// Opens the stream of an image.
    pub async fn image(&self, id: Uuid) -> Result<haneul_blockdev::ImageStream, Failure> {
        let unavailable = |detail: String| Failure {
            code: FailureCode::ImageUnavailable,
            message: "the image could not be fetched from the control plane".into(),
            detail,
        };
        let mut sender = self.get().ok_or_else(|| unavailable("no link to control".into()))?;
        let response = request(&mut sender, Method::GET, &format!("{}{id}", path::IMAGE), Bytes::new())
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        if response.status() != StatusCode::OK {
            return Err(unavailable(format!("status {}", response.status())));
        }
        let frames = BodyStream::new(response.into_body()).filter_map(|frame| async {
            match frame {
                Ok(f) => f.into_data().ok().map(Ok),
                Err(e) => Some(Err(std::io::Error::other(e))),
            }
        });
        Ok(Box::pin(StreamReader::new(Box::pin(frames))))
    }
}

async fn request(
    sender: &mut Sender,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<http::Response<hyper::body::Incoming>> {
    sender.ready().await.map_err(Error::internal)?;
    let request = Request::builder()
        .method(method)
        .uri(format!("http://control{path}"))
        .body(Full::new(body))
        .map_err(Error::internal)?;
    sender.send_request(request).await.map_err(Error::internal)
}

/// Speaks HTTP/2 over a connection.
pub(crate) async fn handshake(stream: Box<dyn Io>) -> Result<(Sender, JoinHandle<()>)> {
    let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(Error::internal)?;
    let connection = tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok((sender, connection))
}

/// One message and its answer. What control says when it refuses is the error.
pub(crate) async fn call<T: serde::de::DeserializeOwned>(
    sender: &mut Sender,
    path: &str,
    body: &impl serde::Serialize,
) -> Result<T> {
    let response = request(sender, Method::POST, path, serde_json::to_vec(body)?.into()).await?;
    let status = response.status();
    let bytes = Limited::new(response.into_body(), MAX_LINE)
        .collect()
        .await
        .map_err(|e| Error::unavailable("control's answer was cut off, or is too long").with_private(e))?
        .to_bytes();
    if status != StatusCode::OK {
        let said = String::from_utf8_lossy(&bytes).into_owned();
        let said = if said.is_empty() {
            format!("control answered {status}")
        } else {
            said
        };
        return Err(Error::unavailable(said));
    }
    Ok(serde_json::from_slice(&bytes)?)
}

pub(crate) async fn run(shared: Arc<Shared>, guests: Guests, fences: Fences) {
    let mut pause = 20;
    shared.say_link("not connected yet");
    loop {
        match session(&shared, &guests, &fences, &mut pause).await {
            Ok(()) => shared.say_link("not connected: control ended the stream"),
            Err(e) => {
                let why = shared.control.expired().unwrap_or_else(|| e.public().to_owned());
                shared.say_link(&format!("not connected: {why}"));
                tracing::debug!(error = %e, "no link to control");
            }
        }
        shared.link.set(None);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        pause = (pause * 2).min(1000);
    }
}

async fn session(shared: &Arc<Shared>, guests: &Guests, fences: &Fences, pause: &mut u64) -> Result<()> {
    let (mut sender, connection) = handshake(shared.control.dial().await?).await?;
    let greeting = greeting(shared).await;
    let reached = greeting.underlay.is_some();
    let welcome: Welcome = call(&mut sender, path::GREET, &greeting).await?;
    tracing::info!(release = welcome.release, cloud = %welcome.cloud_id, epoch = welcome.epoch, "control welcomed this host");
    shared.control.heard(&welcome.controls)?;
    *pause = 20;
    shared.say_link(&format!("{CONNECTED} to cloud {}", welcome.cloud_id));
    shared.link.set(Some(sender.clone()));
    guests.report_all().await;
    fences.poke_all();
    for posted in shared.store.passwords() {
        shared.reports.password(posted);
    }
    shared.net_told.forget();
    shared.net_dirty.notify_one();
    let response = request(
        &mut sender,
        Method::GET,
        &format!("{}?host={}", path::WATCH, shared.host_id),
        Bytes::new(),
    )
    .await?;
    if response.status() != StatusCode::OK {
        return Err(Error::unavailable(format!(
            "control refused the watch: {}",
            response.status()
        )));
    }
    let mut renewal = sender.clone();
    let result = tokio::select! {
        r = watch(shared, guests, fences, response.into_body(), &sender) => r,
        r = reports(shared, sender.clone(), welcome.session) => r,
        () = shared.control.keep_certified(&mut renewal) => Ok(()),
        () = shared.comes_within_reach(), if !reached => Err(Error::unavailable("other hosts reach this one now: it greets anew")),
    };
    connection.abort();
    result
}

async fn greeting(shared: &Arc<Shared>) -> Greeting {
    Greeting {
        protocol: PROTOCOL + release::ahead(),
        release: release::name().into(),
        host_id: shared.host_id,
        host_name: host_name(&shared.config),
        boot_id: std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        inventory: shared.inventory().await,
        hypervisor: HypervisorInfo {
            shared_disks: shared.drivers.shared.get().map(|s| s.marker),
            ..shared.drivers.hypervisor.info()
        },
        underlay: shared.drivers.underlay(&shared.config),
    }
}

impl Shared {
    /// Until there is an address at which other hosts reach this one.
    async fn comes_within_reach(&self) {
        while self.drivers.underlay(&self.config).is_none() {
            tokio::time::sleep(REACH).await;
        }
    }

    /// Tells people on this machine how the link is; written only when it is another than before.
    fn say_link(&self, said: &str) {
        let file = self.config.link_file();
        if std::fs::read_to_string(&file).is_ok_and(|before| before == said) {
            return;
        }
        tracing::info!(said, "the link to control");
        if let Err(e) = std::fs::write(&file, said) {
            tracing::warn!(error = %e, "{} could not be written", file.display());
        }
    }

    /// What the host has; what a lab pretends.
    async fn inventory(&self) -> haneul_agent_api::Inventory {
        let agent = &self.config.agent;
        if self.drivers.fake {
            return haneul_agent_api::Inventory {
                vcpus: agent.fake_vcpus,
                memory_mib: agent.fake_memory_mib,
                disk_gib: agent.fake_disk_gib,
            };
        }
        let memory_kib: u64 = std::fs::read_to_string("/proc/meminfo")
            .unwrap_or_default()
            .lines()
            .find_map(|l| {
                l.strip_prefix("MemTotal:")?
                    .trim()
                    .strip_suffix(" kB")?
                    .trim()
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        let disk = self.drivers.newest_block().usage().await.unwrap_or_default();
        haneul_agent_api::Inventory {
            vcpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
            memory_mib: memory_kib / 1024,
            disk_gib: disk.total >> 30,
        }
    }
}

async fn reports(shared: &Arc<Shared>, mut sender: Sender, session: u64) -> Result<()> {
    for number in 1.. {
        let news = shared.reports.take(shared.host_id).await;
        let report = Report {
            session,
            number,
            ..news
        };
        fault_point!("agent.report.taken");
        let sent: Result<haneul_agent_api::Ack> = call(&mut sender, path::REPORT, &report).await;
        if let Err(e) = sent {
            shared.reports.put_back(report);
            return Err(e);
        }
        shared.reports.arrived(&report);
    }
    Ok(())
}

async fn watch(
    shared: &Arc<Shared>,
    guests: &Guests,
    fences: &Fences,
    body: hyper::body::Incoming,
    sender: &Sender,
) -> Result<()> {
    let mut frames = BodyStream::new(body);
    let mut buffer = BytesMut::new();
    loop {
        // Control pings a quiet stream; three missed pings mean that it is gone.
        let frame = tokio::time::timeout(Duration::from_secs(PING_SECONDS * 3), frames.next())
            .await
            .map_err(|_| Error::unavailable("control has not spoken for three pings"))?;
        let Some(frame) = frame else { return Ok(()) };
        let Ok(data) = frame.map_err(Error::internal)?.into_data() else {
            continue;
        };
        buffer.extend_from_slice(&data);
        // What is here already belongs to the same flush.
        while buffer.len() < MAX_TOGETHER
            && let Some(Some(Ok(frame))) = frames.next().now_or_never()
        {
            if let Ok(data) = frame.into_data() {
                buffer.extend_from_slice(&data);
            }
        }
        let (mut news, mut whole) = (Vec::new(), false);
        for line in limits::lines(&mut buffer)? {
            match line {
                ToAgent::Put(d) => news.push(News::Put(d)),
                ToAgent::Remove(t) => news.push(News::Bury(t)),
                ToAgent::Bookmark { .. } => whole = true,
                ToAgent::Ping => {}
                ToAgent::Ask { stream, what } => ask(shared, stream, what, sender),
            }
        }
        if !news.is_empty() {
            take(shared, guests, fences, news).await?;
        }
        if whole {
            shared.link.set_heard(true);
            lease::heard(shared);
        }
    }
}

/// Makes news durable, and wakes whoever acts upon it.
async fn take(shared: &Arc<Shared>, guests: &Guests, fences: &Fences, news: Vec<News>) -> Result<()> {
    let store = shared.clone();
    let touched = tokio::task::spawn_blocking(move || store.store.take(news))
        .await
        .map_err(Error::internal)??;
    for (kind, id, news) in touched {
        match news {
            Stored::Desired => {
                fault_point!("agent.desired.stored");
            }
            Stored::Tombstone => {
                fault_point!("agent.tombstone.stored");
            }
        }
        match kind {
            Kind::Guest => guests.poke(id),
            Kind::Fence => fences.poke(id),
            // All that came before it is stored.
            Kind::Lease => lease::granted(shared)?,
            _ => shared.net_dirty.notify_one(),
        }
    }
    Ok(())
}

fn ask(shared: &Arc<Shared>, stream: Uuid, what: Ask, sender: &Sender) {
    let (shared, mut sender) = (shared.clone(), sender.clone());
    tokio::spawn(async move {
        let tunnel = match what {
            Ask::Vnc { guest } => tunnel::vnc(&shared, stream, guest).await,
            Ask::Snapshot { guest, image } => tunnel::snapshot(&shared, stream, guest, image).await,
            Ask::ConsoleLog { guest, lines } => {
                let log = shared.drivers.hypervisor.console_log(guest, lines).await;
                return send(
                    &mut sender,
                    stream,
                    log.unwrap_or_else(|f| {
                        tracing::warn!(%guest, message = f.message, detail = f.detail, "no console log");
                        Vec::new()
                    }),
                )
                .await;
            }
            Ask::Audit => {
                let found = serde_json::to_vec(&audit(&shared).await).unwrap_or_default();
                return send(&mut sender, stream, found).await;
            }
        };
        // What is sent instead of a tunnel says why there is none.
        if let Err(f) = tunnel {
            tracing::warn!(message = f.message, detail = f.detail, "no tunnel");
            send(&mut sender, stream, f.message.into_bytes()).await;
        }
    });
}

async fn send(sender: &mut Sender, stream: Uuid, bytes: Vec<u8>) {
    let path = format!("{}{stream}", path::STREAM);
    if let Err(e) = request(sender, Method::POST, &path, bytes.into()).await {
        tracing::warn!(error = %e, "an answer to control did not arrive");
    }
}

async fn audit(shared: &Arc<Shared>) -> HostAudit {
    let mut out = HostAudit::default();
    let mut say = |f: Failure| out.findings.push(format!("{} {}", f.message, f.detail));
    let guests = shared.drivers.hypervisor.observe_all().await.unwrap_or_else(|f| {
        say(f);
        vec![]
    });
    let disks = shared.drivers.block.list().await.unwrap_or_else(|f| {
        say(f);
        vec![]
    });
    if let Some(common) = shared.drivers.shared.get() {
        match common.block.list().await {
            Ok(all) => out.shared_disks = all.iter().map(|d| d.guest).collect(),
            Err(f) => say(f),
        }
    }
    let net = shared.drivers.net.observe().await.unwrap_or_else(|f| {
        say(f);
        Default::default()
    });
    use haneul_agent_api::GuestState::{Paused, Running};
    out.running = guests
        .iter()
        .filter(|g| matches!(g.state, Running | Paused))
        .map(|g| g.id)
        .collect();
    out.records = guests.iter().map(|g| g.id).collect();
    out.disks = disks.iter().map(|d| d.guest).collect();
    out.ports = net.ports;
    out.networks = net.networks;
    out.routers = net.routers;
    out.findings
        .extend(net.strays.into_iter().map(|s| format!("stray on the host: {s}")));
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stdout)]
mod tests {
    use super::*;
    use crate::nets::tests::Lab;
    use haneul_testkit::Dice;
    use limits::lines;

    /// A host may be there before its address.
    #[test]
    fn a_host_greets_with_the_address_that_it_has_by_then() {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return;
        }
        let out = std::process::Command::new("unshare")
            .arg("-n")
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "link::tests::addressless"])
            .env("ADDRESSLESS", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success() && said.contains("1 passed"), "{said}");
    }

    /// Not a test: the agent that is alone on its machine, in the one above.
    #[tokio::test]
    async fn addressless() {
        if std::env::var_os("ADDRESSLESS").is_none() {
            return;
        }
        let shared = Lab::new().shared.clone();
        assert_eq!(greeting(&shared).await.underlay, None);
        let short = Duration::from_millis(100);
        assert!(tokio::time::timeout(short, shared.comes_within_reach()).await.is_err());
        let there =
            "ip link add u0 mtu 1400 type veth peer name u1 && ip link set u0 up && ip addr add 192.0.2.77/24 dev u0";
        let done = std::process::Command::new("sh").args(["-c", there]).status().unwrap();
        assert!(done.success());
        let found = tokio::time::timeout(4 * REACH, shared.comes_within_reach()).await;
        assert!(found.is_ok(), "the address is not found");
        let now = greeting(&shared).await.underlay.unwrap();
        assert_eq!((now.address.to_string().as_str(), now.mtu), ("192.0.2.77", 1400));
        assert_eq!(shared.drivers.underlay.get(), Some(&now), "the drivers know it, too");
    }

    /// One of each kind.
    const SAID: [&str; 6] = [
        r#"{"type":"ping"}"#,
        r#"{"type":"bookmark","sequence":7}"#,
        r#"{"type":"ask","stream":"6f1d6a36-6a4e-4d0b-9d8e-1b7d8d2f2a01","what":{"ask":"console_log","guest":"6f1d6a36-6a4e-4d0b-9d8e-1b7d8d2f2a02","lines":9}}"#,
        r#"{"type":"remove","kind":"guest","id":"6f1d6a36-6a4e-4d0b-9d8e-1b7d8d2f2a03","epoch":1,"generation":4,"disks":true}"#,
        r#"{"type":"put","epoch":1,"generation":3,"object":{"kind":"lease","doc":{"id":"6f1d6a36-6a4e-4d0b-9d8e-1b7d8d2f2a04","token":5}}}"#,
        r#"{"type":"put","epoch":1,"generation":3,"object":{"kind":"guest","doc":{"id":"6f1d6a36-6a4e-4d0b-9d8e-1b7d8d2f2a05","name":"g","project_id":"p","vcpus":1,"memory_mib":1,"power":"running","metadata":{"hostname":"g"},"root":{"image":{"id":"6f1d6a36-6a4e-4d0b-9d8e-1b7d8d2f2a06","format":"raw","size":1,"virtual_size":1,"sha512":""},"size_gib":1}}}}"#,
    ];

    /// Whatever comes is whole lines of the protocol, or ends the link and says why; nothing is held that is longer than a
    /// line may be.
    #[test]
    fn lines_that_are_none_end_the_link() {
        for said in SAID {
            assert_eq!(
                lines(&mut BytesMut::from(format!("{said}\n").as_str())).unwrap().len(),
                1
            );
        }
        let mut dice = Dice::new(9);
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let mut line = dice.pick(&SAID).as_bytes().to_vec();
            dice.spoil(&mut line);
            line.push(b'\n');
            let mut buffer = BytesMut::from(line.as_slice());
            match lines(&mut buffer) {
                Ok(all) => taken += all.len(),
                Err(e) => {
                    refused += 1;
                    assert!(e.public().contains("protocol"), "{}", e.public());
                }
            }
        }
        assert!(taken > 1000 && refused > 1000, "{taken} taken, {refused} refused");
        let deep = [b"[".repeat(100_000), b"\n".to_vec()].concat();
        assert!(lines(&mut BytesMut::from(deep.as_slice())).is_err());
        // With its end or without: too long.
        let mut long = BytesMut::from(vec![b' '; MAX_LINE + 1].as_slice());
        assert!(lines(&mut long).unwrap_err().public().contains("longer than"));
        long.extend_from_slice(b"\n");
        assert!(lines(&mut long).unwrap_err().public().contains("longer than"));
        // What is not whole yet waits.
        let mut half = BytesMut::from(&b"{\"type\":\"ping\"}\n{\"type\""[..]);
        assert_eq!(lines(&mut half).unwrap().len(), 1);
        assert_eq!(half.len(), 7);
    }
}

//! Several hosts for the real lane: this machine, and network namespaces of it that join over a wire. And what goes on
//! through a floating IP while a server moves: a login that counts, and a stream.

use haneul_testkit::{Client, Cloud, Member};
use nix::sched::{CloneFlags, setns};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn ok(command: &str) {
    let out = Command::new("sh").arg("-c").arg(command).output().unwrap();
    assert!(
        out.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// The address of the first host, this machine, on the wire; the others count on from it.
pub const FIRST: &str = "10.98.7.1";

/// A host beside this machine.
pub struct Machine {
    pub name: String,
    number: usize,
    ns: String,
    /// Its end of the wire on this side.
    port: String,
    member: Option<Member>,
}

impl Machine {
    pub fn member(&mut self) -> &mut Member {
        self.member.as_mut().expect("it has joined")
    }

    /// Where it keeps its state.
    pub fn dir(&self) -> PathBuf {
        self.member.as_ref().expect("it has joined").dir.clone()
    }

    pub async fn join(&mut self, cloud: &Cloud, sets: &[String]) {
        // Guests of hosts that share disks differ in their users, as one kernel sees them all.
        let mut all = vec![
            format!("agent.underlay=10.98.7.{}", self.number),
            format!("agent.first_uid={}", 700_000_000 + 10_000_000 * self.number),
        ];
        all.extend_from_slice(sets);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        self.member = Some(Member::join(cloud, &self.name, Some(&self.ns), &all).await);
    }

    /// It is gone without a word: nothing of it ends, and nothing from it arrives.
    pub fn cut(&self) {
        ok(&format!("ip link set {} down", self.port));
    }

    pub fn mend(&self) {
        ok(&format!("ip link set {} up", self.port));
    }

    /// A command in its network.
    pub fn enter(&self, command: Command) -> Command {
        let mut c = Command::new("nsenter");
        c.arg(format!("--net=/run/netns/{}", self.ns));
        c.arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null());
        c
    }

    /// A connection from its network.
    fn dial(&self, to: &str) -> TcpStream {
        let (ns, to) = (format!("/run/netns/{}", self.ns), to.to_owned());
        // A thread of its own, for it stays in that network.
        let dialled = std::thread::spawn(move || {
            setns(std::fs::File::open(ns).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            dial(&to)
        });
        dialled.join().expect("a connection")
    }
}

fn dial(to: &str) -> TcpStream {
    TcpStream::connect_timeout(&to.parse().unwrap(), Duration::from_secs(10)).unwrap()
}

/// The machines, and the wire between them.
pub struct Machines {
    bridge: String,
    pub others: Vec<Machine>,
}

impl Machines {
    /// This machine gets [`FIRST`]; beside it is one for each name.
    pub fn beside(names: &[&str]) -> Machines {
        let tag = format!("t{}", &haneul_core::id::hex()[..6]);
        let bridge = format!("{tag}-b");
        ok(&format!(
            "ip link add {bridge} type bridge && ip addr add {FIRST}/24 dev {bridge} && ip link set {bridge} up"
        ));
        let mut machines = Machines {
            bridge: bridge.clone(),
            others: Vec::new(),
        };
        for (at, name) in names.iter().enumerate() {
            let number = at + 2;
            let (ns, port) = (format!("{tag}-{name}"), format!("{tag}-{number}"));
            ok(&format!(
                "ip netns add {ns} && ip -n {ns} link set lo up && ip link add {port} type veth peer name u0 netns {ns} &&
                 ip link set {port} master {bridge} up && ip -n {ns} addr add 10.98.7.{number}/24 dev u0 && ip -n {ns} link set u0 up"
            ));
            machines.others.push(Machine {
                name: (*name).to_owned(),
                number,
                ns,
                port,
                member: None,
            });
        }
        machines
    }

    /// None: this machine.
    fn find(&self, name: &str) -> Option<&Machine> {
        self.others.iter().find(|m| m.name == name)
    }

    pub fn other(&mut self, name: &str) -> &mut Machine {
        self.others.iter_mut().find(|m| m.name == name).expect("another host")
    }

    /// A command in the network of a host.
    pub fn on(&self, host: &str, command: Command) -> Command {
        match self.find(host) {
            Some(machine) => machine.enter(command),
            None => command,
        }
    }

    /// A connection from a host.
    pub fn dial(&self, host: &str, to: &str) -> TcpStream {
        match self.find(host) {
            Some(machine) => machine.dial(to),
            None => dial(to),
        }
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in &mut self.others {
            drop(machine.member.take());
            let _ = Command::new("ip").args(["netns", "del", &machine.ns]).output();
            let _ = Command::new("ip").args(["link", "del", &machine.port]).output();
        }
        let _ = Command::new("ip").args(["link", "del", &self.bridge]).output();
    }
}

/// Says a number every 50 ms, and waits for nobody.
pub const COUNT: &str = "i=0; while true; do i=$((i+1)); echo $i; sleep 0.05; done";

/// A login that counts, and what is heard of it.
pub struct Counting {
    ssh: Child,
    heard: Receiver<(u64, Instant)>,
    last: (u64, Instant),
    /// The longest silence.
    pub longest: Duration,
}

impl Counting {
    pub fn start(mut ssh: Command) -> Counting {
        let mut ssh = ssh.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(ssh.stdout.take().unwrap()).lines();
        let (say, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if say.send((line.trim().parse().unwrap(), Instant::now())).is_err() {
                    break;
                }
            }
        });
        let first = heard.recv_timeout(Duration::from_secs(30)).expect("the login counts");
        Counting {
            ssh,
            heard,
            last: first,
            longest: Duration::ZERO,
        }
    }

    /// Hears all that was said so far and ten numbers more, of the same session: none is missing.
    pub fn goes_on(&mut self) {
        let mut more = 10;
        while more > 0 {
            let next = match self.heard.try_recv() {
                Ok(n) => n,
                Err(_) => {
                    more -= 1;
                    self.heard
                        .recv_timeout(Duration::from_secs(20))
                        .expect("the session lives")
                }
            };
            assert_eq!(next.0, self.last.0 + 1);
            self.longest = self.longest.max(next.1 - self.last.1);
            self.last = next;
        }
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = self.ssh.kill();
        let _ = self.ssh.wait();
    }
}

/// What a guest runs to give back what it gets on [`ECHO_PORT`].
pub const ECHO: &str = "nc -ll -p 5001 -e cat > /dev/null 2>&1 < /dev/null &";
pub const ECHO_PORT: u16 = 5001;
/// Numbers in each piece of a [`Stream`].
const PIECE: usize = 1024;
const PACE: Duration = Duration::from_millis(10);

/// A steady stream of numbers to a guest and back, some 800 KB/s each way, over one TCP connection.
pub struct Stream {
    end: Arc<AtomicBool>,
    heard: Arc<Heard>,
    writer: JoinHandle<u64>,
    reader: JoinHandle<()>,
}

#[derive(Default)]
struct Heard {
    numbers: AtomicU64,
    /// The longest time between two reads, in microseconds.
    longest: AtomicU64,
}

impl Stream {
    pub fn start(socket: TcpStream) -> Stream {
        let (end, heard) = (Arc::new(AtomicBool::new(false)), Arc::new(Heard::default()));
        let (mut to, mut from) = (socket.try_clone().unwrap(), socket);
        from.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let ended = end.clone();
        let writer = std::thread::spawn(move || {
            let mut next = 0u64;
            while !ended.load(Ordering::Relaxed) {
                let piece: Vec<u8> = (next..next + PIECE as u64).flat_map(u64::to_be_bytes).collect();
                to.write_all(&piece).expect("the stream takes more");
                next += PIECE as u64;
                std::thread::sleep(PACE);
            }
            to.shutdown(Shutdown::Write).unwrap();
            next
        });
        let counts = heard.clone();
        let reader = std::thread::spawn(move || {
            let (mut bytes, mut kept) = (vec![0; 8 * PIECE], 0);
            let (mut last, mut next) = (Instant::now(), 0u64);
            loop {
                let n = from.read(&mut bytes[kept..]).expect("the stream goes on");
                if n == 0 {
                    return;
                }
                let silent = last.elapsed().as_micros() as u64;
                last = Instant::now();
                counts.longest.fetch_max(silent, Ordering::Relaxed);
                kept += n;
                let whole = kept / 8 * 8;
                for number in bytes[..whole].chunks_exact(8) {
                    assert_eq!(number, next.to_be_bytes(), "the number after {next} others");
                    next += 1;
                }
                bytes.copy_within(whole..kept, 0);
                kept -= whole;
                counts.numbers.store(next, Ordering::Relaxed);
            }
        });
        Stream {
            end,
            heard,
            writer,
            reader,
        }
    }

    /// Waits for a second's worth of it; answers the longest silence since this was asked last.
    pub fn goes_on(&self) -> Duration {
        let heard = || self.heard.numbers.load(Ordering::Relaxed);
        let enough = heard() + 100 * PIECE as u64;
        while heard() < enough {
            assert!(!self.reader.is_finished(), "the stream has ended");
            std::thread::sleep(PACE);
        }
        Duration::from_micros(self.heard.longest.swap(0, Ordering::Relaxed))
    }

    /// All that was sent has come back.
    pub fn end(self) {
        self.end.store(true, Ordering::Relaxed);
        let sent = self.writer.join().expect("the stream took all");
        self.reader.join().expect("the stream came back");
        assert_eq!(self.heard.numbers.load(Ordering::Relaxed), sent);
    }
}

/// Compute takes new servers only to this host.
pub async fn only(admin: &Client, host: &str) {
    let all = admin
        .get("/compute/v2.1/os-services?binary=nova-compute")
        .await
        .expect(200);
    for s in all["services"].as_array().unwrap() {
        let status = if s["host"] == host { "enabled" } else { "disabled" };
        let path = format!("/compute/v2.1/os-services/{}", s["id"].as_str().unwrap());
        admin.put(&path, &json!({"status": status})).await.expect(200);
    }
}

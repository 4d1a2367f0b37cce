//! What breaks, and comes back: control's processes, agents, supervisors, whole hosts, links.

use super::World;
use super::truth::{Place, records};
use haneul_testkit::postgres::Postgres;
use haneul_testkit::{Cloud, Dice, Member, Wire};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// All of the product's fault points.
const POINTS: &str = include_str!("../../../../../docs/fault-points.txt");
/// Steps of jobs have points, too.
const STEPS: [&str; 14] = [
    "server.create.await-host",
    "server.delete.await-gone",
    "server.live-migration.prepare",
    "server.live-migration.send",
    "server.live-migration.finish",
    "server.live-migration-back.await-gone",
    "server.live-migration-back.restore",
    "server.migrate.halt",
    "server.migrate.hold",
    "server.migrate.prepare",
    "server.migrate.send",
    "server.migrate.finish",
    "server.migrate.land",
    "server.evacuate.await-host",
];
/// A point that nobody has passed by then is let go.
const ARMED: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// kill -9; the supervisor starts it again.
    Serve,
    Agent,
    /// Both processes of control's machine at once.
    Both,
    Lease,
    /// A host loses its power, and has it again later.
    Loss,
    Cut,
    /// kill -9 where a process passes a point.
    Armed,
    /// PostgreSQL ends at once, as in a power cut, and comes back.
    Database,
}

/// Where it breaks: control's own machine, or a member.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Control,
    Member(usize),
}

/// A host that joined, with what is wrong with it now.
pub struct Joined {
    pub member: Member,
    pub wire: Wire,
    /// It has a lease.
    pub shares: bool,
    /// Without power until then.
    lost: Option<Instant>,
    cut: Option<Instant>,
    lease: Option<Instant>,
}

impl Joined {
    pub fn new(member: Member, wire: Wire, shares: bool) -> Joined {
        Joined {
            member,
            wire,
            shares,
            lost: None,
            cut: None,
            lease: None,
        }
    }
}

/// See the module.
pub struct Chaos {
    pub world: Arc<World>,
    pub dice: Dice,
    pub cloud: Cloud,
    pub hosts: Vec<Joined>,
    /// The agent of control's machine is off until then.
    lost: Option<Instant>,
    armed: Option<(At, Instant)>,
    pub faults: usize,
    /// The database, when it is PostgreSQL, and until when it is dead.
    postgres: Option<Postgres>,
    database: Option<Instant>,
    /// A dead process is started again then.
    revival: Option<Instant>,
}

impl Chaos {
    pub fn new(world: &Arc<World>, cloud: Cloud, hosts: Vec<Joined>, postgres: Option<Postgres>) -> Chaos {
        Chaos {
            world: world.clone(),
            dice: Dice::of(world.seed, 1),
            cloud,
            hosts,
            lost: None,
            armed: None,
            faults: 0,
            postgres,
            database: None,
            revival: None,
        }
    }

    /// All hosts.
    pub fn places(&self) -> Vec<Place> {
        let members = self.hosts.iter().map(|h| (h.member.name.clone(), h.member.dir.clone()));
        std::iter::once(("zero".to_owned(), self.cloud.dir.clone()))
            .chain(members)
            .map(|(name, dir)| Place { name, dir })
            .collect()
    }

    /// So many faults more.
    pub async fn rage(&mut self, faults: usize) {
        let end = self.faults + faults;
        let mut next = Instant::now();
        while self.faults < end {
            self.world.check();
            self.mend(false);
            if Instant::now() >= next {
                self.fault();
                next = Instant::now() + Duration::from_millis(self.dice.range(50, 400));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything works again.
    pub fn heal(&mut self) {
        self.disarm();
        self.mend(true);
        self.world.say("healed");
    }

    fn later(&mut self, from: u64, to: u64) -> Option<Instant> {
        Some(Instant::now() + Duration::from_millis(self.dice.range(from, to)))
    }

    /// One fault, unless what would break is broken already.
    fn fault(&mut self) {
        let all = [
            (6, Fault::Serve),
            (3, Fault::Agent),
            (2, Fault::Both),
            (2, Fault::Lease),
            (4, Fault::Loss),
            (4, Fault::Cut),
            (12, Fault::Armed),
            (if self.postgres.is_some() { 4 } else { 0 }, Fault::Database),
        ];
        let fault = *self.dice.weighted(&all);
        let n = self.dice.range(0, self.hosts.len() as u64 + 1) as usize;
        let at = n.checked_sub(1).map_or(At::Control, At::Member);
        let done = match (fault, at) {
            (Fault::Serve, At::Control) => {
                self.cloud.kill_serve();
                self.hit("serve is killed")
            }
            (Fault::Both, At::Control) => {
                self.cloud.kill_serve();
                self.cloud.kill_agent();
                self.hit("serve and its host's agent are killed")
            }
            (Fault::Armed, at) => self.arm(at),
            (Fault::Agent, At::Control) => {
                self.cloud.kill_agent();
                self.hit("the agent of zero is killed")
            }
            (Fault::Loss, At::Control) if self.lost.is_none() => {
                self.cloud.kill_agent();
                lose_power(&self.cloud.dir);
                self.lost = self.later(1000, 6000);
                self.hit("zero is lost, but for control")
            }
            (Fault::Database, _) => match &mut self.postgres {
                Some(postgres) if self.database.is_none() => {
                    postgres.kill();
                    self.database = self.later(10, 1500);
                    self.hit("PostgreSQL is killed")
                }
                _ => false,
            },
            (fault, At::Member(n)) => self.fault_of(fault, n),
            _ => false,
        };
        self.faults += usize::from(done);
    }

    fn fault_of(&mut self, fault: Fault, n: usize) -> bool {
        let (short, long) = (self.later(100, 800), self.later(1000, 9000));
        let h = &mut self.hosts[n];
        let name = h.member.name.clone();
        if h.lost.is_some() {
            return false;
        }
        match fault {
            // A supervisor that died and an agent that died with it are what systemd is there for.
            Fault::Agent if h.lease.is_none() => {
                h.member.kill_agent();
                self.hit(&format!("the agent of {name} is killed"))
            }
            Fault::Lease if h.shares && h.lease.is_none() => {
                h.member.kill_lease();
                h.lease = short;
                self.hit(&format!("the supervisor of {name} is killed"))
            }
            Fault::Loss => {
                h.member.kill();
                lose_power(&h.member.dir);
                (h.lost, h.lease) = (long, None);
                self.hit(&format!("{name} is lost"))
            }
            Fault::Cut if h.cut.is_none() => {
                h.wire.cut();
                h.cut = long;
                self.hit(&format!("{name} is cut off"))
            }
            _ => false,
        }
    }

    fn hit(&self, what: &str) -> bool {
        self.world.say(format!("FAULT {}: {what}", self.faults + 1));
        true
    }

    /// Arms a point; it is a fault when somebody has died of it.
    fn arm(&mut self, at: At) -> bool {
        if self.armed.is_some() {
            return false;
        }
        let host = ["agent.", "hypervisor.fake.", "blockdev.image"];
        let control = ["compute.", "fleet.", "store."];
        let wanted = |point: &&str| {
            let of = |all: [&str; 3]| all.iter().any(|prefix| point.starts_with(prefix));
            of(host) || (at == At::Control && of(control))
        };
        let points = POINTS.lines().skip(1).filter_map(|l| l.split_whitespace().next());
        let mut all: Vec<String> = points.filter(wanted).map(str::to_owned).collect();
        if at == At::Control {
            all.extend(STEPS.map(|s| format!("job.{s}")));
        }
        let armed = format!("{}=kill:{}", self.dice.pick(&all).clone(), self.dice.range(0, 3));
        match at {
            At::Control => self.cloud.arm(&armed),
            At::Member(n) if self.hosts[n].lost.is_none() && self.hosts[n].lease.is_none() => {
                self.hosts[n].member.arm(&armed);
            }
            At::Member(_) => return false,
        }
        self.world.say(format!("{at:?} is armed: {armed}"));
        self.armed = Some((at, Instant::now()));
        false
    }

    fn disarm(&mut self) {
        if let Some((at, _)) = self.armed.take() {
            match at {
                At::Control => self.cloud.disarm(),
                At::Member(n) => self.hosts[n].member.disarm(),
            }
        }
    }

    /// Ends what has lasted long enough, or all of it, and starts what has died, as supervisors do.
    fn mend(&mut self, all: bool) {
        let over = |until: &Option<Instant>| until.is_some_and(|t| all || Instant::now() >= t);
        if let Some((at, since)) = self.armed {
            let armed = match at {
                At::Control => self.cloud.armed(),
                At::Member(n) => self.hosts[n].member.armed(),
            };
            if armed.is_empty() {
                self.armed = None;
                self.hit(&format!("{at:?} died where it was armed"));
                self.faults += 1;
            } else if since.elapsed() > ARMED {
                self.disarm();
            }
        }
        if over(&self.database)
            && let Some(postgres) = &mut self.postgres
        {
            self.database = None;
            postgres.restart().expect("PostgreSQL starts again");
            self.world.say("PostgreSQL is started");
        }
        if over(&self.lost) {
            self.lost = None;
        }
        for h in &mut self.hosts {
            if over(&h.cut) {
                h.cut = None;
                h.wire.mend();
                self.world.say(format!("{} is connected", h.member.name));
            }
            if over(&h.lease) {
                h.lease = None;
                h.member.start_lease();
            }
            if over(&h.lost) {
                h.lost = None;
                if h.shares {
                    h.member.start_lease();
                }
                self.world.say(format!("{} has power", h.member.name));
            }
        }
        if !all && self.revival.is_some_and(|t| Instant::now() < t) {
            return;
        }
        self.revival = self.later(50, 300);
        if self.cloud.revive_serve() {
            self.world.say("serve is started");
        }
        if self.lost.is_none() && self.cloud.revive_agent() {
            self.world.say("the agent of zero is started");
        }
        for h in self.hosts.iter_mut().filter(|h| h.lost.is_none()) {
            if h.member.revive() {
                self.world.say(format!("the agent of {} is started", h.member.name));
            }
        }
    }
}

/// What a power cut does to fake guests: their processes are gone.
fn lose_power(dir: &Path) {
    for (id, mut record) in records(dir) {
        if record["state"] != "suspended" {
            record["state"] = "stopped".into();
            let path = dir.join("agent/guests").join(format!("{id}.json"));
            std::fs::write(path, record.to_string()).expect("a record");
        }
    }
    std::fs::write(dir.join("agent/boot-id"), "the boot before").expect("a file");
}

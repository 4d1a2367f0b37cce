//! What breaks, and comes back: control's processes, agents, supervisors, whole hosts, links.

use super::{Lab, World};
use haneul_testkit::Dice;
use haneul_testkit::postgres::Postgres;
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
    /// kill -9 of the other process of control.
    Second,
}

/// Where it breaks: control's own machine, or a member.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Control,
    Member(usize),
}

/// What is wrong with a member now, and until when.
#[derive(Default)]
struct Trouble {
    /// It has no power.
    lost: Option<Instant>,
    cut: Option<Instant>,
    lease: Option<Instant>,
}

/// See the module.
pub struct Chaos<L> {
    pub world: Arc<World>,
    dice: Dice,
    pub lab: L,
    members: Vec<Trouble>,
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

impl<L: Lab> Chaos<L> {
    pub fn new(world: &Arc<World>, lab: L, postgres: Option<Postgres>) -> Chaos<L> {
        Chaos {
            world: world.clone(),
            dice: Dice::of(world.seed, 1),
            members: (0..lab.members()).map(|_| Trouble::default()).collect(),
            lab,
            lost: None,
            armed: None,
            faults: 0,
            postgres,
            database: None,
            revival: None,
        }
    }

    /// So many faults more.
    pub async fn rage(&mut self, faults: usize) {
        let end = self.faults + faults;
        // Real guests take their time to be there: nothing breaks before.
        let mut next = Instant::now() + Duration::from_secs(1) * (L::PACE - 1);
        while self.faults < end {
            self.world.check();
            self.mend(false);
            if Instant::now() >= next {
                self.fault();
                next = Instant::now() + self.paced(50, 400);
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

    fn paced(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.dice.range(from, to)) * L::PACE
    }

    fn later(&mut self, from: u64, to: u64) -> Option<Instant> {
        Some(Instant::now() + self.paced(from, to))
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
            (if self.lab.second().is_some() { 5 } else { 0 }, Fault::Second),
        ];
        let fault = *self.dice.weighted(&all);
        let n = self.dice.range(0, self.members.len() as u64 + 1) as usize;
        let at = n.checked_sub(1).map_or(At::Control, At::Member);
        let done = match (fault, at) {
            (Fault::Serve, At::Control) => {
                self.lab.cloud().kill_serve();
                self.hit("serve is killed")
            }
            (Fault::Both, At::Control) => {
                self.lab.cloud().kill_serve();
                self.lab.cloud().kill_agent();
                self.hit("serve and its host's agent are killed")
            }
            (Fault::Armed, at) => self.arm(at),
            (Fault::Agent, At::Control) => {
                self.lab.cloud().kill_agent();
                self.hit("the agent of control's machine is killed")
            }
            (Fault::Loss, At::Control) if self.lost.is_none() => {
                self.lab.cloud().kill_agent();
                lose_power::<L>(&self.lab.cloud().dir);
                self.lost = self.later(1000, 6000);
                self.hit("control's machine is lost, but for control")
            }
            (Fault::Database, _) => match &mut self.postgres {
                Some(postgres) if self.database.is_none() => {
                    postgres.kill();
                    self.database = Some(Instant::now() + Duration::from_millis(self.dice.range(10, 1500)));
                    self.hit("PostgreSQL is killed")
                }
                _ => false,
            },
            (Fault::Second, _) => match self.lab.second() {
                Some((second, _)) => {
                    second.kill();
                    self.hit("the second serve is killed")
                }
                None => false,
            },
            (fault, At::Member(n)) => self.fault_of(fault, n),
            _ => false,
        };
        self.faults += usize::from(done);
    }

    fn fault_of(&mut self, fault: Fault, n: usize) -> bool {
        // A supervisor is started again at once, whatever else takes its time.
        let short = Some(Instant::now() + Duration::from_millis(self.dice.range(100, 800)));
        let long = self.later(1000, 9000);
        let (shares, member) = (self.lab.shares(n), self.lab.member(n));
        let (name, dir) = (member.name.clone(), member.dir.clone());
        let trouble = &mut self.members[n];
        if trouble.lost.is_some() {
            return false;
        }
        match fault {
            // A supervisor that died and an agent that died with it are what systemd is there for.
            Fault::Agent if trouble.lease.is_none() => {
                member.kill_agent();
                self.hit(&format!("the agent of {name} is killed"))
            }
            Fault::Lease if shares && trouble.lease.is_none() => {
                member.kill_lease();
                trouble.lease = short;
                self.hit(&format!("the supervisor of {name} is killed"))
            }
            Fault::Loss => {
                member.kill();
                lose_power::<L>(&dir);
                *trouble = Trouble {
                    lost: long,
                    ..Trouble::default()
                };
                self.lab.link(n, false);
                self.hit(&format!("{name} is lost"))
            }
            Fault::Cut if trouble.cut.is_none() => {
                trouble.cut = long;
                self.lab.link(n, false);
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
        let control = ["compute.", "fleet.", "store."];
        let wanted = |point: &&str| {
            let of = |all: &[&str]| all.iter().any(|prefix| point.starts_with(prefix));
            of(L::POINTS) || (at == At::Control && of(&control))
        };
        let points = POINTS.lines().skip(1).filter_map(|l| l.split_whitespace().next());
        let mut all: Vec<String> = points.filter(wanted).map(str::to_owned).collect();
        if at == At::Control {
            all.extend(STEPS.map(|s| format!("job.{s}")));
        }
        let armed = format!("{}=kill:{}", self.dice.pick(&all).clone(), self.dice.range(0, 3));
        match at {
            At::Control => self.lab.cloud().arm(&armed),
            At::Member(n) if self.members[n].lost.is_none() && self.members[n].lease.is_none() => {
                self.lab.member(n).arm(&armed);
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
                At::Control => self.lab.cloud().disarm(),
                At::Member(n) => self.lab.member(n).disarm(),
            }
        }
    }

    /// Ends what has lasted long enough, or all of it, and starts what has died, as supervisors do.
    fn mend(&mut self, all: bool) {
        let over = |until: &Option<Instant>| until.is_some_and(|t| all || Instant::now() >= t);
        if let Some((at, since)) = self.armed {
            let armed = match at {
                At::Control => self.lab.cloud().armed(),
                At::Member(n) => self.lab.member(n).armed(),
            };
            if armed.is_empty() {
                self.armed = None;
                self.hit(&format!("{at:?} died where it was armed"));
                self.faults += 1;
            } else if since.elapsed() > ARMED * L::PACE {
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
        for (n, trouble) in self.members.iter_mut().enumerate() {
            if over(&trouble.cut) {
                trouble.cut = None;
                self.lab.link(n, true);
                self.world.say(format!("{} is connected", self.lab.member(n).name));
            }
            if over(&trouble.lease) {
                trouble.lease = None;
                self.lab.member(n).start_lease();
            }
            if over(&trouble.lost) {
                trouble.lost = None;
                self.lab.link(n, true);
                if self.lab.shares(n) {
                    self.lab.member(n).start_lease();
                }
                self.world.say(format!("{} has power", self.lab.member(n).name));
            }
        }
        if !all && self.revival.is_some_and(|t| Instant::now() < t) {
            return;
        }
        self.revival = self.later(50, 300);
        if self.lab.cloud().revive_serve() {
            self.world.say("serve is started");
        }
        if let Some((second, cloud)) = self.lab.second()
            && second.revive(cloud)
        {
            self.world.say("the second serve is started");
        }
        if self.lost.is_none() && self.lab.cloud().revive_agent() {
            self.world.say("the agent of control's machine is started");
        }
        for n in (0..self.members.len()).filter(|n| self.members[*n].lost.is_none()) {
            let member = self.lab.member(n);
            if member.revive() {
                self.world.say(format!("the agent of {} is started", member.name));
            }
        }
    }
}

/// A machine that had no power comes back in another boot, and without its guests.
fn lose_power<L: Lab>(dir: &Path) {
    L::lose_guests(dir);
    std::fs::write(dir.join("agent/boot-id"), "the boot before").expect("a file");
}

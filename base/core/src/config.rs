//! Configuration: one TOML file, every key optional, unknown keys refused with the nearest known name;
//! `HANEUL_SECTION__KEY` in the environment and `--set section.key=value` override, in that order.

mod checks;

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The whole configuration.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything is kept: `control/` (0700, user haneul), `agent/` (root), `run/` (sockets).
    pub state_dir: StateDir,
    /// What is the cloud's and no single machine's: keys, images, the first password. Default: `state_dir`/control. When
    /// several processes serve one PostgreSQL on several machines it is a directory that they share (NFS, CephFS).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_dir: Option<PathBuf>,
    /// Allows the fake drivers, fault points and a clock that can be moved. Never on a real cloud.
    pub lab: bool,
    pub api: Api,
    pub tls: Tls,
    pub fleet: Fleet,
    pub database: Database,
    pub identity: Identity,
    pub security_compliance: SecurityCompliance,
    pub accounts: Accounts,
    pub image: Image,
    pub network: Network,
    pub compute: Compute,
    pub scheduler: Scheduler,
    pub balance: Balance,
    pub agent: Agent,
    pub ha: Ha,
    pub log: Log,
}

/// A path with a default.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StateDir(pub PathBuf);

impl Default for StateDir {
    fn default() -> Self {
        Self("/var/lib/haneul".into())
    }
}

/// A directory of images (`image.stores`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageStore {
    /// Letters, digits, `-` and `_`.
    pub id: String,
    /// For people.
    pub description: String,
    /// Default: `state_dir`/control/image-stores/ID.
    pub directory: Option<PathBuf>,
    /// Where images go that name no store; default: `file`.
    pub default: bool,
    /// Images are read from here and none is stored.
    pub read_only: bool,
}

/// Another region's image service (`image.regions`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageRegion {
    /// As clients name it.
    pub name: String,
    /// Base URL, without `/v2`.
    pub url: String,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $t:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$fdoc])* pub $field: $t,)* }
        impl Default for $name {
            fn default() -> Self { Self { $($field: $default,)* } }
        }
    };
}

section!(
    /// The HTTP side.
    Api {
        /// Address of all services. On any other than loopback it speaks TLS only.
        listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8774)),
        /// Prometheus metrics, a listener of its own.
        metrics_listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8775)),
        /// Base of the URLs in the catalog; default `http://LISTEN`, with TLS `https://LISTEN`.
        public_url: Option<String> = None,
        /// Longest JSON body, bytes.
        max_body_bytes: usize = 1 << 20,
        /// Rows on a page at the most.
        max_limit: i64 = 1000,
        /// Rules of oslo.policy that take the place of the built-in ones, for all services: a YAML or JSON file
        /// of `"name": "check"`. Read at start; docs/routes.txt names the rule of every route.
        policy_file: Option<PathBuf> = None,
        /// Name of the region in the catalog.
        region: String = "RegionOne".into(),
    }
);
section!(
    /// TLS of `api` and its metrics. It is on when one of them, or `fleet`, listens on an address other than loopback, or
    /// when a certificate is given; without one, the cloud's own authority makes it (`haneul up` hands its certificate to
    /// clients).
    Tls {
        /// Certificate chain, PEM. Read again when it changes.
        certificate: Option<PathBuf> = None,
        /// Its key, PEM, readable for user haneul.
        key: Option<PathBuf> = None,
        /// Names and addresses of our own certificate, beside those of the listeners and of `api.public_url`.
        names: Vec<String> = vec![],
    }
);
section!(
    /// Hosts on other machines.
    Fleet {
        /// Where their agents dial, TLS with certificates on both sides; default: there are none.
        listen: Option<SocketAddr> = None,
        /// Where hosts find that, when it is not `https://LISTEN`: behind a translated address, or by a name.
        url: Option<String> = None,
    }
);
section!(
    /// Where state is kept.
    Database {
        /// `sqlite:PATH` or `postgres://user@host/db`; default: SQLite in `state_dir`/control.
        url: Option<String> = None,
        /// Reading connections.
        readers: u32 = 4,
    }
);
section!(
    /// Keystone.
    Identity {
        /// bcrypt cost for new passwords, 4 to 31.
        bcrypt_rounds: u32 = 12,
        /// Life of a token, seconds.
        token_seconds: i64 = 3600,
        /// Days between rotations of the Fernet keys.
        fernet_rotation_days: i64 = 30,
        /// How unified limits are looked at: `flat`, or `strict_two_level`, in which a project stands right below its
        /// domain and has no more than that.
        limit_model: String = "flat".into(),
    }
);
section!(
    /// What passwords must be, and when users are locked (Keystone's section of this name). The defaults ask for nothing
    /// but a pause after guesses. Options of a user (`ignore_password_expiry` and the like) exempt it.
    SecurityCompliance {
        /// Wrong passwords in a row before a user is locked; 0: never.
        lockout_failure_attempts: i64 = 5,
        /// How long it stays locked, seconds.
        lockout_duration: i64 = 300,
        /// Days without a login after which a user is disabled; 0: never. They are counted from the first start with
        /// this setting on.
        disable_user_account_days_inactive: i64 = 0,
        /// Days for which a new password is good; 0: for ever.
        password_expires_days: i64 = 0,
        /// How many passwords of a user, the present one included, may not be chosen again; 0: none, 24 at the most.
        /// A change of a password costs one bcrypt for each of them but the present one.
        unique_last_password_count: i64 = 0,
        /// Days that a password which its user chose must be used before the user may change it.
        minimum_password_age: i64 = 0,
        /// What new passwords must match, from their beginning; with the look-ahead of Python's expressions.
        password_regex: Option<String> = None,
        /// The same for people: what a user is told whose password does not match.
        password_regex_description: Option<String> = None,
        /// Whether a password that somebody else set is good for one thing only: to choose another. The first
        /// administrator's, which the cloud makes, is good for all.
        change_password_upon_first_use: bool = false,
    }
);
section!(
    /// Accounts that people make themselves, without an operator (POST /identity/v3/accounts, and the page /sign-up).
    Accounts {
        /// Whether anybody who reaches the API may sign up.
        sign_up: bool = false,
        /// Accounts by sign-up in all.
        max_signed_up: i64 = 1000,
        per_hour: i64 = 100,
        /// From one IPv4 address, or one IPv6 network of 64 bits.
        per_address_per_hour: i64 = 5,
        /// Those that fail count too.
        attempts_per_address_per_hour: u32 = 30,
    }
);
section!(
    /// Glance.
    Image {
        /// Largest image, bytes.
        max_bytes: u64 = 1 << 40,
        /// Room that stays free on the disk, bytes.
        reserve_bytes: u64 = 256 << 20,
        /// Stores of images. `file`, in `state_dir`/control/images, is always one of them; an entry with this id
        /// describes it.
        stores: Vec<ImageStore> = vec![],
        /// Stores of an import that names none; empty: the default store.
        import_stores: Vec<String> = vec![],
        /// Where the import method `web-download` may fetch from; empty: nowhere, and the method is off. An entry is
        /// `SCHEME://HOST[:PORT]` with a name, `*.` and the end of one, or `*`: of these only public addresses are
        /// spoken to. An address or a range (`http://10.1.0.0/16:8080`) allows what is in it. `:*` is any port.
        web_download_from: Vec<String> = vec![],
        /// Image services of other regions, from which the import method `glance-download` may fetch.
        regions: Vec<ImageRegion> = vec![],
        /// Imports are converted to this format: raw, qcow2, vmdk, vdi, vhd or vhdx. Default: they stay as they are.
        convert_to: Option<String> = None,
        /// Longest time that an import may take, seconds.
        import_timeout_s: u64 = 6 * 3600,
        /// Bytes of images that are copied to state_dir/control/image-cache when an administrator queues them
        /// (`/v2/cache`); 0: there is no cache.
        cache_bytes: u64 = 0,
    }
);
section!(
    /// Neutron.
    Network {
        /// MTU of tenant networks at the most. With several hosts, new ones get what fits between the hosts, if that is less.
        mtu: u32 = 1500,
        /// UDP port of the tunnels between hosts; the same on all of them.
        vxlan_port: u16 = 4789,
        /// Seconds after the end of its stream before a router's host counts as silent and the router moves to another one:
        /// time for an agent to start anew. A host that vanishes without a word is noticed in two to three seconds.
        router_failover_s: u64 = 1,
        /// Name of the external network made at first start; empty: none.
        external_name: String = "public".into(),
        /// Its range; default: the first free one of a list.
        external_cidr: Option<String> = None,
        /// `nat`, `isolated` or `bridge:IF`.
        uplink: String = "nat".into(),
        /// Resolvers that guests' questions are sent on to; default: those of the host.
        dns_upstream: Vec<IpAddr> = vec![],
        dns_domain: String = "haneul.internal".into(),
    }
);
section!(
    /// Nova.
    Compute {
        /// Seconds that a create may take on the host before it is an error.
        build_timeout_s: u64 = 600,
        /// Seconds for the other actions.
        action_timeout_s: u64 = 180,
        /// Seconds that a server may take on its way to another host before it stays where it is.
        live_migration_timeout_s: u64 = 3600,
        /// Milliseconds that it may stand still at the end.
        live_migration_downtime_ms: u64 = 300,
        /// Seconds that the copy of a server's disk may take, and as many its way into the image service.
        image_timeout_s: u64 = 6 * 3600,
        /// Virtual CPUs per real one, of a host that joins; from then on what placement has of the host counts.
        initial_cpu_allocation_ratio: f64 = 4.0,
        initial_ram_allocation_ratio: f64 = 1.0,
        initial_disk_allocation_ratio: f64 = 1.0,
        /// The same for all hosts, whatever placement has: written there whenever a host's agent starts.
        cpu_allocation_ratio: Option<f64> = None,
        ram_allocation_ratio: Option<f64> = None,
        disk_allocation_ratio: Option<f64> = None,
        /// MiB of memory and GiB of disk kept for the host itself.
        reserved_memory_mib: u64 = 512,
        reserved_disk_gib: u64 = 2,
        /// Default quotas of a project; -1 is unlimited.
        quota_instances: i64 = 20,
        quota_cores: i64 = 40,
        quota_ram_mib: i64 = 65536,
        availability_zone: String = "nova".into(),
        /// Consoles with a screen (VNC): false gives guests no display and refuses console URLs.
        vnc: bool = true,
        /// Seconds for which a console's URL can be opened, once.
        console_token_s: u64 = 600,
        /// Consoles that are open at the same time at the most, of one server and in all.
        consoles_per_server: u64 = 4,
        consoles: u64 = 256,
    }
);
section!(
    /// Which of the hosts that fit gets a server (docs/scheduling.md): what each weigher counts for. Negative: the other
    /// way round. The metadata of a host aggregate may have a key of the same name, for its hosts.
    Scheduler {
        /// Free memory, VCPUs and disk: positive spreads servers over the hosts, negative packs them.
        ram_weight_multiplier: f64 = 1.0,
        cpu_weight_multiplier: f64 = 1.0,
        disk_weight_multiplier: f64 = 1.0,
        /// Servers to which something is being done.
        io_ops_weight_multiplier: f64 = -1.0,
        /// Members of a group with a soft policy. Nova has 1 here, by which three other weighers outvote what a tenant
        /// asks for.
        soft_affinity_weight_multiplier: f64 = 100.0,
        soft_anti_affinity_weight_multiplier: f64 = 100.0,
        /// Creates that failed on the host, one after the other.
        build_failure_weight_multiplier: f64 = 1_000_000.0,
        /// Newer hypervisors.
        hypervisor_version_weight_multiplier: f64 = 1.0,
    }
);
section!(
    /// Moves that make the hosts' loads more alike without being asked for (`haneul balance` is asked).
    Balance {
        automatic: bool = false,
        /// Seconds between two looks.
        interval_s: u64 = 300,
        /// Moves that are begun at one look at the most; four are under way at a time, whoever wants them, and a server
        /// that has moved stays for an hour.
        max_moves: u64 = 4,
        /// Percentage points by which each must bring the imbalance down.
        min_gain: f64 = 1.0,
    }
);
section!(
    /// The host agent.
    Agent {
        /// What administrators call this host; default: the machine's host name.
        name: Option<String> = None,
        /// `qemu`, or `fake` with `lab = true`.
        hypervisor: String = "qemu".into(),
        /// `kernel`, or `fake` with `lab = true`.
        network: String = "kernel".into(),
        /// Address of this host at which other hosts reach it; default: that of the way to the default gateway.
        underlay: Option<IpAddr> = None,
        /// `auto`, `kvm` or `tcg`.
        accelerator: String = "auto".into(),
        /// First of 65,536 user ids that guests run as, one each.
        first_uid: u32 = 700_000_000,
        /// A directory that hosts share (NFS, CephFS), the same on all of them: disks of new guests lie in it, and guests move
        /// without them. Root of this host must own what it writes there (NFS: `no_root_squash`).
        shared_disks: Option<PathBuf> = None,
        /// Seconds for which this host may run servers whose disks other hosts reach without renewing its lease, in `fence/` of
        /// the shared directory.
        lease_term_s: u64 = 8,
        /// A hardware watchdog (`/dev/watchdog`) that resets the host when its supervisor dies, or cannot end servers whose
        /// lease has.
        watchdog: Option<PathBuf> = None,
        /// First and last port at which guests arrive from other hosts, two for each that is on its way.
        move_ports: String = "49152-49215".into(),
        /// With the fake hypervisor: the inventory to pretend.
        fake_vcpus: u32 = 64,
        fake_memory_mib: u64 = 262_144,
        fake_disk_gib: u64 = 4096,
    }
);
section!(
    /// What becomes of servers whose host is lost.
    Ha {
        /// Whether those whose disks other hosts reach are started there.
        evacuate: bool = true,
        /// Seconds after the end of its stream until a host counts as lost: another one that shares its disks watches it
        /// then, and ends its lease when it is silent for a term.
        lost_after_s: u64 = 5,
        /// Whether servers on shared disks are ended on a host that lives and is cut off from control, so that they can
        /// start elsewhere; otherwise they stay there.
        end_cut_off: bool = true,
    }
);
section!(
    /// What the processes write about themselves.
    Log {
        /// As in `RUST_LOG`.
        filter: String = "info".into(),
        /// `text` or `json`.
        format: String = "text".into(),
    }
);

impl SecurityCompliance {
    fn check(&self) -> Result<()> {
        // A hundred years: no sum of times overflows.
        const DAYS: i64 = 36_500;
        for (name, value, most) in [
            ("lockout_failure_attempts", self.lockout_failure_attempts, i64::MAX),
            ("lockout_duration", self.lockout_duration, DAYS * 86_400),
            (
                "disable_user_account_days_inactive",
                self.disable_user_account_days_inactive,
                DAYS,
            ),
            ("password_expires_days", self.password_expires_days, DAYS),
            ("unique_last_password_count", self.unique_last_password_count, 24),
            ("minimum_password_age", self.minimum_password_age, DAYS),
        ] {
            if !(0..=most).contains(&value) {
                let name = format!("security_compliance.{name}");
                let why = format!("{name} = {value}: write a number from 0 to {most}");
                return Err(Error::field(name, why));
            }
        }
        if self.password_expires_days > 0 && self.minimum_password_age >= self.password_expires_days {
            return Err(Error::field(
                "security_compliance.minimum_password_age",
                format!(
                    "security_compliance.minimum_password_age = {}: a password expires after {} days (password_expires_days), and could not be changed before; write fewer days",
                    self.minimum_password_age, self.password_expires_days
                ),
            ));
        }
        Ok(())
    }
}

impl Agent {
    /// `move_ports`.
    ///
    /// # Errors
    /// It is no range of ports, or one of fewer than two.
    pub fn ports_of_moves(&self) -> Result<std::ops::RangeInclusive<u16>> {
        let given = &self.move_ports;
        let (first, last) = given.split_once('-').unwrap_or_default();
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) if first > 0 && first < last => Ok(first..=last),
            _ => Err(Error::field(
                "agent.move_ports",
                format!("agent.move_ports = \"{given}\": write FIRST-LAST, at least two ports from 1 to 65535"),
            )),
        }
    }
}

impl Config {
    /// Reads the file (missing is fine when `required` is false), then the environment, then `sets`.
    pub fn load(file: &Path, required: bool, env: &[(String, String)], sets: &[String]) -> Result<Config> {
        let text = match std::fs::read_to_string(file) {
            Ok(t) => t,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => String::new(),
            Err(e) => {
                return Err(Error::bad_request(format!("{}: {e}", file.display())));
            }
        };
        let mut table: Table = text
            .parse()
            .map_err(|e| Error::bad_request(format!("{}: {e}", file.display())))?;
        for (key, value) in env {
            // Keys of sections have two underscores; other variables of this prefix are not configuration.
            let Some(path) = key.strip_prefix("HANEUL_") else {
                continue;
            };
            if !path.contains("__") && !["STATE_DIR", "LAB"].contains(&path) {
                continue;
            }
            put(&mut table, &path.to_lowercase().replace("__", "."), value)?;
        }
        for set in sets {
            let (key, value) = set
                .split_once('=')
                .ok_or_else(|| Error::bad_request(format!("--set {set}: write --set section.key=value")))?;
            put(&mut table, key.trim(), value.trim())?;
        }
        let known = Value::try_from(full_default()).map_err(Error::internal)?;
        check_keys(&table, &known, "")?;
        let config: Config = Value::Table(table)
            .try_into()
            .map_err(|e: toml::de::Error| Error::bad_request(format!("{}: {}", file.display(), e.message())))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            let (missing, given) = match self.tls.key {
                None => ("tls.key", "tls.certificate"),
                Some(_) => ("tls.certificate", "tls.key"),
            };
            return Err(Error::field(
                missing,
                format!("{given} is given without {missing}: write both or none"),
            ));
        }
        if self
            .api
            .public_url
            .as_ref()
            .is_some_and(|u| self.tls_on() && u.starts_with("http:"))
        {
            return Err(Error::field(
                "api.public_url",
                "api.public_url begins with http:, and the API speaks TLS only, because it listens on more than loopback or has a certificate: write https:",
            ));
        }
        let anywhere = |a: SocketAddr| a.ip().is_unspecified();
        for (listen, listens, url, given) in [
            (
                "api.listen",
                anywhere(self.api.listen),
                "api.public_url",
                self.api.public_url.is_some(),
            ),
            (
                "fleet.listen",
                self.fleet.listen.is_some_and(anywhere),
                "fleet.url",
                self.fleet.url.is_some(),
            ),
        ] {
            if listens && !given {
                return Err(Error::field(
                    url,
                    format!(
                        "{listen} is every address of this machine: write in {url} by which one others reach it, for instance \"https://cloud.example:8774\""
                    ),
                ));
            }
        }
        if self.fleet.url.is_some() && self.fleet.listen.is_none() {
            return Err(Error::field(
                "fleet.url",
                "fleet.url is given without fleet.listen, so that nobody would answer there: write both",
            ));
        }
        if !(4..=31).contains(&self.identity.bcrypt_rounds) {
            return Err(Error::field(
                "identity.bcrypt_rounds",
                format!(
                    "identity.bcrypt_rounds = {}: write a number from 4 to 31",
                    self.identity.bcrypt_rounds
                ),
            ));
        }
        self.security_compliance.check()?;
        self.compute.check()?;
        self.scheduler.check()?;
        self.balance.check()?;
        if !["flat", "strict_two_level"].contains(&self.identity.limit_model.as_str()) {
            return Err(Error::field(
                "identity.limit_model",
                format!(
                    "identity.limit_model = \"{}\": write flat or strict_two_level",
                    self.identity.limit_model
                ),
            ));
        }
        self.agent.ports_of_moves()?;
        if !(2..=60).contains(&self.agent.lease_term_s) {
            return Err(Error::field(
                "agent.lease_term_s",
                format!(
                    "agent.lease_term_s = {}: write 2 to 60 seconds; a lost host's servers start elsewhere that much later",
                    self.agent.lease_term_s
                ),
            ));
        }
        if let Some(dir) = self.agent.shared_disks.as_ref().filter(|d| !d.is_absolute()) {
            return Err(Error::field(
                "agent.shared_disks",
                format!(
                    "agent.shared_disks = \"{}\": write a path that begins with /",
                    dir.display()
                ),
            ));
        }
        for (name, value, real) in [
            ("agent.hypervisor", &self.agent.hypervisor, "qemu"),
            ("agent.network", &self.agent.network, "kernel"),
        ] {
            if value == "fake" && !self.lab {
                return Err(Error::field(
                    name,
                    format!("{name} = \"fake\" runs nothing real and is allowed only with lab = true"),
                ));
            }
            if value != "fake" && value != real {
                return Err(Error::field(
                    name,
                    format!("{name} = \"{value}\": write \"{real}\" (or \"fake\" with lab = true)"),
                ));
            }
        }
        if !["nat", "isolated"].contains(&self.network.uplink.as_str()) && !self.network.uplink.starts_with("bridge:") {
            return Err(Error::field(
                "network.uplink",
                format!(
                    "network.uplink = \"{}\": write \"nat\", \"isolated\" or \"bridge:INTERFACE\"",
                    self.network.uplink
                ),
            ));
        }
        Ok(())
    }

    /// Database, keys, images; of user haneul.
    pub fn control_dir(&self) -> PathBuf {
        let own = || self.state_dir.0.join("control");
        self.control_dir.clone().unwrap_or_else(own)
    }
    /// `state_dir`/agent: guests, disks, image cache; of root.
    pub fn agent_dir(&self) -> PathBuf {
        self.state_dir.0.join("agent")
    }
    /// `state_dir`/run: sockets and pid files.
    pub fn run_dir(&self) -> PathBuf {
        self.state_dir.0.join("run")
    }
    /// noVNC, as `haneul up` unpacks it.
    pub fn novnc_dir(&self) -> PathBuf {
        self.state_dir.0.join("novnc/usr/share/novnc")
    }
    /// The certificate of the cloud's authority, for clients that shall trust it.
    pub fn authority_file(&self) -> PathBuf {
        self.control_dir().join("authority.pem")
    }
    /// A host's membership of a cloud whose control plane is on another machine: its certificate and key.
    pub fn membership_file(&self) -> PathBuf {
        self.agent_dir().join("membership.json")
    }
    /// Where the agent writes how its link to control is, for people: one line.
    pub fn link_file(&self) -> PathBuf {
        self.agent_dir().join("link")
    }
    /// Whether this machine is a host only: it has joined a cloud.
    pub fn is_member(&self) -> bool {
        self.membership_file().exists()
    }
    /// The socket of the API for commands on this machine, whatever its address speaks.
    pub fn api_socket(&self) -> PathBuf {
        self.run_dir().join("api.sock")
    }
    /// Whether the API and the metrics speak TLS, and nothing else.
    pub fn tls_on(&self) -> bool {
        let open = |a: SocketAddr| !a.ip().is_loopback();
        open(self.api.listen)
            || open(self.api.metrics_listen)
            || self.fleet.listen.is_some_and(open)
            || self.tls.certificate.is_some()
    }
    /// Where machines join: `fleet.url`, or the address that is listened on.
    pub fn fleet_url(&self) -> Option<String> {
        let listen = self.fleet.listen?;
        Some(self.fleet.url.clone().unwrap_or_else(|| format!("https://{listen}")))
    }
    /// The socket that agents dial.
    pub fn agent_socket(&self) -> PathBuf {
        self.run_dir().join("agent.sock")
    }
    /// The socket of operator commands.
    pub fn admin_socket(&self) -> PathBuf {
        self.run_dir().join("admin.sock")
    }
    /// The database's URL.
    pub fn database_url(&self) -> String {
        self.database
            .url
            .clone()
            .unwrap_or_else(|| format!("sqlite:{}", self.control_dir().join("haneul.db").display()))
    }
    /// Base of the URLs that clients are told, without a slash at the end.
    pub fn public_url(&self) -> String {
        self.api.public_url.clone().map_or_else(
            || format!("http{}://{}", if self.tls_on() { "s" } else { "" }, self.api.listen),
            |u| u.trim_end_matches('/').to_owned(),
        )
    }
}

/// A default in which every optional key is present, so that it is known.
fn full_default() -> Config {
    let mut c = Config {
        control_dir: Some(PathBuf::new()),
        ..Config::default()
    };
    c.api.public_url = Some(String::new());
    c.api.policy_file = Some(PathBuf::new());
    c.agent.name = Some(String::new());
    c.agent.shared_disks = Some(PathBuf::new());
    c.tls.certificate = Some(PathBuf::new());
    c.tls.key = Some(PathBuf::new());
    c.fleet.listen = Some(c.api.listen);
    c.fleet.url = Some(String::new());
    c.database.url = Some(String::new());
    c.security_compliance.password_regex = Some(String::new());
    c.security_compliance.password_regex_description = Some(String::new());
    c.network.external_cidr = Some(String::new());
    c.agent.underlay = Some(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    c.image.convert_to = Some(String::new());
    c.compute.cpu_allocation_ratio = Some(0.0);
    c.compute.ram_allocation_ratio = Some(0.0);
    c.compute.disk_allocation_ratio = Some(0.0);
    c.agent.watchdog = Some(PathBuf::new());
    c
}

fn put(table: &mut Table, path: &str, text: &str) -> Result<()> {
    // A value that reads as TOML is taken as such; anything else is a string.
    let value = format!("x = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("x"))
        .unwrap_or_else(|| Value::String(text.to_owned()));
    let mut here = table;
    let mut parts = path.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            here.insert(part.to_owned(), value);
            return Ok(());
        }
        here = here
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()))
            .as_table_mut()
            .ok_or_else(|| Error::bad_request(format!("{path}: {part} is not a section")))?;
    }
    Ok(())
}

fn check_keys(table: &Table, known: &Value, prefix: &str) -> Result<()> {
    let Some(known) = known.as_table() else { return Ok(()) };
    for (key, value) in table {
        let full = format!("{prefix}{key}");
        match (known.get(key), value) {
            (None, _) => {
                let nearest = known
                    .keys()
                    .min_by_key(|k| distance(k, key))
                    .map_or_else(String::new, |k| format!("; did you mean {prefix}{k}?"));
                return Err(Error::field(&full, format!("{full} is not a known key{nearest}")));
            }
            (Some(k), Value::Table(t)) => check_keys(t, k, &format!("{full}."))?,
            _ => {}
        }
    }
    Ok(())
}

/// Levenshtein distance.
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut left = i + 1;
        let mut diagonal = i;
        for (j, cb) in b.iter().enumerate() {
            let up = row.get(j + 1).copied().unwrap_or(usize::MAX);
            let best = (up + 1).min(left + 1).min(diagonal + usize::from(ca != *cb));
            diagonal = up;
            left = best;
            if let Some(cell) = row.get_mut(j) {
                *cell = if j == 0 { i + 1 } else { *cell };
            }
            if let Some(cell) = row.get_mut(j + 1) {
                *cell = best;
            }
        }
        if let Some(cell) = row.get_mut(0) {
            *cell = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;

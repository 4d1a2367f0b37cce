//! The command line.

use crate::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use haneul_core::config::Config;
use std::path::{Path, PathBuf};

/// Where the configuration is looked for when nobody says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/haneul/haneul.toml";

/// A private cloud in one binary.
#[derive(Debug, Parser)]
#[command(name = "haneul", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Default, Args)]
pub struct Globals {
    /// Configuration file; the default one may be missing [default: /etc/haneul/haneul.toml]
    #[arg(long, global = true, value_name = "FILE", env = "HANEUL_CONFIG")]
    pub config: Option<PathBuf>,
    /// Overrides one key of the configuration; may be repeated
    #[arg(long, global = true, value_name = "section.key=value")]
    pub set: Vec<String>,
    /// Short for --set state_dir=DIR
    #[arg(long, global = true, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Install what is missing, start the cloud, boot a first server and say how to reach it
    Up(UpOptions),
    /// Stop the cloud and its guests; `up` brings both back
    Down(DownOptions),
    /// Say what runs
    Status {
        #[arg(long)]
        json: bool,
    },
    /// Show what the processes wrote
    Logs(LogsOptions),
    /// Check this host, and say for each failed check what to do
    Doctor {
        #[arg(long)]
        json: bool,
    },
    /// Compare all services with each other and with the hosts; exit code 1 when something disagrees
    Audit {
        #[arg(long)]
        json: bool,
    },
    /// Long work: list it, explain it, repeat or cancel it
    Jobs(JobsOptions),
    /// The change log: who changed what, and when
    Changes(ChangesOptions),
    /// Accounts of people and organisations
    Account(AccountOptions),
    /// Hosts of this cloud: tokens for new ones, list, show, drain, fence, enable, remove
    Host(HostOptions),
    /// Moves between hosts that make their loads more alike: show them, or make them
    Balance(BalanceOptions),
    /// What the cloud can lose
    Ha(HaOptions),
    /// Make this machine a host of the cloud at URL: install what is missing, join, start its agent
    Join(JoinOptions),
    /// Write the control plane's state, as of now, to a new directory; it goes on meanwhile
    Backup {
        dir: PathBuf,
        /// Leave out the bytes of images
        #[arg(long)]
        without_images: bool,
    },
    /// Put a backup in the place of a control plane that is gone; serve must not run
    Restore { dir: PathBuf },
    /// The database
    Store(StoreOptions),
    /// Build the small guest image
    GuestImage {
        /// File to write
        #[arg(long, value_name = "FILE", default_value = "haneul-guest.qcow2")]
        out: PathBuf,
    },
    /// Which hypervisor takes which format of disk images, and what this cloud does with each
    Formats {
        #[arg(long)]
        json: bool,
    },
    /// Write the disk inside an image in another format; the source is inspected first
    Convert(ConvertOptions),
    /// Start serve and agent, and start each again when it ends (what `up` starts in the background)
    Run(RunOptions),
    /// The control plane
    Serve {
        /// Services to serve, for instance identity,object; default: all
        #[arg(long = "role", value_delimiter = ',', value_name = "ROLE")]
        roles: Vec<String>,
    },
    /// What works on one host: guests, networks, disks. Needs root
    Agent,
    /// Keep the lease of a host that shares disks with others (run by its systemd unit; `haneul run` does it, too)
    #[command(hide = true)]
    Lease,
    /// End the servers on shared disks with the lease, when nobody keeps it any more
    #[command(hide = true)]
    LeaseEnd,
    /// Make the directories that serve and agent need (run by the systemd units)
    #[command(hide = true)]
    Prepare,
    /// Every method and path that the cloud answers, with its handler and policy rule
    Routes,
    /// Print the version
    Version,
}

#[derive(Clone, Debug, Default, Args)]
pub struct ConvertOptions {
    /// What the source is: raw, qcow2, vmdk, vdi, vhd or vhdx; never guessed
    #[arg(long, value_name = "FORMAT")]
    pub from: String,
    /// What to write: one of the same
    #[arg(long, value_name = "FORMAT")]
    pub to: String,
    /// File to read
    pub source: PathBuf,
    /// File to write; it must not exist
    pub target: PathBuf,
}

#[derive(Clone, Debug, Default, Args)]
pub struct RunOptions {
    /// Leave the terminal: new session, own messages to the log directory
    #[arg(long, hide = true)]
    pub detach: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub struct UpOptions {
    /// Do not ask before a package source is added
    #[arg(long, short)]
    pub yes: bool,
    /// Make no first server, network or key: only start the cloud
    #[arg(long)]
    pub no_server: bool,
    /// Install packages and make the account, then stop
    #[arg(long)]
    pub packages_only: bool,
    /// Use this image instead of building one
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct DownOptions {
    /// Remove every trace: servers, images, networks, keys, users, files
    #[arg(long)]
    pub purge: bool,
    /// Do not ask before --purge
    #[arg(long, short)]
    pub yes: bool,
    /// Leave the guests running
    #[arg(long, conflicts_with = "purge")]
    pub keep_guests: bool,
    /// Do not ask guests to shut down by themselves first
    #[arg(long)]
    pub now: bool,
}

/// A process of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Process {
    Serve,
    Agent,
    Run,
}

impl Process {
    pub const ALL: [Process; 3] = [Process::Serve, Process::Agent, Process::Run];
    pub fn name(self) -> &'static str {
        match self {
            Process::Serve => "serve",
            Process::Agent => "agent",
            Process::Run => "run",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct LogsOptions {
    /// Whose; default: all
    pub process: Option<Process>,
    /// Go on as more is written
    #[arg(long, short)]
    pub follow: bool,
    /// How many lines of the past
    #[arg(long, short = 'n', default_value_t = 50)]
    pub lines: usize,
}

#[derive(Debug, Args)]
pub struct JobsOptions {
    #[command(subcommand)]
    pub command: Option<JobsCommand>,
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum JobsCommand {
    /// Jobs that are under way or failed
    List {
        /// Finished ones too
        #[arg(long)]
        all: bool,
    },
    /// Steps, progress, deadline and cause of one job
    Explain { id: String },
    /// Run a failed job again from where it stopped
    Retry { id: String },
    /// Undo what a job did so far and end it
    Cancel { id: String },
}

#[derive(Debug, Args)]
pub struct ChangesOptions {
    /// Those after this sequence number, the oldest first [default: the newest]
    #[arg(long)]
    pub since: Option<i64>,
    /// At the most so many
    #[arg(long, default_value_t = 50)]
    pub limit: u32,
    /// Only what this user did (an id), or `operator`
    #[arg(long, value_name = "ID")]
    pub actor: Option<String>,
    /// Only of this project
    #[arg(long, value_name = "ID")]
    pub project: Option<String>,
    /// Only of this kind, for instance server
    #[arg(long)]
    pub kind: Option<String>,
    /// Only of this resource
    #[arg(long)]
    pub id: Option<String>,
    /// Only of this request
    #[arg(long, value_name = "ID")]
    pub request: Option<String>,
    #[arg(long)]
    pub json: bool,
    /// As CADF events (DMTF DSP0262), in JSON
    #[arg(long, conflicts_with = "json")]
    pub cadf: bool,
}

#[derive(Debug, Args)]
pub struct AccountOptions {
    #[command(subcommand)]
    pub command: AccountCommand,
}

#[derive(Debug, Subcommand)]
pub enum AccountCommand {
    /// Make an account: a person, or an organisation with its users
    Create(NewAccount),
    /// Who has an account
    List {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct NewAccount {
    /// The person's user name, or the organisation's name
    pub name: String,
    /// An organisation: a domain of its own, whose first user manages it
    #[arg(long)]
    pub organization: bool,
    /// A user of the organisation; may be repeated, the first one manages it
    #[arg(long = "user", value_name = "NAME", requires = "organization")]
    pub users: Vec<String>,
    /// The first user's address
    #[arg(long)]
    pub email: Option<String>,
    /// Read the first user's password from the standard input; passwords that nobody gives are made and told once
    #[arg(long)]
    pub password_stdin: bool,
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct HostOptions {
    #[command(subcommand)]
    pub command: HostCommand,
    #[arg(long, global = true)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// Print what a machine needs to join: one machine, once
    Token {
        /// How long the token is good
        #[arg(long, default_value_t = 60)]
        minutes: u32,
        /// Let this host come back that has lost its certificate, and no other
        #[arg(long = "for", value_name = "HOST")]
        host: Option<String>,
    },
    /// All hosts
    List,
    /// One host, by name or id
    Show { host: String },
    /// Keep new servers away from a host and move those on it elsewhere, while they run; says why one cannot
    Drain { host: String },
    /// Say that a host that is down is off: its servers may start on others. Make sure first; a server that runs twice
    /// destroys its disks
    Fence { host: String },
    /// Let servers come to a host (again), and accept what it says it has
    Enable { host: String },
    /// End a host's membership. Servers must have left it
    Remove { host: String },
}

#[derive(Debug, Args)]
pub struct BalanceOptions {
    /// Only show them, which is what happens without this too
    #[arg(long, conflicts_with = "apply")]
    pub plan: bool,
    /// Make them, by live migration, four at a time
    #[arg(long)]
    pub apply: bool,
    /// Moves at the most
    #[arg(long, default_value_t = 16)]
    pub max_moves: u64,
    /// Percentage points by which each must bring the imbalance down
    #[arg(long, default_value_t = 0.5)]
    pub min_gain: f64,
    /// Also say of each server that was looked at why it stays
    #[arg(long)]
    pub verbose: bool,
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct HaOptions {
    #[command(subcommand)]
    pub command: HaCommand,
}

#[derive(Debug, Subcommand)]
pub enum HaCommand {
    /// For each host: which servers would start elsewhere if it were lost now, which would not, and why. Fails when one
    /// would not
    Check {
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct StoreOptions {
    #[command(subcommand)]
    pub command: StoreCommand,
}

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Move a cloud from one database to another; serve must not run
    Move {
        /// URL of the cloud's database; `sqlite:` is the one in the state directory
        from: String,
        /// URL of an empty database, sqlite:PATH or postgres://USER@HOST/NAME
        to: String,
    },
}

#[derive(Debug, Args)]
pub struct JoinOptions {
    /// What `haneul host token` printed, like https://192.0.2.1:8776
    pub url: String,
    /// The token; `-` reads it from the standard input, so that it is in no list of processes
    pub token: String,
    /// Do not ask before a package source is added
    #[arg(long, short)]
    pub yes: bool,
    /// Join, and start nothing
    #[arg(long)]
    pub no_start: bool,
}

/// Reads the command line; ends the process with help or with an explanation when it is wrong.
pub fn parse() -> Cli {
    Cli::parse()
}

impl Globals {
    /// The configuration: file, environment, `--set`, `--state-dir`.
    pub fn load(&self) -> Result<Config> {
        // Variables that are not configuration: they tell the test suite where things are.
        let env: Vec<(String, String)> = std::env::vars()
            .filter(|(k, _)| k != "HANEUL_BIN" && !k.starts_with("HANEUL_TEST_"))
            .collect();
        let (file, required) = match &self.config {
            Some(f) => (f.as_path(), true),
            None => (Path::new(DEFAULT_CONFIG), false),
        };
        let mut config = Config::load(file, required, &env, &self.sets())?;
        config.state_dir.0 = absolute(&config.state_dir.0);
        Ok(config)
    }

    fn sets(&self) -> Vec<String> {
        let mut sets = self.set.clone();
        // In quotes, so that a directory named like a number stays a string.
        sets.extend(self.state_dir.iter().map(|d| {
            let d = absolute(d)
                .display()
                .to_string()
                .replace('\\', "\\\\")
                .replace('"', "\\\"");
            format!("state_dir=\"{d}\"")
        }));
        sets
    }

    /// The same options for another process of ours, which may start in another directory.
    pub fn to_args(&self) -> Vec<String> {
        let mut args = Vec::new();
        if let Some(file) = &self.config {
            args.extend(["--config".to_owned(), absolute(file).display().to_string()]);
        }
        for set in self.sets() {
            args.extend(["--set".to_owned(), set]);
        }
        args
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_tree_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_survive_the_way_to_a_child() {
        let cli = Cli::try_parse_from(["haneul", "run", "--state-dir", "/x y", "--set", "api.region=Seoul"]).unwrap();
        let mut argv = vec!["haneul".to_owned(), "serve".to_owned()];
        argv.extend(cli.globals.to_args());
        let child = Cli::try_parse_from(argv).unwrap();
        let config = child.globals.load().unwrap();
        assert_eq!(config.state_dir.0, Path::new("/x y"));
        assert_eq!(config.api.region, "Seoul");
    }

    #[test]
    fn roles_are_a_list() {
        let cli = Cli::try_parse_from(["haneul", "serve", "--role", "identity,object"]).unwrap();
        assert!(matches!(cli.command, Command::Serve { roles } if roles == ["identity", "object"]));
    }
}

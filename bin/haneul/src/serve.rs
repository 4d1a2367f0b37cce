//! `haneul serve`: the control plane, put together.

use crate::doors::Doors;
use crate::{admin, front, policy_file};
use axum::extract::ConnectInfo;
use haneul_auth::Policy;
use haneul_compute::Compute;
use haneul_core::config::Config;
use haneul_core::{Error, Result, release};
use haneul_fleet::{Door, Fleet, ImageSource, ImageStream};
use haneul_http::metrics::Metrics;
use haneul_http::{RouteInfo, Server};
use haneul_identity::Identity;
use haneul_image::Images;
use haneul_jobs::Jobs;
use haneul_network::Network;
use haneul_placement::Placement;
use haneul_store::{Db, Migration, OpenOptions};
use haneul_tls::Peer;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

/// Everything that serves.
pub struct App {
    pub config: Config,
    pub db: Db,
    pub jobs: Jobs,
    pub fleet: Arc<Fleet>,
    pub identity: Arc<Identity>,
    pub placement: Arc<Placement>,
    pub network: Arc<Network>,
    pub compute: Arc<Compute>,
    pub server: Server,
    pub routes: Vec<RouteInfo>,
}

/// All tables, in the order in which crates build on each other.
pub fn migrations() -> Vec<Migration> {
    [
        haneul_auth::quota::MIGRATIONS,
        haneul_jobs::MIGRATIONS,
        haneul_fleet::MIGRATIONS,
        haneul_identity::MIGRATIONS,
        haneul_placement::MIGRATIONS,
        haneul_image::MIGRATIONS,
        haneul_network::MIGRATIONS,
        haneul_compute::MIGRATIONS,
    ]
    .concat()
}

/// The policy of all services.
fn rules() -> Vec<haneul_auth::RuleDefault> {
    [
        haneul_identity::RULES,
        haneul_placement::RULES,
        haneul_image::RULES,
        haneul_network::RULES,
        haneul_compute::RULES,
    ]
    .concat()
}

/// Serves until SIGTERM.
pub async fn main(config: Config, roles: &[String]) -> Result<()> {
    // The whole control plane is one role for now; a part of it alone comes with the object store.
    if let Some(role) = roles.iter().find(|r| *r != "all") {
        return Err(Error::bad_request(format!(
            "--role {role}: only \"all\" is served for now"
        )));
    }
    let overrides = config.api.policy_file.as_deref().map(policy_file::read).transpose()?;
    let policy = Policy::new(&rules(), &overrides.unwrap_or_default())?;
    let control = config.control_dir();
    private_dir(&control)?;
    let listener = bind("api.listen", config.api.listen).await?;
    let metrics_listener = bind("api.metrics_listen", config.api.metrics_listen).await?;
    let hosts_listener = match config.fleet.listen {
        Some(address) => Some(bind("fleet.listen", address).await?),
        None => None,
    };
    let db = Db::open(
        &OpenOptions {
            url: config.database_url(),
            readers: config.database.readers,
        },
        &migrations(),
    )
    .await?;
    // Whoever starts makes keys and passwords that are not there, one after the other.
    let starting = std::fs::File::create(control.join("starting"))?;
    let starting = tokio::task::spawn_blocking(move || starting.lock().map(|()| starting));
    let starting = starting.await.map_err(Error::internal)??;
    let door = Door {
        release: release::name().into(),
        url: config.fleet_url(),
        socket: config.agent_socket(),
        secret: haneul_core::id::secret(43),
        public_url: config.public_url(),
        control: id_of(&control)?,
    };
    db.enlist(serde_json::to_value(&door)?).await?;
    door.check_others(&db).await?;
    let jobs = Jobs::new(db.clone());
    let fleet = Fleet::open(db.clone()).await?;
    fleet.set_door(&door);
    let doors = Doors::open(&config, &fleet).await?;
    let identity = Arc::new(Identity::new(db.clone(), &config, control.join("fernet-keys"))?);
    identity.set_policy(Arc::new(policy));
    first_password(&identity, &control.join("admin-password")).await?;
    let placement = Arc::new(Placement::new(db.clone()));
    let image = Images::new(db.clone(), &config, jobs.clone())?;
    image.bootstrap().await?;
    image.reconcile().await?;
    drop(starting);
    let network = Network::new(db.clone(), &config, fleet.clone()).await?;
    let compute = Compute::new(
        db.clone(),
        &config,
        jobs.clone(),
        fleet.clone(),
        placement.clone(),
        image.clone(),
        network.clone(),
    );
    fleet.set_observers(vec![network.clone(), compute.clone()]);
    fleet.set_images(Arc::new(Pulls(image.clone())));
    jobs.register([compute.sagas(), image.sagas()].concat());
    let server = Server {
        auth: identity.clone(),
        metrics: Arc::new(Metrics::default()),
        public_url: config.public_url().into(),
        max_body: config.api.max_body_bytes,
        max_limit: config.api.max_limit,
    };
    let mut routes = Vec::new();
    let mut api = axum::Router::new();
    macro_rules! mount {
        ($($service:expr),*) => {$(
            let table = $service.routes();
            routes.extend(table.infos());
            api = api.merge(table.into_router(&server));
        )*};
    }
    mount!(identity, placement, network, compute);
    routes.extend(image.routes().infos());
    api = api.merge(image.router(&server));
    let app = Arc::new(App {
        config: config.clone(),
        db,
        jobs: jobs.clone(),
        fleet: fleet.clone(),
        identity: identity.clone(),
        placement,
        network,
        compute,
        server,
        routes,
    });
    api = api.merge(front::router(app.clone()));
    api = api.merge(console(&app).router());

    let (stop, stopped) = watch::channel(false);
    let until = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|s| *s).await;
    };
    std::fs::create_dir_all(config.run_dir())?;
    let agents = unix_listener(&config.agent_socket(), 0o600)?;
    let operators = unix_listener(&config.admin_socket(), 0o600)?;
    let uid = nix::unistd::geteuid().as_raw();
    let hosts = match hosts_listener {
        Some(tcp) => {
            let serve = haneul_fleet::serve_hosts(fleet.clone(), doors.hosts(tcp)?, until(stopped.clone()));
            Some(tokio::spawn(serve))
        }
        None => None,
    };
    let peers = [
        tokio::spawn(fleet.clone().follow_others()),
        tokio::spawn(image.clone().follow_others()),
    ];
    let watching = tokio::spawn(fleet.clone().watch_over_hosts(haneul_fleet::Patience {
        lost_after: Duration::from_secs(config.ha.lost_after_s),
        end_cut_off: config.ha.end_cut_off,
    }));
    let evacuating = config
        .ha
        .evacuate
        .then(|| tokio::spawn(app.compute.clone().evacuate_lost_hosts()));
    let agents = tokio::spawn(haneul_fleet::serve(fleet, agents, uid, until(stopped.clone())));
    let operators = axum::serve(operators, admin::router(app.clone())).with_graceful_shutdown(until(stopped.clone()));
    let operators = tokio::spawn(async move { operators.await });
    let metrics = axum::serve(doors.api(metrics_listener)?, front::metrics(app.clone()))
        .with_graceful_shutdown(until(stopped.clone()));
    let metrics = tokio::spawn(async move { metrics.await });
    let running = tokio::spawn(async move { jobs.run().await });
    let keys = tokio::spawn(look_after_identity(app.clone()));
    if config.balance.automatic {
        tokio::spawn(app.compute.clone().balance_by_itself(config.balance.clone()));
    }
    tracing::info!(api = %config.api.listen, tls = config.tls_on(), release = release::name(), "the control plane answers");
    let commands = unix_listener(&config.api_socket(), 0o600)?;
    let commands = axum::serve(commands, api.clone()).with_graceful_shutdown(until(stopped.clone()));
    let commands = tokio::spawn(async move { commands.await });
    // The services know a client by its address alone.
    let api = api.layer(axum::middleware::map_request(
        async |ConnectInfo(peer): ConnectInfo<Peer>, mut request: axum::extract::Request| {
            request.extensions_mut().insert(ConnectInfo(peer.address));
            request
        },
    ));
    let api = api.into_make_service_with_connect_info::<Peer>();
    let api = axum::serve(doors.api(listener)?, api).with_graceful_shutdown(until(stopped.clone()));
    let api = tokio::spawn(async move { api.await });
    let given_up = tokio::select! {
        stopped = crate::stop_signal() => {
            stopped?;
            false
        }
        () = app.db.given_up() => true,
    };
    tracing::info!("stopping");
    let _ = stop.send(true);
    // Requests under way get a moment; watch streams never end by themselves.
    let _ = tokio::time::timeout(Duration::from_secs(5), api).await;
    running.abort();
    watching.abort();
    evacuating.inspect(tokio::task::JoinHandle::abort);
    keys.abort();
    for task in [operators, metrics, commands] {
        task.abort();
    }
    for task in peers {
        task.abort();
    }
    for task in [Some(agents), hosts].into_iter().flatten() {
        task.abort();
    }
    match given_up {
        true => Err(Error::unavailable(
            "this process was cut off from its database, and the others have taken over from it. It may start anew",
        )),
        false => Ok(()),
    }
}

/// The id of a control directory, made by whoever comes first.
fn id_of(control: &Path) -> Result<String> {
    let file = control.join("id");
    match std::fs::read_to_string(&file) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let id = haneul_core::id::uuid();
            haneul_cli::state::replace(&file, id.as_bytes(), 0o600)?;
            Ok(id)
        }
        Err(e) => Err(e.into()),
    }
}

async fn bind(name: &str, address: SocketAddr) -> Result<TcpListener> {
    let free = |e| {
        Error::conflict(format!(
            "{name} = {address}: {e}. Free the address or choose another one."
        ))
    };
    TcpListener::bind(address).await.map_err(free)
}

/// The first administrator's password: chosen at the first start, and on disk before the database has it, so
/// that a kill in between loses nothing.
async fn first_password(identity: &Identity, file: &Path) -> Result<()> {
    let password = match std::fs::read_to_string(file) {
        Ok(text) => text.trim().to_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let new = haneul_core::id::secret(24);
            haneul_cli::state::write_secret(file, &new)?;
            new
        }
        Err(e) => return Err(e.into()),
    };
    identity.bootstrap(Some(password)).await?;
    Ok(())
}

/// Rotates the Fernet keys when they are due, and disables users who have not logged in for too long.
async fn look_after_identity(app: Arc<App>) {
    let identity = &app.identity;
    let mut hourly = tokio::time::interval(Duration::from_secs(3600));
    loop {
        hourly.tick().await;
        if !app.db.leads().await.unwrap_or(false) {
            continue;
        }
        match identity.rotate_if_due() {
            Ok(true) => tracing::info!("the token keys were rotated"),
            Ok(false) => {}
            Err(e) => tracing::error!(error = %e, "the token keys could not be rotated"),
        }
        match identity.disable_inactive().await {
            Ok(0) => {}
            Ok(n) => tracing::info!(users = n, "users were disabled that were inactive"),
            Err(e) => tracing::error!(error = %e, "inactive users could not be disabled"),
        }
    }
}

/// The page of a server's screen. noVNC is what `haneul up` fetched, or the host's own.
fn console(app: &Arc<App>) -> Arc<haneul_console::Console> {
    let novnc = [app.config.novnc_dir(), "/usr/share/novnc".into()];
    haneul_console::Console::new(
        Arc::new(Screens(app.compute.clone())),
        &app.config.public_url(),
        novnc.into(),
    )
}

struct Screens(Arc<Compute>);

impl haneul_console::Screens for Screens {
    fn open<'a>(&'a self, token: &'a str) -> haneul_console::BoxFuture<'a, Result<haneul_console::Screen>> {
        Box::pin(async move {
            let opened = self.0.open_console(token).await?;
            tracing::info!(server = opened.server_id, "a console was opened");
            Ok(haneul_console::Screen {
                from: opened.tunnel.from,
                to: opened.tunnel.to,
                seat: Box::new(opened.seat),
            })
        })
    }
}

/// Agents pull images from the image service.
struct Pulls(Arc<Images>);

impl ImageSource for Pulls {
    fn open<'a>(&'a self, id: &'a str) -> haneul_fleet::BoxFuture<'a, Result<ImageStream>> {
        Box::pin(async move {
            let (size, body) = self.0.bytes(id).await?;
            Ok(ImageStream { size, body })
        })
    }
}

fn private_dir(dir: &Path) -> Result<()> {
    haneul_core::durable::make_dir(dir, 0o700)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
    Ok(())
}

fn unix_listener(path: &Path, mode: u32) -> Result<UnixListener> {
    // What a killed process left behind; a living one holds the TCP address that was bound before.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

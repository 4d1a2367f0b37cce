//! Identity alone, to try a client on: `cargo run -p haneul-identity --example serve -- DIR PORT`. Prints the
//! administrator's password at the first start. For development only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use haneul_core::config::Config;
use haneul_http::Server;
use haneul_identity::Identity;
use haneul_store::{Db, OpenOptions};
use std::path::PathBuf;
use std::sync::Arc;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().unwrap_or_else(|| "target/identity".into()));
    let port: u16 = args.next().map_or(15000, |p| p.parse().expect("a port"));
    std::fs::create_dir_all(&dir).unwrap();
    let mut config = Config::default();
    config.api.listen = ([127, 0, 0, 1], port).into();
    config.identity.bcrypt_rounds = 5;
    let url = format!("sqlite:{}", dir.join("identity.db").display());
    let db = Db::open(&OpenOptions { url, readers: 4 }, haneul_identity::MIGRATIONS)
        .await
        .unwrap();
    let identity = Arc::new(Identity::new(db, &config, dir.join("keys")).unwrap());
    if let Some(password) = identity.bootstrap(None).await.unwrap() {
        std::fs::write(dir.join("password"), &password).unwrap();
        println!("admin password: {password}");
    }
    let server = Server {
        auth: identity.clone(),
        metrics: Arc::default(),
        public_url: config.public_url().into(),
        max_body: config.api.max_body_bytes,
        max_limit: config.api.max_limit,
    };
    let listener = tokio::net::TcpListener::bind(config.api.listen).await.unwrap();
    println!("listening on {}", config.public_url());
    axum::serve(listener, identity.routes().into_router(&server))
        .await
        .unwrap();
}

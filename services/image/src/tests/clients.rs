//! The clients that people use, unmodified, over a socket: `clients.py`.

use super::Cloud;
use std::process::Command;

/// A Python that has openstacksdk: `HANEUL_CLIENTS_PYTHON`, the one that `cargo xtask test` sets up, or the
/// system's.
fn python() -> Option<String> {
    let exe = std::env::current_exe().unwrap();
    let ours = exe
        .ancestors()
        .map(|dir| dir.join("venv/bin/python"))
        .find(|p| p.exists());
    let found = std::env::var("HANEUL_CLIENTS_PYTHON")
        .ok()
        .into_iter()
        .chain(ours.map(|p| p.display().to_string()))
        .chain(["python3".to_owned()])
        .find(|program| {
            let try_it = Command::new(program).args(["-c", "import openstack"]).output();
            try_it.is_ok_and(|o| o.status.success())
        });
    if found.is_none() {
        eprintln!("skipped: no Python with openstacksdk; give one in HANEUL_CLIENTS_PYTHON");
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn glanceclient_and_openstacksdk() {
    let Some(python) = python() else { return };
    let cloud = Cloud::open().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/image", listener.local_addr().unwrap());
    let router = cloud.router.clone();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let dir = cloud.config.state_dir.0.clone();
    let out = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .args(["-c", include_str!("clients.py"), &endpoint])
            .arg(dir)
            .output()
            .unwrap()
    })
    .await
    .unwrap();
    server.abort();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(out.status.success(), "{text}");
    eprint!("{text}");
    assert!(cloud.app.file_names().unwrap().is_empty());
}

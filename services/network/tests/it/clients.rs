//! Unmodified clients, where they are installed (target/venv, python-openstackclient from PyPI; or the directory
//! in HANEUL_TEST_VENV).

use crate::cloud::{ADMIN, ALICE, Cloud, sqlite};
use std::path::PathBuf;

fn venv() -> Option<PathBuf> {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/venv");
    let path = std::env::var_os("HANEUL_TEST_VENV").map_or(own, PathBuf::from);
    path.join("bin/openstack").is_file().then_some(path)
}

async fn run(program: PathBuf, args: &[&str]) -> (bool, String) {
    let out = tokio::process::Command::new(&program)
        .env_clear()
        .env("PATH", std::env::var("PATH").unwrap())
        .args(args)
        .output()
        .await
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    (out.status.success(), text.trim().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fake_sdk() {
    let Some(venv) = venv() else {
        println!("skipped: no target/venv/bin/openstack (pip install python-openstackclient)");
        return;
    };
    let c = sqlite().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/sdk.py");
    let (good, text) = run(venv.join("bin/python"), &[script, &c.url(), ALICE]).await;
    assert!(good && text.ends_with("sdk ok"), "{text}");
    c.audit().await;
}

async fn openstack(c: &Cloud, venv: &std::path::Path, token: &str, args: &str) -> String {
    let url = c.url();
    let mut all = vec![
        "--os-auth-type",
        "admin_token",
        "--os-endpoint",
        &url,
        "--os-token",
        token,
    ];
    all.extend(args.split_whitespace());
    let (good, text) = run(venv.join("bin/openstack"), &all).await;
    assert!(good, "openstack {args}: {text}");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fake_openstack_client() {
    let Some(venv) = venv() else {
        println!("skipped: no target/venv/bin/openstack (pip install python-openstackclient)");
        return;
    };
    let c = sqlite().await;
    for (token, args, wanted) in [
        (ALICE, "network create demo -f value -c name", "demo"),
        (
            ALICE,
            "subnet create --network demo --subnet-range 10.0.0.0/24 demo-subnet -f value -c gateway_ip",
            "10.0.0.1",
        ),
        (ALICE, "router create demo-router -f value -c status", "ACTIVE"),
        (ALICE, "router set --external-gateway public demo-router", ""),
        (ALICE, "router add subnet demo-router demo-subnet", ""),
        (ALICE, "port create --network demo demo-port -f value -c status", "DOWN"),
        (
            ALICE,
            "floating ip create --port demo-port public -f value -c fixed_ip_address",
            "10.0.0.3",
        ),
        (
            ALICE,
            "security group rule create --protocol tcp --dst-port 22 default -f value -c port_range_min",
            "22",
        ),
        (
            ALICE,
            "security group rule create --protocol icmp default -f value -c protocol",
            "icmp",
        ),
        (
            ALICE,
            "network list -f value -c Name --sort-column Name",
            "demo\npublic",
        ),
        (ALICE, "router show demo-router -f value -c name", "demo-router"),
        (ADMIN, "network agent list -f value -c Alive", "True"),
    ] {
        let text = openstack(&c, &venv, token, args).await;
        assert!(text.contains(wanted), "openstack {args}: {text}");
    }
    c.audit().await;
}

//! The API over TLS, with a certificate that the user brought: nothing is said in clear text, and clients that people
//! have work as they are.

use crate::setup::options;
use haneul_testkit::{Cloud, eventually};
use haneul_tls::Authority;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Puts a certificate for loopback in place, and the one of its authority.
fn bring(dir: &Path) {
    let cloud = uuid::Uuid::new_v4();
    let authority = Authority::open(cloud, &Authority::generate(cloud).unwrap()).unwrap();
    let identity = authority.server(&["127.0.0.1".into()], 1).unwrap();
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("key.pem", &identity.key),
        ("cert.pem", &identity.certificate),
    ] {
        let new = dir.join(format!("{name}.new"));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, dir.join(name)).unwrap();
    }
}

fn curl(dir: &Path, url: &str) -> Output {
    Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--cacert"])
        .arg(dir.join("ca.pem"))
        .arg(url)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn fake_tls_with_a_users_certificate() {
    let dir = std::env::temp_dir().join(format!("haneul-test-{}", haneul_core::id::hex()));
    std::fs::create_dir_all(&dir).unwrap();
    bring(&dir);
    let mut options = options();
    for (key, file) in [("tls.certificate", "cert.pem"), ("tls.key", "key.pem")] {
        options.sets.push(format!("{key}={}", dir.join(file).display()));
    }
    let cloud = Cloud::start(options).await;
    let url = format!("https://{}", cloud.address);
    for (at, path) in [(&cloud.address, "/identity/v3"), (&cloud.metrics_address, "/metrics")] {
        let good = curl(&dir, &format!("https://{at}{path}"));
        assert!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
        assert!(!good.stdout.is_empty());
        let clear = curl(&dir, &format!("http://{at}{path}"));
        assert!(!clear.status.success(), "{path} is spoken in clear text");
    }
    let shown = curl(&dir, &format!("{url}/identity/v3"));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&url), "links are https: {shown}");

    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/openstack");
    if client.is_file() {
        let list = Command::new(client)
            .args(["--os-cacert"])
            .arg(dir.join("ca.pem"))
            .args(["server", "list", "--long"])
            .env("OS_AUTH_URL", format!("{url}/identity/v3"))
            .env("OS_USERNAME", "admin")
            .env("OS_PASSWORD", cloud.password())
            .env("OS_PROJECT_NAME", "admin")
            .env("OS_USER_DOMAIN_ID", "default")
            .env("OS_PROJECT_DOMAIN_ID", "default")
            .output()
            .unwrap();
        assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
    } else {
        println!("skipped in part: no target/venv/bin/openstack (the set-up of `cargo xtask test` installs it)");
    }

    // A new certificate in the same files is shown without a restart, a wrong one never.
    std::fs::write(dir.join("cert.pem"), "no certificate").unwrap();
    bring(&dir);
    eventually("the new certificate is shown", Duration::from_secs(60), || async {
        curl(&dir, &format!("{url}/healthz")).status.success().then_some(())
    })
    .await;
    std::fs::remove_dir_all(&dir).unwrap();
}

//! From POST /servers to ACTIVE and away again.

use crate::lab::{DEMO, FakeHost, Lab};
use http::Method;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_and_delete() {
    let lab = Lab::start().await;
    let host = FakeHost::join(&lab, 8, 8192, 100).await;
    let id = lab.create("web", "1").await;
    let s = lab.wait(&id, "ACTIVE").await;
    assert_eq!(s["OS-EXT-STS:power_state"], 1);
    assert_eq!(host.guest(&id).unwrap().metadata.hostname, "web");
    lab.audit().await;
    let gone = lab.call(DEMO, "2.96", Method::DELETE, &format!("/v2.1/servers/{id}"), None).await;
    assert_eq!(gone.status, 204);
    lab.wait_gone(&id).await;
    lab.audit().await;
}

//! An operator's own rules: `api.policy_file`.

use crate::fake_refusals::tenant;
use crate::setup::{Ready, options};
use haneul_testkit::Cloud;
use serde_json::json;

/// A misspelt rule does not start; a right one takes the place of the built-in one, for this rule only.
#[tokio::test(flavor = "multi_thread")]
async fn fake_policy_file_of_an_operator() {
    let mut cloud = Cloud::prepare(options());
    let file = cloud.dir.join("policy.yaml");
    cloud.options.sets.push(format!("api.policy_file={}", file.display()));

    std::fs::write(&file, "\"os_compute_api:keypairs:crate\": \"role:admin\"\n").unwrap();
    let refused = cloud.command().arg("serve").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success(), "{said}");
    for part in ["os_compute_api:keypairs:crate", "os_compute_api:os-keypairs:create"] {
        assert!(said.contains(part), "{part}: {said}");
    }

    let rules = "# nobody but administrators\n\"os_compute_api:os-keypairs:create\": \"role:admin\"\n";
    std::fs::write(&file, rules).unwrap();
    cloud.start_serve();
    cloud.start_agent();
    cloud.ready().await;
    let r = Ready::on(cloud).await;
    let (member, _) = tenant(&r, "red").await;
    let key = json!({"keypair": {"name": "k"}});
    let refused = member.post("/compute/v2.1/os-keypairs", &key).await.expect(403);
    let message = refused["forbidden"]["message"].as_str().unwrap();
    assert!(message.contains("os_compute_api:os-keypairs:create"), "{message}");
    r.admin.post("/compute/v2.1/os-keypairs", &key).await.expect(200);
    member.get("/compute/v2.1/os-keypairs").await.expect(200);
    r.cloud.audit().await;
}

//! No route answers without a token unless its table says so. (docs/routes.txt is compared by `cargo xtask tidy`.)

use crate::setup::options;
use haneul_testkit::Cloud;
use http::Method;

#[tokio::test(flavor = "multi_thread")]
async fn fake_routes_are_guarded() {
    let cloud = Cloud::start(options()).await;
    let all = cloud.admin(Method::GET, "/admin/v1/routes").await.expect("routes");
    let routes = all["routes"].as_array().expect("a list");
    assert!(routes.len() > 150, "{} routes", routes.len());

    // The sweep: a new route is swept without anyone thinking of it.
    let anonymous = cloud.anonymous();
    let mut forged = cloud.anonymous();
    forged.token = Some("gAAAAABnonsense".into());
    for r in routes {
        if r["rule"] == "public" {
            continue;
        }
        let method: Method = r["method"].as_str().unwrap().parse().unwrap();
        let path: String = r["path"]
            .as_str()
            .unwrap()
            .split('/')
            .map(|p| {
                if p.starts_with('{') {
                    "11111111-2222-4333-8444-555555555555"
                } else {
                    p
                }
            })
            .collect::<Vec<_>>()
            .join("/");
        let mut answers = Vec::new();
        for client in [&anonymous, &forged] {
            let a = client.send(method.clone(), &path, &[], vec![]).await;
            assert_eq!(a.status, 401, "{method} {path}: {}", a.text);
            // Placement repeats the request id in the body.
            let id = a.headers["x-openstack-request-id"].to_str().unwrap().to_owned();
            answers.push(a.text.replace(&id, "ID"));
        }
        // Nothing tells a forged token from none, or one id from another.
        assert_eq!(answers.first(), answers.get(1), "{method} {path}");
    }
    cloud.audit().await;
}

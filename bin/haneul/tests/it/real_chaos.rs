//! The real lane: everything at once, at random, on three hosts with real guests (see [`crate::chaos`]). A guest runs twice
//! when CPUs of two processes of it run, whatever control and the hosts say.

use crate::chaos::client::Menu;
use crate::chaos::faults::Chaos;
use crate::chaos::{Length, World, play, setting, truth};
use crate::real_lab::cannot;
use crate::real_three::Three;
use crate::setup::id;
use haneul_testkit::Client;
use haneul_testkit::postgres::{self, Postgres};
use serde_json::json;

impl Three {
    /// A client that may do everything to servers of the guests' project.
    async fn mighty(&self) -> Client {
        let find = async |path: &str, key: &str| {
            let found = self.admin.get(path).await.expect(200);
            id(&found, &format!("/{key}/0/id"))
        };
        let project = find("/identity/v3/projects?name=alpha", "projects").await;
        let user = find("/identity/v3/users?name=alpha", "users").await;
        let role = find("/identity/v3/roles?name=admin", "roles").await;
        let path = format!("/identity/v3/projects/{project}/users/{user}/roles/{role}");
        assert_eq!(self.admin.put(&path, &json!({})).await.status, 204);
        let client = self.r.cloud.anonymous();
        client
            .login("alpha", "a-long-password", "alpha")
            .await
            .at("compute 2.96")
    }

    async fn menu(&self) -> Menu {
        for (name, vcpus, ram, disk) in [("tiny", 1, 128, 1), ("small", 2, 160, 2)] {
            let flavor = json!({"flavor": {"name": name, "id": name, "vcpus": vcpus, "ram": ram, "disk": disk}});
            self.admin.post("/compute/v2.1/flavors", &flavor).await.expect(200);
        }
        let ports = self.c.get("/network/v2.0/networks?name=net").await.expect(200);
        Menu {
            admin: self.mighty().await,
            second: None,
            create: json!({"server": {
                "name": "", "imageRef": self.r.image, "flavorRef": "tiny", "key_name": "key",
                "networks": [{"uuid": id(&ports, "/networks/0/id")}], "security_groups": [{"name": "ssh"}]
            }}),
            image: self.r.image.clone(),
            cards: None,
            outside: self.r.external.clone(),
            slow: false,
            most: 3,
        }
    }
}

/// With PostgreSQL instead of SQLite, that dies as well.
async fn run(seed: u64, range: &str, postgres: Option<Postgres>) {
    if let Some(why) = cannot() {
        println!("SKIPPED: {why}");
        return;
    }
    let world = World::new::<Three>(seed);
    let database = postgres.iter().map(|p| p.create_database("cloud").unwrap());
    let database = database.map(|url| format!("database.url={url}")).collect();
    let three = Three::start_with(range, &["two", "three"], database).await;
    let menu = three.menu().await;
    let admin = menu.admin.clone();
    let length = Length {
        clients: 2,
        faults: setting("HANEUL_TEST_CHAOS_FAULTS", 24) as usize,
        round: 8,
    };
    let mut chaos = play(Chaos::new(&world, three, postgres), menu, length).await;
    chaos.lab.end().await;
    truth::rest(&world, &mut chaos.lab, &admin).await;
    truth::nothing_is_held(&world, &admin).await;
    world.check();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
async fn real_chaos_at_length() {
    run(1, "172.31.226.0/24", None).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes: `cargo xtask test --full` runs it"]
async fn real_chaos_with_postgresql_at_length() {
    if !postgres::installed() {
        println!("SKIPPED: PostgreSQL is not installed");
        return;
    }
    run(2, "172.31.225.0/24", Some(Postgres::start().unwrap())).await;
}

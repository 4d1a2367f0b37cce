//! The guarded claim (who comes too late gets nothing, and nothing of it is kept) and the API, on both databases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod api;

use api::Api;
use haneul_placement::{Inventory, Placement};
use haneul_store::{Actor, Db, OpenOptions};
use haneul_testkit::postgres::{self, Postgres};
use std::sync::Arc;

async fn open(url: String) -> Db {
    Db::open(&OpenOptions { url, readers: 2 }, haneul_placement::MIGRATIONS)
        .await
        .unwrap()
}

/// Twenty consumers want three VCPU and 100 MiB each, of sixteen and plenty.
async fn claims(db: Db) {
    let actor = Actor::system("test");
    let placement = Arc::new(Placement::new(db.clone()));
    let p = placement.clone();
    db.write(&actor, async move |tx| {
        p.provider_upsert(tx, "host", "host").await?;
        p.set_inventory(tx, "host", "MEMORY_MB", &Inventory::new(1 << 20, 0, 1.0))
            .await?;
        p.set_inventory(tx, "host", "VCPU", &Inventory::new(8, 0, 2.0)).await
    })
    .await
    .unwrap();
    let mut all = Vec::new();
    for i in 0..20 {
        let (db, p) = (db.clone(), placement.clone());
        all.push(tokio::spawn(async move {
            let claim = async move |tx: &mut haneul_store::Tx| {
                let amounts = [("MEMORY_MB", 100), ("VCPU", 3)];
                p.allocate(tx, &format!("c{i}"), "p1", "u1", "host", &amounts).await
            };
            db.write(&Actor::system("test"), claim).await.unwrap()
        }));
    }
    let mut given = 0;
    for one in all {
        given += i64::from(one.await.unwrap());
    }
    assert_eq!(given, 5, "claims of 3 that fit into 16");
    let mut tx = db.read().await.unwrap();
    let have = placement.inventories(&mut tx, "host").await.unwrap();
    assert_eq!((have["VCPU"].1, have["MEMORY_MB"].1), (15, 500), "used");
    assert_eq!(placement.consumers(&mut tx).await.unwrap().len(), 5);
    assert_eq!(placement.wrong_sums(&mut tx).await.unwrap(), vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_claims_get_nothing_on_sqlite() {
    let dir = std::env::temp_dir().join(format!("haneul-placement-{}", haneul_core::id::hex()));
    std::fs::create_dir_all(&dir).unwrap();
    claims(open(format!("sqlite:{}", dir.join("t.db").display())).await).await;
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn late_claims_get_nothing_on_postgres() {
    if !postgres::installed() {
        println!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
        return;
    }
    let pg = Postgres::start().expect("PostgreSQL starts");
    claims(open(pg.create_database("placement").expect("a database")).await).await;
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(#[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            let dir = std::env::temp_dir().join(format!("haneul-placement-{}", haneul_core::id::hex()));
            std::fs::create_dir_all(&dir).unwrap();
            let db = open(format!("sqlite:{}", dir.join("t.db").display())).await;
            api::$name(&Api::new(db)).await;
            std::fs::remove_dir_all(&dir).unwrap();
        })*
        /// All of them, each in a database of its own on one server.
        #[tokio::test(flavor = "multi_thread")]
        async fn the_api_on_postgres() {
            if !postgres::installed() {
                println!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
                return;
            }
            let pg = Postgres::start().expect("PostgreSQL starts");
            $({
                let db = open(pg.create_database(stringify!($name)).expect("a database")).await;
                api::$name(&Api::new(db)).await;
            })*
        }
    };
}

scenarios!(candidates, consumers, reshaper, trees, versions);

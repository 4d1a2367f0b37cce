//! What hosts may say, and what becomes of it.

use super::*;
use haneul_agent_api::{HypervisorInfo, Inventory};
use haneul_store::{Db, OpenOptions};

async fn fleet(dir: &std::path::Path) -> Arc<Fleet> {
    std::fs::create_dir_all(dir).unwrap();
    let url = format!("sqlite:{}", dir.join("t.db").display());
    let db = Db::open(&OpenOptions { url, readers: 2 }, crate::MIGRATIONS)
        .await
        .unwrap();
    Fleet::open(db).await.unwrap()
}

fn greeting(host_id: Uuid) -> Greeting {
    Greeting {
        protocol: PROTOCOL,
        release: "1".into(),
        host_id,
        host_name: "one".into(),
        boot_id: String::new(),
        inventory: Inventory {
            vcpus: 1,
            memory_mib: 1,
            disk_gib: 1,
        },
        hypervisor: HypervisorInfo {
            kind: "fake".into(),
            version: 1,
            accelerator: "fake".into(),
            arch: "x86_64".into(),
            cpu_model: String::new(),
            cpu_vendor: String::new(),
            cpu_features: vec![],
            sockets: 1,
            cores: 1,
            threads: 1,
            moves: true,
            shared_disks: None,
        },
        underlay: None,
    }
}

async fn say(fleet: &Arc<Fleet>, r: Report) -> Result<()> {
    limits::report(&r)?;
    let f = fleet.clone();
    fleet
        .db
        .write(&agent(r.host_id), async move |tx| take(&f, tx, &r).await)
        .await
}

fn seen(id: Uuid, epoch: u64, generation: u64, state: &str) -> haneul_agent_api::ObservedGuest {
    let seen = serde_json::json!({"id": id, "epoch": epoch, "generation": generation, "settled": true, "state": state});
    serde_json::from_value(seen).unwrap()
}

/// Hears what is news to the services.
#[derive(Default)]
struct Ear(std::sync::Mutex<Vec<String>>);

impl crate::Observer for Ear {
    fn guest<'t>(
        &'t self,
        _: &'t mut haneul_store::Tx,
        _: &'t str,
        g: &'t haneul_agent_api::ObservedGuest,
    ) -> crate::BoxFuture<'t, Result<()>> {
        self.0.lock().unwrap().push(format!("{:?}", g.state));
        Box::pin(async { Ok(()) })
    }
    fn gone<'t>(
        &'t self,
        _: &'t mut haneul_store::Tx,
        _: &'t str,
        _: Kind,
        _: &'t str,
    ) -> crate::BoxFuture<'t, Result<()>> {
        self.0.lock().unwrap().push("gone".into());
        Box::pin(async { Ok(()) })
    }
}

/// A report that comes late, or twice, or speaks of an older present, changes nothing and is heard by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_has_said_before_changes_nothing() {
    use haneul_agent_api::{Object, SecurityGroup, Tombstone};
    let dir = std::env::temp_dir().join(format!("haneul-fleet-{}", haneul_core::id::hex()));
    crate::raise_epoch(&fleet(&dir).await.db).await.unwrap();
    let fleet = fleet(&dir).await;
    let ear = Arc::new(Ear::default());
    fleet.set_observers(vec![ear.clone()]);
    let (host, id) = (Uuid::new_v4(), Uuid::new_v4());
    let greet = async || {
        let (f, g) = (fleet.clone(), greeting(host));
        let actor = agent(host);
        let greeted = fleet.db.write(&actor, async move |tx| f.greet(tx, &g).await);
        greeted.await.unwrap()
    };
    let report = |session, number, guest| Report {
        host_id: host,
        session,
        number,
        guests: vec![guest],
        ..Report::default()
    };
    let heard = || std::mem::take(&mut *ear.0.lock().unwrap());
    let stored = async || {
        let mut tx = fleet.db.read().await.unwrap();
        let found = fleet.observed_guest(&mut tx, &host.to_string(), &id.to_string()).await;
        found.unwrap().map(|g| (g.generation, format!("{:?}", g.state)))
    };

    let first = greet().await;
    let early = report(first, 1, seen(id, 2, 5, "building"));
    let late = report(first, 2, seen(id, 2, 5, "running"));
    say(&fleet, early.clone()).await.unwrap();
    say(&fleet, late.clone()).await.unwrap();
    assert_eq!(heard(), ["Building", "Running"]);
    // Said again, or after the next greeting: of the same generation, but of another time.
    let second = greet().await;
    assert!(second > first);
    say(&fleet, report(second, 1, seen(id, 2, 5, "stopped"))).await.unwrap();
    heard();
    for old in [early, late, report(second, 1, seen(id, 2, 5, "running"))] {
        let refused = say(&fleet, old).await.unwrap_err();
        assert!(refused.public().contains("It changes nothing"), "{}", refused.public());
    }
    // An older generation, and an older epoch with a generation that is far ahead.
    say(&fleet, report(second, 2, seen(id, 2, 4, "failed"))).await.unwrap();
    say(&fleet, report(second, 3, seen(id, 1, 900, "failed")))
        .await
        .unwrap();
    let other = seen(Uuid::new_v4(), 1, 900, "failed");
    say(&fleet, report(second, 4, other)).await.unwrap();
    assert_eq!(stored().await, Some((5, "Stopped".into())));
    assert!(heard().is_empty());

    // A tombstone that an older present has seen carried out may be another than the one that stands here.
    let group = Object::SecurityGroup(SecurityGroup {
        id,
        rules: vec![],
        members: vec![],
        stateful: true,
    });
    let (f, actor) = (fleet.clone(), agent(host));
    let buried = fleet.db.write(&actor, async move |tx| {
        f.put(tx, &host.to_string(), &group).await?;
        f.remove(tx, &host.to_string(), Kind::SecurityGroup, &id.to_string())
            .await
    });
    buried.await.unwrap();
    let gone = |number, epoch| Report {
        guests: vec![],
        gone: vec![Tombstone {
            kind: Kind::SecurityGroup,
            id,
            epoch,
            generation: 900,
            disks: false,
        }],
        ..report(second, number, seen(id, 1, 1, "gone"))
    };
    say(&fleet, gone(5, 1)).await.unwrap();
    assert!(heard().is_empty());
    say(&fleet, gone(6, 2)).await.unwrap();
    assert_eq!(heard(), ["gone"]);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// Whatever a host says is taken, or refused with the host's own mistake: never an error of ours.
#[tokio::test(flavor = "multi_thread")]
async fn spoiled_messages_are_refused() {
    let dir = std::env::temp_dir().join(format!("haneul-fleet-{}", haneul_core::id::hex()));
    let fleet = fleet(&dir).await;
    let said = serde_json::json!({
        "host_id": Uuid::from_u128(1), "guests": [seen(Uuid::from_u128(2), 1, 5, "running")],
        "ports": [{"id": Uuid::from_u128(3), "epoch": 1, "generation": 6, "up": true, "failure": null}],
        "passwords": [{"guest": Uuid::from_u128(2), "clears": 0, "password": "x"}],
        "fences": [{"id": Uuid::from_u128(4), "epoch": 1, "generation": 1, "token": 1, "state": "silent"}],
        "gone": [{"kind": "guest", "id": Uuid::from_u128(5), "epoch": 1, "generation": 7}],
    });
    let valid = serde_json::to_vec(&said).unwrap();
    serde_json::from_slice::<Report>(&valid).unwrap();
    let hello = serde_json::to_vec(&greeting(Uuid::from_u128(1))).unwrap();
    let (mut dice, mut taken, mut refused) = (haneul_testkit::Dice::new(7), 0, 0);
    for _ in 0..1500 {
        let (mut text, mut other) = (valid.clone(), hello.clone());
        dice.spoil(&mut text);
        dice.spoil(&mut other);
        if let Ok(g) = serde_json::from_slice::<Greeting>(&other)
            && check_protocol(g.protocol).is_ok()
            && limits::greeting(&g).is_ok()
        {
            let (f, host) = (fleet.clone(), g.host_id);
            let actor = agent(host);
            let greeted = fleet.db.write(&actor, async move |tx| f.greet(tx, &g).await);
            if let Err(e) = greeted.await {
                assert!(e.kind().status() < 500, "{e:?}: {}", String::from_utf8_lossy(&other));
            }
        }
        let Ok(report) = serde_json::from_slice::<Report>(&text) else {
            refused += 1;
            continue;
        };
        match say(&fleet, report).await {
            Ok(()) => taken += 1,
            Err(e) => assert!(e.kind().status() < 500, "{e:?}: {}", String::from_utf8_lossy(&text)),
        }
    }
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
    // What is too much is refused with its numbers, and nothing of it is taken.
    let guests = |n: u128| {
        (0..n)
            .map(|n| seen(Uuid::from_u128(100 + n), 1, 1, "running"))
            .collect()
    };
    let many = Report {
        guests: guests(haneul_agent_api::MAX_ITEMS as u128 + 1),
        ..Report::default()
    };
    let e = say(&fleet, many).await.unwrap_err();
    assert!(e.public().contains("2001 observations"), "{}", e.public());
    let mut long = Report {
        guests: guests(2),
        ..Report::default()
    };
    long.guests[1].progress = Some(haneul_agent_api::Progress {
        what: "x".repeat(200_000),
        percent: None,
    });
    let e = say(&fleet, long).await.unwrap_err();
    assert!(e.public().contains("bytes, and 131072 are the most"), "{}", e.public());
    let mut tx = fleet.db.read().await.unwrap();
    let (host, guest) = (Uuid::nil().to_string(), Uuid::from_u128(100).to_string());
    let first = fleet.observed_guest(&mut tx, &host, &guest).await.unwrap();
    assert!(first.is_none(), "half of a report was taken");
    let mut g = greeting(Uuid::from_u128(1));
    g.host_name = "x".repeat(300);
    assert!(limits::greeting(&g).unwrap_err().public().contains("has 300 bytes"));
    g.host_name = "one".into();
    g.inventory.memory_mib = u64::MAX;
    assert!(limits::greeting(&g).unwrap_err().public().contains("MiB of memory"));
    drop(tx);
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What the release before does not know would end its watch.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_agent_is_told_of_what_it_knows() {
    use haneul_agent_api::{Neighbour, Object, SecurityGroup};
    let dir = std::env::temp_dir().join(format!("haneul-fleet-{}", haneul_core::id::hex()));
    let fleet = fleet(&dir).await;
    let (host, id) = (Uuid::new_v4(), Uuid::new_v4());
    let group = Object::SecurityGroup(SecurityGroup {
        id,
        rules: vec![],
        members: vec![],
        stateful: true,
    });
    let neighbour = Object::Neighbour(Neighbour {
        id,
        network_id: id,
        mac: String::new(),
        addresses: vec![],
        dns_name: String::new(),
        host: [10, 0, 0, 1].into(),
    });
    let f = fleet.clone();
    fleet
        .db
        .write(&agent(host), async move |tx| {
            f.put(tx, &host.to_string(), &group).await?;
            f.put(tx, &host.to_string(), &neighbour).await
        })
        .await
        .unwrap();
    for (protocol, lines) in [(1, 1), (2, 2)] {
        fleet.hub.greeted(&host.to_string(), protocol);
        let (told, last, _) = fleet.lines(&host.to_string(), 0).await.unwrap();
        assert_eq!((told.len(), last), (lines, 2), "protocol {protocol}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// An agent comes back at once, and the end of its former stream is written late.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_end_leaves_no_open_stream_of_a_host_that_is_down() {
    let dir = std::env::temp_dir().join(format!("haneul-fleet-{}", haneul_core::id::hex()));
    let fleet = fleet(&dir).await;
    let host = Uuid::new_v4();
    let id = host.to_string();
    let greet = async || {
        let (f, g) = (fleet.clone(), greeting(host));
        fleet
            .db
            .write(&agent(host), async move |tx| f.greet(tx, &g).await)
            .await
            .unwrap();
    };
    let end = async || {
        let (f, id) = (fleet.clone(), id.clone());
        fleet
            .db
            .write(&agent(host), async move |tx| f.stream_ended(tx, &id).await)
            .await
            .unwrap();
    };
    // Between greeting and watch: the watch ends, so that the agent greets anew.
    greet().await;
    end().await;
    let (send, mut receive) = mpsc::channel(16);
    tokio::spawn(pump(fleet.clone(), host, send));
    let first = tokio::time::timeout(Duration::from_secs(30), receive.recv())
        .await
        .unwrap();
    assert!(first.is_none(), "the stream of a host that is down stays open");
    // After the watch was opened: the late end says nothing any more.
    greet().await;
    let (send, mut receive) = mpsc::channel(16);
    tokio::spawn(pump(fleet.clone(), host, send));
    let first = tokio::time::timeout(Duration::from_secs(30), receive.recv())
        .await
        .unwrap();
    assert!(first.is_some());
    end().await;
    assert!(fleet.is_up(&id).await.unwrap());
    // The end of this one does.
    drop(receive);
    let start = std::time::Instant::now();
    while fleet.is_up(&id).await.unwrap() {
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "the host is up without a stream"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn neighbouring_protocols_are_understood() {
    for (theirs, understood) in [
        (PROTOCOL - 2, false),
        (PROTOCOL - 1, true),
        (PROTOCOL, true),
        (PROTOCOL + 1, true),
        (PROTOCOL + 2, false),
    ] {
        assert_eq!(check_protocol(theirs).is_ok(), understood, "{theirs}");
    }
}

/// Another process of control has removed the host, and the word of it was lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_host_hears_nothing_more_though_nobody_has_said_so() {
    let dir = std::env::temp_dir().join(format!("haneul-fleet-{}", haneul_core::id::hex()));
    let fleet = fleet(&dir).await;
    let host = Uuid::new_v4();
    let (f, g) = (fleet.clone(), greeting(host));
    let actor = agent(host);
    let greet = fleet.db.write(&actor, async move |tx| f.greet(tx, &g).await);
    greet.await.unwrap();
    let (send, mut receive) = mpsc::channel(16);
    tokio::spawn(pump(fleet.clone(), host, send));
    let limit = Duration::from_secs(30);
    assert!(tokio::time::timeout(limit, receive.recv()).await.unwrap().is_some());
    let gone = fleet.db.write(&actor, async move |tx| {
        tx.exec("DELETE FROM host WHERE id = $1", &[host.to_string().into()])
            .await
    });
    gone.await.unwrap();
    // What is done after news were missed.
    fleet.hub.wake_all();
    let next = tokio::time::timeout(limit, receive.recv()).await.unwrap();
    assert!(next.is_none(), "the stream of a host that was removed stays open");
    std::fs::remove_dir_all(&dir).unwrap();
}

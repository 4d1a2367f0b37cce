//! Several processes on one PostgreSQL, and what becomes of writes when it is started anew. A process is played by a
//! runtime of its own: when that goes, its connections go.

use super::{MIGRATIONS, actor};
use haneul_core::{Error, Kind};
use haneul_store::{Db, OpenOptions, Process, Signal};
use haneul_testkit::postgres::{self, Postgres};
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Runtime;

fn server() -> Option<(Postgres, String)> {
    if !postgres::installed() {
        println!("SKIPPED: PostgreSQL is not installed");
        return None;
    }
    let pg = Postgres::start().expect("PostgreSQL starts");
    let url = pg.create_database("t").unwrap();
    Some((pg, url))
}

async fn open(url: &str) -> Db {
    let options = OpenOptions {
        url: url.into(),
        readers: 2,
    };
    Db::open(&options, MIGRATIONS).await.unwrap()
}

/// Another process.
struct Other {
    runtime: Runtime,
    db: Db,
    process: Process,
}

fn other(url: &str) -> Other {
    let runtime = Runtime::new().unwrap();
    let (db, process) = runtime.block_on(async {
        let db = open(url).await;
        let process = db.enlist(json!({"n": 1})).await.unwrap();
        (db, process)
    });
    Other { runtime, db, process }
}

async fn claim(db: &Db, what: &'static str) -> haneul_core::Result<bool> {
    db.write(&actor(), async move |tx| tx.claim(what).await).await
}

#[test]
fn what_a_process_had_is_the_next_ones_when_it_is_gone_and_it_writes_nothing_more() {
    let Some((_pg, url)) = server() else { return };
    let (one, two) = (other(&url), other(&url));
    let mut heard = two.db.signals();
    two.runtime.block_on(async {
        assert!(!two.db.leads().await.unwrap(), "the first leads");
        assert!(claim(&one.db, "a").await.unwrap() && claim(&one.db, "a").await.unwrap());
        assert!(!claim(&two.db, "a").await.unwrap(), "taken from one who lives");
        let tell = async |tx: &mut haneul_store::Tx| {
            tx.tell("host", "h1");
            Ok(())
        };
        one.db.write(&actor(), tell).await.unwrap();
        let news = Signal::News {
            topic: "host".into(),
            about: "h1".into(),
        };
        assert_eq!(heard.next().await, news);
        let mut tx = two.db.read().await.unwrap();
        assert_eq!(
            tx.processes().await.unwrap(),
            [one.process.clone(), two.process.clone()]
        );
        assert!(tx.is_claimed_elsewhere("a").await.unwrap());
    });
    let Other { runtime, db, process } = one;
    runtime.shutdown_background();
    two.runtime.block_on(async {
        assert_eq!(heard.next().await, Signal::Gone(process.id.clone()));
        assert!(two.db.leads().await.unwrap());
        let mut tx = two.db.read().await.unwrap();
        assert!(!tx.is_claimed_elsewhere("a").await.unwrap());
        assert!(claim(&two.db, "a").await.unwrap());
        // It lives after all, and hears that it was given up.
        let refused = claim(&db, "b").await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Unavailable, "{refused}");
        db.given_up().await;
    });
}

/// Rows that are everybody's, taken in opposite orders: without turns PostgreSQL lets some wait for a second, and undoes them.
#[test]
fn writes_of_two_processes_take_turns() {
    let Some((pg, url)) = server() else { return };
    let both = [other(&url), other(&url)];
    both[0].runtime.block_on(async {
        let sql = "INSERT INTO pool(name, used, lim) VALUES('a', 0, 0), ('b', 0, 0)";
        let write = async move |tx: &mut haneul_store::Tx| tx.exec(sql, &[]).await;
        both[0].db.write(&actor(), write).await.unwrap();
    });
    let runs = Arc::new(AtomicUsize::new(0));
    let writes: Vec<_> = (0..200)
        .map(|n| {
            let (db, runs) = (both[n % 2].db.clone(), runs.clone());
            both[n % 2].runtime.spawn(async move {
                let order = if n % 2 == 0 { ["a", "b"] } else { ["b", "a"] };
                db.write(&actor(), async move |tx| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    for name in order {
                        let sql = "UPDATE pool SET used = used + 1 WHERE name = $1";
                        tx.exec(sql, &[name.into()]).await?;
                    }
                    Ok(())
                })
                .await
            })
        })
        .collect();
    both[0].runtime.block_on(async {
        for write in writes {
            write.await.unwrap().unwrap();
        }
    });
    assert_eq!(
        pg.psql("t", "SELECT name, used FROM pool ORDER BY name").unwrap(),
        "a|200\nb|200"
    );
    assert_eq!(runs.load(Ordering::Relaxed), 200, "none is repeated");
}

#[test]
fn a_process_that_stands_still_in_a_write_does_not_keep_the_others() {
    let Some((_pg, url)) = server() else { return };
    let (frozen, two) = (other(&url), other(&url));
    let (inside, is_inside) = std::sync::mpsc::channel();
    let (thaw, thawed) = std::sync::mpsc::channel::<()>();
    let (inside, thawed) = (Mutex::new(inside), Mutex::new(thawed));
    let db = frozen.db.clone();
    let write = frozen.runtime.spawn(async move {
        let what = async move |tx: &mut haneul_store::Tx| {
            let claimed = tx.claim("a").await;
            // Its thread stands still, as all of a process that is stopped does.
            let _ = inside.lock().unwrap().send(());
            let _ = thawed.lock().unwrap().recv();
            claimed
        };
        db.write(&actor(), what).await
    });
    is_inside.recv().unwrap();
    assert!(
        two.runtime.block_on(claim(&two.db, "a")).unwrap(),
        "the other waits for its turn, and gets it"
    );
    drop(thaw);
    let late = frozen.runtime.block_on(write).unwrap();
    assert_ne!(
        late.ok(),
        Some(true),
        "it was undone: it sees what came meanwhile, or has waited too long"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_has_room_for_one_process() {
    let dir = std::env::temp_dir().join(format!("haneul-store-{}", haneul_core::id::hex()));
    std::fs::create_dir_all(&dir).unwrap();
    let url = format!("sqlite:{}", dir.join("t.db").display());
    let (one, two) = (open(&url).await, open(&url).await);
    one.enlist(json!({})).await.unwrap();
    let refused = two.enlist(json!({})).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::Conflict);
    assert!(refused.public().contains("PostgreSQL"), "{refused}");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What was acknowledged is there, what was refused is not, and most of it waits and is done.
#[tokio::test(flavor = "multi_thread")]
async fn writes_outlast_a_restart_of_postgresql() {
    let Some((mut pg, url)) = server() else { return };
    let db = open(&url).await;
    db.enlist(json!({})).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let done = Arc::new(Mutex::new((BTreeSet::new(), BTreeSet::new(), Vec::<Error>::new())));
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let (db, stop, done) = (db.clone(), stop.clone(), done.clone());
            tokio::spawn(async move {
                for n in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = format!("{w}-{n}");
                    let row = name.clone();
                    let sql = "INSERT INTO pool(name, used, lim) VALUES($1, 0, 0)";
                    let written = db
                        .write(&actor(), async move |tx| tx.exec(sql, &[row.as_str().into()]).await)
                        .await;
                    let mut done = done.lock().unwrap();
                    match written {
                        Ok(_) => done.0.insert(name),
                        Err(e) => {
                            done.2.push(e);
                            done.1.insert(name)
                        }
                    };
                }
            })
        })
        .collect();
    let reach = async |n: usize| {
        while done.lock().unwrap().0.len() < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    for round in 1..=3 {
        reach(round * 100).await;
        pg.kill();
        pg.restart().unwrap();
    }
    let before = done.lock().unwrap().0.len();
    reach(before + 100).await;
    stop.store(true, Ordering::Relaxed);
    for w in writers {
        w.await.unwrap();
    }
    let mut tx = db.read().await.unwrap();
    let rows = tx.rows("SELECT name FROM pool", &[]).await.unwrap();
    let there: BTreeSet<String> = rows.iter().map(|r| r.str(0).unwrap()).collect();
    let done = done.lock().unwrap();
    assert_eq!(there, done.0, "acknowledged is what is there; errors: {:?}", done.2);
    assert!(
        done.1.is_empty(),
        "a restart of a second or two fails nothing: {:?}",
        done.2
    );
}

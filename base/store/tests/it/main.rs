//! One store suite, stamped onto both databases. PostgreSQL comes from Debian and is started by the test; where it
//! is not installed, its half is skipped and says so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod processes;

use haneul_core::{Error, Kind};
use haneul_store::{Actor, Db, Dir, Migration, OpenOptions, Query, Resource, System, V, changes_since};
use haneul_testkit::postgres::Postgres;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MIGRATIONS: &[Migration] = &[Migration {
    owner: "test",
    number: 1,
    sql: "CREATE TABLE thing(id TEXT PRIMARY KEY, project_id TEXT, name TEXT NOT NULL, generation BIGINT NOT NULL,
              created_at BIGINT NOT NULL, updated_at BIGINT NOT NULL, doc TEXT NOT NULL, size BIGINT NOT NULL, tag TEXT UNIQUE);
          CREATE TABLE pool(name TEXT PRIMARY KEY, used BIGINT NOT NULL, lim BIGINT NOT NULL, bytes {{blob}});
          CREATE TABLE log(n {{serial}}, x DOUBLE PRECISION)",
}];

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Thing {
    id: String,
    project: Option<String>,
    name: String,
    size: i64,
    #[serde(default)]
    tag: Option<String>,
    #[serde(default)]
    secret: String,
}

impl Resource for Thing {
    const KIND: &'static str = "thing";
    const TABLE: &'static str = "thing";
    const COLUMNS: &'static [&'static str] = &["size", "tag"];
    fn id(&self) -> &str {
        &self.id
    }
    fn project_id(&self) -> Option<&str> {
        self.project.as_deref()
    }
    fn name(&self) -> &str {
        &self.name
    }
    fn columns(&self) -> Vec<V> {
        vec![self.size.into(), (&self.tag).into()]
    }
    fn logged(&self) -> serde_json::Value {
        let mut v = serde_json::to_value(self).unwrap();
        v.as_object_mut().unwrap().remove("secret");
        v
    }
}

fn thing(id: &str, name: &str, size: i64) -> Thing {
    Thing {
        id: id.into(),
        project: Some("p1".into()),
        name: name.into(),
        size,
        tag: None,
        secret: "hush".into(),
    }
}

fn actor() -> Actor {
    Actor {
        user: "u1".into(),
        project: "p1".into(),
        request_id: "req-1".into(),
    }
}

/// A database of a test's own, and what keeps it alive.
struct Home {
    db: Db,
    url: String,
    dir: Option<PathBuf>,
    _postgres: Option<Postgres>,
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(d) = &self.dir {
            let _ = std::fs::remove_dir_all(d);
        }
    }
}

async fn open(url: &str) -> Db {
    let options = OpenOptions {
        url: url.into(),
        readers: 2,
    };
    Db::open(&options, MIGRATIONS).await.unwrap()
}

async fn sqlite() -> Option<Home> {
    let dir = std::env::temp_dir().join(format!("haneul-store-{}", haneul_core::id::hex()));
    std::fs::create_dir_all(&dir).unwrap();
    let url = format!("sqlite:{}", dir.join("t.db").display());
    Some(Home {
        db: open(&url).await,
        url,
        dir: Some(dir),
        _postgres: None,
    })
}

async fn postgres() -> Option<Home> {
    if !haneul_testkit::postgres::installed() {
        println!("skipped: PostgreSQL is not installed (apt-get install postgresql)");
        return None;
    }
    let pg = Postgres::start().expect("PostgreSQL starts");
    let url = pg.create_database("store").expect("a database");
    Some(Home {
        db: open(&url).await,
        url,
        dir: None,
        _postgres: Some(pg),
    })
}

macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod on_sqlite { $(#[tokio::test(flavor = "multi_thread")] async fn $name() { if let Some(h) = super::sqlite().await { super::$name(&h).await; } })* }
        mod on_postgres { $(#[tokio::test(flavor = "multi_thread")] async fn $name() { if let Some(h) = super::postgres().await { super::$name(&h).await; } })* }
    };
}

suite!(
    resources_and_their_log,
    a_failed_closure_leaves_nothing_and_its_neighbours_stay,
    guards_under_concurrency,
    lost_updates_are_refused,
    pages_are_the_same_everywhere,
    reading_transactions_cannot_write,
    values_of_all_kinds,
    a_caller_that_goes_away_does_not_cancel,
    a_release_goes_back_by_one_and_no_more,
    migrations_run_once,
    dumps_are_read_by_the_other_database,
);

async fn resources_and_their_log(h: &Home) {
    let t = thing("a", "one", 1);
    let t2 = t.clone();
    let stored =
        h.db.write(&actor(), async move |tx| tx.insert(&System::create(), &t2).await)
            .await
            .unwrap()
            .unwrap();
    assert_eq!((stored.generation, &stored.value), (1, &t));
    // The same id again: nothing, and nothing in the log.
    let t2 = t.clone();
    let again =
        h.db.write(&actor(), async move |tx| tx.insert(&System::create(), &t2).await)
            .await
            .unwrap();
    assert!(again.is_none());
    h.db.write(&actor(), async |tx| {
        let old = tx.find::<Thing>("a").await?.unwrap();
        let mut new = old.value.clone();
        new.size = 2;
        tx.update(&System::of(old), &new).await?;
        let old = tx.find::<Thing>("a").await?.unwrap();
        assert_eq!((old.generation, old.size), (2, 2));
        tx.delete(&System::of(old)).await
    })
    .await
    .unwrap();
    let mut tx = h.db.read().await.unwrap();
    assert!(tx.find::<Thing>("a").await.unwrap().is_none());
    let log = changes_since(&mut tx, 0, 100).await.unwrap();
    let said: Vec<(&str, i64, &str, &str)> = log
        .iter()
        .map(|c| {
            (
                c.operation.as_str(),
                c.generation,
                c.actor.as_str(),
                c.request_id.as_str(),
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            ("create", 1, "u1", "req-1"),
            ("update", 2, "u1", "req-1"),
            ("delete", 3, "u1", "req-1")
        ]
    );
    assert!(
        log.iter().all(|c| c.state.get("secret").is_none()),
        "no secret in the log"
    );
    assert!(log.windows(2).all(|w| w[0].sequence < w[1].sequence));
}

async fn a_failed_closure_leaves_nothing_and_its_neighbours_stay(h: &Home) {
    let hooked = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for i in 0..40 {
        let (db, hooked) = (h.db.clone(), hooked.clone());
        tasks.push(tokio::spawn(async move {
            let t = thing(&format!("t{i}"), "x", i);
            db.write(&actor(), async move |tx| {
                tx.insert(&System::create(), &t).await?;
                if i % 2 == 1 {
                    let hooked = hooked.clone();
                    tx.after_commit(move || hooked.store(true, Ordering::SeqCst));
                    return Err(Error::bad_request("odd"));
                }
                Ok(())
            })
            .await
        }));
    }
    for (i, t) in tasks.into_iter().enumerate() {
        assert_eq!(t.await.unwrap().is_ok(), i % 2 == 0);
    }
    let mut tx = h.db.read().await.unwrap();
    assert_eq!(tx.count::<Thing>(&Query::new()).await.unwrap(), 20);
    assert_eq!(changes_since(&mut tx, 0, 100).await.unwrap().len(), 20);
    assert!(!hooked.load(Ordering::SeqCst), "no hook of a failed write runs");
}

async fn guards_under_concurrency(h: &Home) {
    h.db.write(&actor(), async |tx| {
        tx.exec(
            "INSERT INTO pool(name, used, lim) VALUES($1, 0, $2)",
            &["p".into(), 25.into()],
        )
        .await
    })
    .await
    .unwrap();
    let mut tasks = Vec::new();
    for i in 0..60 {
        let db = h.db.clone();
        tasks.push(tokio::spawn(async move {
            let t = thing(&format!("g{i}"), "x", i);
            db.write(&actor(), async move |tx| {
                let n = tx
                    .exec(
                        "UPDATE pool SET used = used + 1 WHERE name = $1 AND used + 1 <= lim",
                        &["p".into()],
                    )
                    .await?;
                if n == 0 {
                    return Err(Error::new(Kind::OverQuota, "full"));
                }
                tx.insert(&System::create(), &t).await?;
                tx.next_number("c").await
            })
            .await
        }));
    }
    let mut numbers = Vec::new();
    let mut refused = 0;
    for t in tasks {
        match t.await.unwrap() {
            Ok(n) => numbers.push(n),
            Err(e) => {
                assert_eq!(e.kind(), Kind::OverQuota, "{e}");
                refused += 1;
            }
        }
    }
    numbers.sort();
    assert_eq!(numbers, (1..=25).collect::<Vec<_>>(), "no number twice, none lost");
    assert_eq!(refused, 35);
    let mut tx = h.db.read().await.unwrap();
    assert_eq!(tx.count::<Thing>(&Query::new()).await.unwrap(), 25);
    let used = tx
        .row("SELECT used FROM pool", &[])
        .await
        .unwrap()
        .unwrap()
        .i64(0)
        .unwrap();
    assert_eq!(used, 25);
}

async fn lost_updates_are_refused(h: &Home) {
    h.db.write(&actor(), async |tx| {
        tx.insert(&System::create(), &thing("l", "x", 1)).await
    })
    .await
    .unwrap();
    let stale = h.db.read().await.unwrap().find::<Thing>("l").await.unwrap().unwrap();
    h.db.write(&actor(), async |tx| {
        let old = tx.find::<Thing>("l").await?.unwrap();
        tx.update(&System::of(old), &thing("l", "x", 2)).await
    })
    .await
    .unwrap();
    let stale = Arc::new(stale);
    let e =
        h.db.write(&actor(), async move |tx| {
            tx.update(&System::of((*stale).clone()), &thing("l", "x", 3)).await
        })
        .await
        .map(|_| ())
        .unwrap_err();
    assert_ne!(e.kind(), Kind::Internal, "{e}");
    let now = h.db.read().await.unwrap().find::<Thing>("l").await.unwrap().unwrap();
    assert_eq!(now.size, 2);
}

async fn pages_are_the_same_everywhere(h: &Home) {
    // Names that collations order differently: both databases must go by bytes.
    let names = ["b", "A", "a", "_", "é", "Z", "10", "9", "b", "하늘"];
    h.db.write(&actor(), async move |tx| {
        for (i, n) in names.iter().enumerate() {
            tx.insert(&System::create(), &thing(&format!("id{i}"), n, (i % 3) as i64))
                .await?;
        }
        Ok(())
    })
    .await
    .unwrap();
    let mut tx = h.db.read().await.unwrap();
    let mut expected: Vec<(String, String)> = names
        .iter()
        .enumerate()
        .map(|(i, n)| (n.to_string(), format!("id{i}")))
        .collect();
    expected.sort();
    for (dir, expected) in [
        (Dir::Asc, expected.clone()),
        (Dir::Desc, expected.into_iter().rev().collect()),
    ] {
        let mut got: Vec<(String, String)> = Vec::new();
        loop {
            let mut q = Query::new().order("name", dir).order("id", dir).limit(3);
            if let Some((name, id)) = got.last() {
                q = q.after(vec![name.into(), id.into()]);
            }
            let page = tx.list::<Thing>(&q).await.unwrap();
            if page.is_empty() {
                break;
            }
            got.extend(page.into_iter().map(|s| (s.value.name, s.value.id)));
        }
        assert_eq!(got, expected);
    }
    let q = Query::new()
        .is_in("name", ["a", "A"])
        .eq("size", 1)
        .order("id", Dir::Asc);
    assert_eq!(tx.list::<Thing>(&q).await.unwrap().len(), 1);
    assert_eq!(
        tx.count::<Thing>(&Query::new().is_in("name", Vec::<&str>::new()))
            .await
            .unwrap(),
        0
    );
    let q = Query::new()
        .any_eq(vec![("name", "a".into()), ("name", "9".into())])
        .raw("size >= {} AND size < {}", vec![0.into(), 9.into()]);
    assert_eq!(tx.count::<Thing>(&q).await.unwrap(), 2);
}

async fn reading_transactions_cannot_write(h: &Home) {
    let mut tx = h.db.read().await.unwrap();
    assert!(tx.exec("DELETE FROM thing", &[]).await.is_err());
    assert!(tx.insert(&System::create(), &thing("r", "x", 1)).await.is_err());
    drop(tx);
    // And the connection is good for the next one.
    assert!(h.db.read().await.unwrap().find::<Thing>("r").await.unwrap().is_none());
}

async fn values_of_all_kinds(h: &Home) {
    h.db.write(&actor(), async |tx| {
        tx.exec(
            "INSERT INTO pool(name, used, lim, bytes) VALUES($1,$2,$3,$4)",
            &[
                "한글 ' \" \\".into(),
                V::I(i64::MAX),
                V::I(i64::MIN),
                V::B(vec![0, 255, 7]),
            ],
        )
        .await?;
        tx.exec("INSERT INTO log(x) VALUES($1)", &[V::F(0.1)]).await?;
        tx.insert(
            &System::create(),
            &Thing {
                project: None,
                ..thing("n", "x", 1)
            },
        )
        .await
    })
    .await
    .unwrap();
    let mut tx = h.db.read().await.unwrap();
    let r = tx
        .row("SELECT name, used, lim, bytes FROM pool", &[])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(r.str(0).unwrap(), "한글 ' \" \\");
    assert_eq!((r.i64(1).unwrap(), r.i64(2).unwrap()), (i64::MAX, i64::MIN));
    assert_eq!(r.bytes(3).unwrap(), vec![0, 255, 7]);
    let r = tx.row("SELECT n, x FROM log", &[]).await.unwrap().unwrap();
    assert_eq!((r.i64(0).unwrap(), r.f64(1).unwrap()), (1, 0.1));
    assert_eq!(tx.count::<Thing>(&Query::new().is_null("project_id")).await.unwrap(), 1);
    assert_eq!(
        tx.row("SELECT tag FROM thing", &[])
            .await
            .unwrap()
            .unwrap()
            .opt_str(0)
            .unwrap(),
        None
    );
}

async fn a_caller_that_goes_away_does_not_cancel(h: &Home) {
    let db = h.db.clone();
    let (told, tell) = tokio::sync::oneshot::channel();
    let told = Arc::new(std::sync::Mutex::new(Some(told)));
    let caller = tokio::spawn(async move {
        db.write(&actor(), async move |tx| {
            tx.insert(&System::create(), &thing("gone", "x", 1)).await?;
            if let Some(t) = told.lock().unwrap().take() {
                let _ = t.send(());
            }
            tx.next_number("slow").await
        })
        .await
    });
    tell.await.unwrap();
    caller.abort();
    // The next write queues behind it (or meets it), and sees it.
    for _ in 0..200 {
        if h.db
            .read()
            .await
            .unwrap()
            .find::<Thing>("gone")
            .await
            .unwrap()
            .is_some()
        {
            return;
        }
        tokio::task::yield_now().await;
        h.db.write(&actor(), async |tx| tx.next_number("other").await)
            .await
            .unwrap();
    }
    panic!("the write of a caller that went away did not happen");
}

async fn a_release_goes_back_by_one_and_no_more(h: &Home) {
    let wrote = async |release: &'static str| {
        let sql = "INSERT INTO schema_release(release, since) VALUES($1, 0)";
        h.db.write(&actor(), async move |tx| tx.exec(sql, &[release.into()]).await)
            .await
            .unwrap();
        let options = OpenOptions {
            url: h.url.clone(),
            readers: 1,
        };
        Db::open(&options, MIGRATIONS).await.map(|_| ())
    };
    let (major, minor) = haneul_core::release::name().split_once('.').unwrap();
    assert_eq!((major, minor), ("0", "1.0"), "this test says which releases are near");
    wrote("0.2.3").await.unwrap();
    let refused = wrote("0.3.0").await.unwrap_err();
    assert!(
        refused.public().contains("0.3.0") && refused.kind() == Kind::Conflict,
        "{refused}"
    );
}

async fn migrations_run_once(h: &Home) {
    h.db.write(&actor(), async |tx| {
        tx.insert(&System::create(), &thing("m", "x", 1)).await
    })
    .await
    .unwrap();
    let again = open(&h.url).await;
    assert!(again.read().await.unwrap().find::<Thing>("m").await.unwrap().is_some());
}

/// The databases that a dump is loaded into: a new one of either kind.
async fn others() -> Vec<Home> {
    [sqlite().await, postgres().await].into_iter().flatten().collect()
}

async fn dumps_are_read_by_the_other_database(h: &Home) {
    h.db.write(&actor(), async |tx| {
        for i in 0..2500 {
            tx.insert(&System::create(), &thing(&format!("t{i:05}"), "Łódź \"x\"\n", i))
                .await?;
        }
        let pool = "INSERT INTO pool(name, used, lim, bytes) VALUES($1, 1, $2, $3)";
        tx.exec(pool, &["a".into(), i64::MAX.into(), vec![0u8, 255, 10].into()])
            .await?;
        tx.exec(pool, &["b".into(), i64::MIN.into(), V::NullB]).await?;
        tx.exec("INSERT INTO log(x) VALUES($1)", &[0.1.into()]).await?;
        tx.exec("INSERT INTO log(x) VALUES($1)", &[V::NullF]).await?;
        tx.next_number("c").await
    })
    .await
    .unwrap();
    let dump = async |db: &Db| {
        let (send, mut pieces) = tokio::sync::mpsc::channel::<String>(4);
        let collect = async {
            let mut text = String::new();
            while let Some(piece) = pieces.recv().await {
                text.push_str(&piece);
            }
            text
        };
        let (copied, text) = tokio::join!(db.dump("1", send), collect);
        let copied = copied.unwrap();
        (text, copied)
    };
    let (text, copied) = dump(&h.db).await;
    assert_eq!(copied.rows, 2500 * 2 + 2 + 2 + 1);
    for other in others().await {
        let options = OpenOptions {
            url: other.url.clone(),
            readers: 2,
        };
        let (db, loaded) = Db::load(&options, MIGRATIONS, text.as_bytes()).await.unwrap();
        assert_eq!(loaded, copied);
        let (again, _) = dump(&db).await;
        let lines = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(lines(&again), lines(&text), "the same rows, whatever their order");
        // The database's own numbers go on behind those that came along.
        let next = db
            .write(&actor(), async |tx| {
                tx.insert(&System::create(), &thing("new", "x", 1)).await?;
                let n = tx
                    .row("INSERT INTO log(x) VALUES(1.0) RETURNING n", &[])
                    .await?
                    .unwrap();
                n.i64(0)
            })
            .await
            .unwrap();
        assert_eq!(next, 3);
        let full = Db::load(&options, MIGRATIONS, text.as_bytes()).await.err().unwrap();
        assert_eq!(full.kind(), Kind::Conflict, "{full}");
        assert!(full.public().contains("not empty"), "{full}");
    }
    for (damaged, why) in [
        (
            text[..text.len() / 2].rsplit_once('\n').unwrap().0.to_owned(),
            "cut off",
        ),
        (text.replace("t00007", "t00007\"").clone(), "damaged"),
        (text.replacen("\"test\"", "\"later\"", 1), "newer one"),
        ("x".to_owned(), "damaged"),
        (String::new(), "no dump"),
    ] {
        let other = sqlite().await.unwrap();
        let options = OpenOptions {
            url: other.url.clone(),
            readers: 1,
        };
        let e = Db::load(&options, MIGRATIONS, damaged.as_bytes()).await.err().unwrap();
        assert!(e.public().contains(why), "{why}: {e}");
        if why == "cut off" {
            let e = Db::open(&options, MIGRATIONS).await.err().unwrap();
            assert!(e.public().contains("did not come to its end"), "{e}");
        }
    }
}

//! Deadlines: each job has its end, whatever becomes of its neighbours.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use haneul_core::{Error, Result};
use haneul_jobs::{BoxFuture, Job, Jobs, MIGRATIONS, Next, Saga, Step};
use haneul_store::{Actor, Db, OpenOptions, Tx};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Waits for ever; what it did to the subject `stubborn` cannot be taken back.
struct Waits;

impl Saga for Waits {
    fn kind(&self) -> &'static str {
        "test.waits"
    }
    fn steps(&self) -> &'static [Step] {
        &[Step {
            name: "wait",
            deadline_s: 0,
        }]
    }
    fn act<'t>(&'t self, _tx: &'t mut Tx, _job: &'t mut Job) -> BoxFuture<'t, Result<Next>> {
        Box::pin(async { Ok(Next::Wait) })
    }
    fn undo<'t>(
        &'t self,
        _tx: &'t mut Tx,
        job: &'t mut Job,
        _step: &'static str,
        _cause: &'t Error,
    ) -> BoxFuture<'t, Result<()>> {
        let stubborn = job.subject_id == "stubborn";
        Box::pin(async move {
            if stubborn {
                Err(Error::conflict("not now"))
            } else {
                Ok(())
            }
        })
    }
    fn failed<'t>(&'t self, _tx: &'t mut Tx, _job: &'t mut Job, _cause: &'t Error) -> BoxFuture<'t, Result<()>> {
        Box::pin(async { Ok(()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_ended_does_not_keep_the_others() {
    let dir = std::env::temp_dir().join(format!("haneul-jobs-{}", haneul_core::id::hex()));
    std::fs::create_dir_all(&dir).unwrap();
    let options = OpenOptions {
        url: format!("sqlite:{}", dir.join("t.db").display()),
        readers: 2,
    };
    let db = Db::open(&options, MIGRATIONS).await.unwrap();
    let jobs = Jobs::new(db.clone());
    jobs.register(vec![Arc::new(Waits)]);
    let engine = jobs.clone();
    let running = tokio::spawn(async move { engine.run().await });
    // The stubborn one is the first to be late.
    let mut ids = Vec::new();
    for subject in ["stubborn", "willing"] {
        let jobs = jobs.clone();
        let id = db
            .write(&Actor::system("test"), async move |tx| {
                jobs.start(tx, "test.waits", ("thing", subject), json!({"v": 1})).await
            })
            .await
            .unwrap();
        ids.push(id);
    }
    let start = Instant::now();
    loop {
        let mut tx = db.read().await.unwrap();
        let willing = jobs.get(&mut tx, &ids[1]).await.unwrap().unwrap();
        if willing.status == "error" {
            assert!(
                willing
                    .error
                    .unwrap()
                    .contains("'wait' did not finish within its deadline")
            );
            let stubborn = jobs.get(&mut tx, &ids[0]).await.unwrap().unwrap();
            assert_eq!(stubborn.status, "running");
            assert!(
                stubborn.deadline > haneul_core::clock::now(),
                "it is tried again later, not all the time"
            );
            break;
        }
        // Jobs that the engine finds there when it begins have a grace, and on a busy machine these may be such.
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "{} is {}",
            willing.id,
            willing.status
        );
        drop(tx);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    running.abort();
    std::fs::remove_dir_all(&dir).unwrap();
}

//! The QMP client against a server that behaves, hangs, lies or dies.

use haneul_hypervisor::qemu::qmp::{Qmp, QmpError};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixListener;

struct Server(PathBuf);
impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Answers each command by its name: `echo` returns its arguments after an event, `refuse` an error,
/// `hang` nothing, `flood` a line without end, `die` closes.
fn serve(greeting: &'static str) -> Server {
    let path = std::env::temp_dir().join(format!("hnq-{}", uuid::Uuid::new_v4().simple()));
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        write.write_all(greeting.as_bytes()).await.unwrap();
        let mut lines = BufReader::new(read).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let m: Value = serde_json::from_str(&line).unwrap();
            let id = &m["id"];
            let answer = match m["execute"].as_str().unwrap() {
                "qmp_capabilities" => json!({"return": {}, "id": id}).to_string(),
                "echo" => format!(
                    "{}\n{}",
                    json!({"event": "STOP", "data": {"n": 1}, "timestamp": {}}),
                    json!({"return": m["arguments"], "id": id})
                ),
                "refuse" => json!({"error": {"class": "GenericError", "desc": "no"}, "id": id}).to_string(),
                "hang" => continue,
                "flood" => {
                    let junk = vec![b'x'; 1 << 20];
                    while write.write_all(&junk).await.is_ok() {}
                    return;
                }
                "nonsense" => "]".into(),
                _ => return,
            };
            if write.write_all(format!("{answer}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    });
    Server(path)
}

const HELLO: &str = "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\n";
/// Longer than any answer takes.
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn commands_events_and_refusals() {
    let server = serve(HELLO);
    let (qmp, mut events) = Qmp::connect(&server.0, LONG).await.unwrap();
    let (a, b) = tokio::join!(
        qmp.execute("echo", json!({"n": 1}), LONG),
        qmp.execute("echo", json!({"n": 2}), LONG)
    );
    assert_eq!((a.unwrap(), b.unwrap()), (json!({"n": 1}), json!({"n": 2})));
    assert_eq!(events.recv().await.unwrap().name, "STOP");
    let e = qmp.execute("refuse", Value::Null, LONG).await.unwrap_err();
    assert_eq!(
        e,
        QmpError::Refused {
            class: "GenericError".into(),
            desc: "no".into()
        }
    );
}

#[tokio::test]
async fn hangs_end_at_the_deadline() {
    let server = serve(HELLO);
    let (qmp, _events) = Qmp::connect(&server.0, LONG).await.unwrap();
    let start = Instant::now();
    let e = qmp
        .execute("hang", Value::Null, Duration::from_millis(50))
        .await
        .unwrap_err();
    assert_eq!(e, QmpError::Timeout);
    assert!(start.elapsed() < LONG);
    // The connection still works for what comes after.
    qmp.execute("echo", json!({}), LONG).await.unwrap();

    let silent = serve("");
    let e = Qmp::connect(&silent.0, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(e, QmpError::Timeout);
}

#[tokio::test]
async fn bad_peers() {
    for (command, protocol) in [("die", false), ("nonsense", true), ("flood", true)] {
        let server = serve(HELLO);
        let (qmp, mut events) = Qmp::connect(&server.0, LONG).await.unwrap();
        let (waiting, bad) = tokio::join!(
            qmp.execute("hang", Value::Null, LONG),
            qmp.execute(command, Value::Null, LONG)
        );
        for e in [waiting.unwrap_err(), bad.unwrap_err()] {
            assert_eq!(matches!(e, QmpError::Protocol(_)), protocol, "{command}: {e:?}");
            assert_ne!(e, QmpError::Timeout, "{command}");
        }
        assert!(events.recv().await.is_none(), "the reader has ended");
        let e = qmp.execute("echo", json!({}), LONG).await.unwrap_err();
        assert_eq!(e, QmpError::Closed);
    }
    let e = Qmp::connect(&serve("{\"hello\": 1}\n").0, LONG).await.unwrap_err();
    assert!(matches!(e, QmpError::Protocol(_)), "{e:?}");
}

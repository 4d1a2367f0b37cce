//! What the fuzz targets begin with: messages of each kind, all of which are of the protocol.
#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use haneul_agent_api::{Greeting, Join, Kind, MoveProgress, Renew, Report, ToAgent, limits};
use std::collections::BTreeSet;
use std::path::Path;

fn seeds(direction: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(direction);
    let files = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap());
    let all: Vec<_> = files
        .map(|f| (f.file_name().into_string().unwrap(), std::fs::read(f.path()).unwrap()))
        .collect();
    assert!(!all.is_empty());
    all
}

#[test]
fn a_host_hears_all_kinds() {
    let mut kinds = BTreeSet::new();
    for (name, bytes) in seeds("host") {
        let mut buffer = BytesMut::from(bytes.as_slice());
        let lines = limits::lines(&mut buffer).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert!(!lines.is_empty() && buffer.is_empty(), "{name}");
        for line in lines {
            if let ToAgent::Put(d) = &line {
                kinds.insert(d.object.kind());
                let kept = serde_json::to_value(&line).unwrap();
                let said: serde_json::Value =
                    serde_json::from_slice(bytes.split(|b| *b == b'\n').next().unwrap()).unwrap();
                // Nothing that is said is lost: a field with another name would be.
                for (key, value) in said["object"]["doc"].as_object().unwrap() {
                    assert_eq!(kept["object"]["doc"][key].is_null(), value.is_null(), "{name}: {key}");
                }
            }
        }
    }
    assert_eq!(kinds, BTreeSet::from(Kind::ALL), "a kind has no seed");
}

#[test]
fn control_hears_all_messages() {
    for (name, bytes) in seeds("control") {
        let what = name.split('-').next().unwrap();
        match what {
            "greeting" => limits::greeting(&serde_json::from_slice::<Greeting>(&bytes).unwrap()).unwrap(),
            "report" => {
                let r: Report = serde_json::from_slice(&bytes).unwrap();
                limits::report(&r).unwrap();
                assert!(r.items() > 0, "{name}");
            }
            "join" => drop(serde_json::from_slice::<Join>(&bytes).unwrap()),
            "renew" => drop(serde_json::from_slice::<Renew>(&bytes).unwrap()),
            other => panic!("{other} is no message"),
        }
    }
}

/// A host may say any numbers.
#[test]
fn how_far_a_move_is_has_no_limit() {
    let most = MoveProgress {
        memory_total: u64::MAX,
        memory_left: 1,
        disk_total: u64::MAX,
        disk_left: u64::MAX,
        ..MoveProgress::default()
    };
    assert_eq!(most.percent(), 49);
    assert_eq!(MoveProgress::default().percent(), 0);
}

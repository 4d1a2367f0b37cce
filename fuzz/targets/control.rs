//! What control hears from hosts: a message is taken within its bounds, and can be kept and read again as it was, or is
//! refused as the host's mistake.
#![no_main]

use haneul_agent_api::{Greeting, Join, JoinToken, Kind, MAX_ITEMS, MoveState, Renew, Report, limits};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;

fn kept<T: Serialize + DeserializeOwned>(said: &T) -> String {
    let text = serde_json::to_string(said).expect("it can be kept");
    let again: T = serde_json::from_str(&text).expect("it can be read again");
    assert_eq!(text, serde_json::to_string(&again).expect("it can be kept again"));
    text
}

fn bounded(result: haneul_core::Result<()>) -> bool {
    match result {
        Ok(()) => true,
        Err(e) => {
            assert_eq!(e.kind().status(), 400);
            assert!(e.public().len() < 2000, "a refusal does not repeat what was said");
            false
        }
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(g) = serde_json::from_slice::<Greeting>(data)
        && bounded(limits::greeting(&g))
    {
        // No text is longer than a name may be.
        assert!(kept(&g).len() < 2 << 20);
    }
    if let Ok(r) = serde_json::from_slice::<Report>(data)
        && bounded(limits::report(&r))
    {
        assert!(r.items() <= MAX_ITEMS);
        for seen in &r.guests {
            bounded(limits::observation(Kind::Guest, &seen.id.to_string(), &kept(seen)));
            if let Some(MoveState::Moving(progress)) = seen.moving.as_ref().map(|m| &m.state) {
                assert!(progress.percent() <= 100);
            }
        }
        for seen in r.ports.iter().chain(&r.routers).chain(&r.networks) {
            bounded(limits::observation(Kind::Port, &seen.id.to_string(), &kept(seen)));
        }
    }
    if let Ok(join) = serde_json::from_slice::<Join>(data) {
        bounded(limits::host_name(&join.host_name));
        if let Some(token) = JoinToken::parse(&join.token) {
            assert_eq!(token.to_string(), join.token.trim());
        }
    }
    let _ = serde_json::from_slice::<Renew>(data);
});

//! After a boot of the host its guests start in their order ([`haneul_agent_api::Guest::start_order`]): all with the
//! smallest number first, and the next when those run, failed or took too long.

use crate::Shared;
use crate::journal::write_durably;
use haneul_agent_api::{Kind, Power};
use haneul_core::Result;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use uuid::Uuid;

/// The others wait no longer for those whose turn it is.
const TURN: Duration = Duration::from_secs(120);

/// Whose turn it is.
#[derive(Default)]
struct State {
    /// Orders up to this may start; none: all may.
    open: Option<u32>,
    /// Guests that were brought to what is desired, or could not be.
    brought: HashSet<Uuid>,
}

/// See the module.
pub(crate) struct Turns(watch::Sender<State>);

impl Turns {
    /// The host has booted since this was said last: guests wait until [`Turns::give`] calls them.
    pub fn new(dir: &Path) -> Self {
        let open = match std::fs::read_to_string(dir.join(FILE)) {
            Ok(before) if before.trim() != haneul_lease::boot_id() => Some(0),
            _ => None,
        };
        let state = State {
            open,
            ..State::default()
        };
        Self(watch::channel(state).0)
    }

    /// Waits for the turn of a guest that is about to start.
    pub async fn wait(&self, order: u32) {
        let mut state = self.0.subscribe();
        let _ = state.wait_for(|s| s.open.is_none_or(|open| order <= open)).await;
    }

    /// What could be done for the guest was done.
    pub fn brought(&self, guest: Uuid) {
        self.0.send_if_modified(|s| s.open.is_some() && s.brought.insert(guest));
    }

    /// Calls the guests in their order. A boot counts as over when all were called.
    pub async fn give(shared: &Arc<Shared>) -> Result<()> {
        let turns = &shared.turns;
        if turns.0.borrow().open.is_some() {
            let mut orders: BTreeMap<u32, HashSet<Uuid>> = BTreeMap::new();
            for id in shared.store.ids(Kind::Guest) {
                if let Some((_, _, g)) = shared.store.guest(id).filter(|(_, _, g)| g.power == Power::Running) {
                    orders.entry(g.start_order).or_default().insert(id);
                }
            }
            for (order, guests) in orders {
                tracing::info!(order, count = guests.len(), "guests start after a boot of the host");
                turns.0.send_modify(|s| s.open = Some(order));
                let mut state = turns.0.subscribe();
                let all = state.wait_for(|s| guests.is_subset(&s.brought));
                if tokio::time::timeout(TURN, all).await.is_err() {
                    tracing::warn!(
                        order,
                        "not all guests are up after {} s; the next start",
                        TURN.as_secs()
                    );
                }
            }
            turns.0.send_replace(State::default());
        }
        write_durably(
            &shared.config.agent_dir().join(FILE),
            haneul_lease::boot_id().as_bytes(),
        )
    }
}

/// The boot whose guests were started.
const FILE: &str = "boot-id";

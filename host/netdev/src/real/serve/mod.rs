//! The responders: DHCP, DNS and metadata of one network, router advertisements of one router.
//!
//! Their sockets are opened inside a namespace and stay there; the tasks run on the ordinary runtime.

pub mod dhcp4;
pub mod dhcp6;
pub mod dns;
pub mod metadata;
pub mod ra;

use std::future::Future;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Tasks that end with their owner.
#[derive(Default)]
pub struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    /// Starts one more.
    pub fn spawn(&mut self, rt: &Handle, task: impl Future<Output = ()> + Send + 'static) {
        self.0.push(rt.spawn(task));
    }

    /// Ends all of them and waits until what they held open is closed: others are about to open the same. Called where
    /// blocking is allowed.
    pub fn end(mut self, rt: &Handle) {
        for task in std::mem::take(&mut self.0) {
            task.abort();
            let _ = rt.block_on(task);
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for t in &self.0 {
            t.abort();
        }
    }
}

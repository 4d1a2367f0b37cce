//! A guest's screen: one end of a socket pair is handed to QEMU as a VNC client that is connected already, so that
//! nothing listens anywhere.

use super::live::Live;
use super::ops::QMP_DEADLINE;
use super::qmp::QmpError;
use super::{Inner, hung, internal};
use haneul_agent_api::Failure;
use serde_json::json;
use std::os::unix::net::UnixStream;
use uuid::Uuid;

impl Inner {
    pub(super) async fn vnc(&self, live: &Live) -> Result<tokio::net::UnixStream, Failure> {
        let (ours, theirs) = UnixStream::pair().map_err(internal)?;
        ours.set_nonblocking(true).map_err(internal)?;
        let ours = tokio::net::UnixStream::from_std(ours).map_err(internal)?;
        let failed = |e: QmpError| match e {
            QmpError::Timeout => hung(e),
            other => crate::no_screen(other),
        };
        let name = format!("vnc-{}", Uuid::new_v4().simple());
        live.execute_with("getfd", json!({"fdname": name}), Some(theirs.into()), QMP_DEADLINE)
            .await
            .map_err(failed)?;
        let added = live
            .execute(
                "add_client",
                // Who gets here was authenticated and authorized by control.
                json!({"protocol": "vnc", "fdname": name, "skipauth": true}),
                QMP_DEADLINE,
            )
            .await;
        if let Err(e) = added {
            let _ = live.execute("closefd", json!({"fdname": name}), QMP_DEADLINE).await;
            return Err(failed(e));
        }
        Ok(ours)
    }
}

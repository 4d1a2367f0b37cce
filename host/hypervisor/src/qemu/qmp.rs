//! A small QMP client (QEMU's `docs/interop/qmp-spec.rst`): greeting, capabilities, commands with ids
//! and deadlines, events.
//!
//! The peer is a process that a guest may have taken over: lines are limited, nothing it sends is
//! trusted beyond its own guest, and every wait has a deadline.

use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};

/// Longest line accepted, bytes; QEMU's longest answers here are a few KiB.
const MAX_LINE: usize = 4 << 20;
/// Events kept for a reader that is slow; more of them wait in the socket.
const EVENTS: usize = 256;

/// Why a command has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QmpError {
    /// No answer before the deadline.
    Timeout,
    /// The connection is gone.
    Closed,
    /// QEMU refused: class and description.
    Refused { class: String, desc: String },
    /// The peer does not speak QMP.
    Protocol(String),
}

impl std::fmt::Display for QmpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            QmpError::Timeout => f.write_str("the monitor did not answer before the deadline"),
            QmpError::Closed => f.write_str("the monitor's connection is closed"),
            QmpError::Refused { class, desc } => write!(f, "{class}: {desc}"),
            QmpError::Protocol(what) => write!(f, "not QMP: {what}"),
        }
    }
}

/// An event: name and data.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub data: Value,
}

type Answer = oneshot::Sender<Result<Value, QmpError>>;

/// One connection; clones share it. It closes when all clones are gone.
#[derive(Clone, Debug)]
pub struct Qmp {
    commands: mpsc::UnboundedSender<(Value, Option<OwnedFd>, Answer)>,
}

impl Qmp {
    /// Connects, reads the greeting and negotiates, all before `deadline` has passed.
    pub async fn connect(path: &Path, deadline: Duration) -> Result<(Self, mpsc::Receiver<Event>), QmpError> {
        tokio::time::timeout(deadline, Self::handshake(path))
            .await
            .map_err(|_| QmpError::Timeout)?
    }

    async fn handshake(path: &Path) -> Result<(Self, mpsc::Receiver<Event>), QmpError> {
        let stream = UnixStream::connect(path).await.map_err(|_| QmpError::Closed)?;
        let (read, mut write) = stream.into_split();
        let mut lines = Lines::new(read);
        let greeting = lines.next().await?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Protocol("no greeting".into()));
        }
        let (commands, mut queue) = mpsc::unbounded_channel::<(Value, Option<OwnedFd>, Answer)>();
        let (events, receiver) = mpsc::channel(EVENTS);
        // Ids tell answers of commands that were given up from those that somebody waits for.
        let pending: Arc<std::sync::Mutex<HashMap<u64, Answer>>> = Arc::default();
        let waiting = Arc::clone(&pending);
        let reader = tokio::spawn(async move {
            let end = loop {
                let mut message = match lines.next().await {
                    Ok(m) => m,
                    Err(e) => break e,
                };
                if let Some(name) = message.get("event").and_then(Value::as_str) {
                    let event = Event {
                        name: name.to_owned(),
                        data: message.get("data").cloned().unwrap_or_default(),
                    };
                    if events.send(event).await.is_err() {
                        break QmpError::Closed;
                    }
                    continue;
                }
                let answer = message
                    .get("id")
                    .and_then(Value::as_u64)
                    .and_then(|id| lock(&waiting).remove(&id));
                let Some(answer) = answer else { continue };
                let _ = answer.send(match message.get_mut("return") {
                    Some(value) => Ok(value.take()),
                    None => Err(refused(&message)),
                });
            };
            for (_, answer) in lock(&waiting).drain() {
                let _ = answer.send(Err(end.clone()));
            }
        });
        tokio::spawn(async move {
            let mut id = 0_u64;
            while let Some((mut command, fd, answer)) = queue.recv().await {
                id += 1;
                if let Some(map) = command.as_object_mut() {
                    map.insert("id".into(), Value::from(id));
                }
                lock(&pending).insert(id, answer);
                let mut line = command.to_string();
                line.push('\n');
                if reader.is_finished() || send(&mut write, line.as_bytes(), fd).await.is_err() {
                    lock(&pending).clear();
                    break;
                }
                // Those who gave up have closed their ends.
                lock(&pending).retain(|_, a| !a.is_closed());
            }
            reader.abort();
        });
        let qmp = Self { commands };
        qmp.call("qmp_capabilities", Value::Null, None).await?;
        Ok((qmp, receiver))
    }

    async fn call(&self, command: &str, arguments: Value, fd: Option<OwnedFd>) -> Result<Value, QmpError> {
        let (send, receive) = oneshot::channel();
        let mut message = json!({"execute": command});
        if let (Some(map), false) = (message.as_object_mut(), arguments.is_null()) {
            map.insert("arguments".into(), arguments);
        }
        self.commands.send((message, fd, send)).map_err(|_| QmpError::Closed)?;
        receive.await.unwrap_or(Err(QmpError::Closed))
    }

    /// Runs one command. Dropping the future gives up the answer, not the command.
    pub async fn execute(&self, command: &str, arguments: Value, deadline: Duration) -> Result<Value, QmpError> {
        self.execute_with(command, arguments, None, deadline).await
    }

    /// The same, handing over an open file (`add-fd`, `getfd`).
    pub async fn execute_with(
        &self,
        command: &str,
        arguments: Value,
        fd: Option<OwnedFd>,
        deadline: Duration,
    ) -> Result<Value, QmpError> {
        tokio::time::timeout(deadline, self.call(command, arguments, fd))
            .await
            .map_err(|_| QmpError::Timeout)?
    }
}

/// Writes a line, the open file with its first part.
async fn send(write: &mut OwnedWriteHalf, line: &[u8], fd: Option<OwnedFd>) -> std::io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let mut sent = 0;
    if let Some(fd) = fd {
        let stream: &UnixStream = write.as_ref();
        sent = stream
            .async_io(Interest::WRITABLE, || {
                let fds = [fd.as_raw_fd()];
                let with = [ControlMessage::ScmRights(&fds)];
                let flags = MsgFlags::MSG_NOSIGNAL;
                Ok(sendmsg::<()>(
                    stream.as_raw_fd(),
                    &[IoSlice::new(line)],
                    &with,
                    flags,
                    None,
                )?)
            })
            .await?;
    }
    write.write_all(line.get(sent..).unwrap_or_default()).await
}

fn lock<T>(m: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn refused(message: &Value) -> QmpError {
    let text = |key: &str| {
        message
            .pointer(&format!("/error/{key}"))
            .and_then(Value::as_str)
            .unwrap_or("")
            .to_owned()
    };
    QmpError::Refused {
        class: text("class"),
        desc: text("desc"),
    }
}

/// JSON lines with a limit.
struct Lines<R> {
    input: BufReader<R>,
    line: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    fn new(input: R) -> Self {
        Self {
            input: BufReader::new(input),
            line: Vec::new(),
        }
    }

    async fn next(&mut self) -> Result<Value, QmpError> {
        self.line.clear();
        loop {
            let part = self.input.fill_buf().await.map_err(|_| QmpError::Closed)?;
            if part.is_empty() {
                return Err(QmpError::Closed);
            }
            let end = part.iter().position(|b| *b == b'\n');
            let take = end.map_or(part.len(), |i| i + 1);
            if self.line.len() + take > MAX_LINE {
                return Err(QmpError::Protocol("a line is too long".into()));
            }
            self.line.extend_from_slice(part.get(..take).unwrap_or_default());
            self.input.consume(take);
            if end.is_some() {
                return serde_json::from_slice(&self.line).map_err(|e| QmpError::Protocol(e.to_string()));
            }
        }
    }
}

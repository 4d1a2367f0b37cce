//! A client that costs little: it shares two cores with what it measures. HTTP/1.1, connections that stay open, one
//! request at a time on each.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that stays open.
pub struct Conn<S = TcpStream> {
    stream: S,
    buffer: Vec<u8>,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A header of the answer; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// The answer, when its status is this one.
    pub fn expect(self, status: u16) -> Result<Self> {
        if self.status != status {
            bail!(
                "{} instead of {status}: {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            );
        }
        Ok(self)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|l| {
        let (k, v) = l.split_once(':')?;
        k.eq_ignore_ascii_case(name).then(|| v.trim())
    })
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: haneul\r\n");
    for (k, v) in headers {
        text.push_str(&format!("{k}: {v}\r\n"));
    }
    if !body.is_empty() {
        text.push_str(&format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        ));
    } else if method != "GET" {
        text.push_str("content-length: 0\r\n");
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

impl Conn {
    pub async fn open(address: &str) -> Result<Conn> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Conn::over(stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// Over something that is open.
    pub fn over(stream: S) -> Conn<S> {
        Conn {
            stream,
            buffer: Vec::with_capacity(1 << 10),
        }
    }

    /// Sends bytes that [`request`] made, and reads one answer.
    pub async fn send(&mut self, request: &[u8]) -> Result<Answer> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let end = loop {
            let from = self.buffer.len().saturating_sub(3);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed");
            }
            if let Some(at) = self
                .buffer
                .get(from..)
                .and_then(|b| b.windows(4).position(|w| w == b"\r\n\r\n"))
            {
                break from + at + 4;
            }
        };
        let head = String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default()).into_owned();
        let status: u16 = head.get(9..12).and_then(|s| s.parse().ok()).context("no status")?;
        let length: usize = match header(&head, "content-length") {
            Some(n) => n.parse()?,
            None if status == 204 || status == 304 => 0,
            None => bail!("an answer without a length"),
        };
        while self.buffer.len() < end + length {
            self.buffer.reserve(end + length - self.buffer.len());
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed in an answer");
            }
        }
        Ok(Answer {
            status,
            head,
            body: self.buffer.get(end..end + length).unwrap_or_default().to_vec(),
        })
    }
}

/// A connection with a token.
pub struct Api {
    conn: Conn,
    pub token: String,
    /// Sent as `OpenStack-API-Version`.
    pub version: &'static str,
}

impl Api {
    pub async fn new(address: &str, token: &str) -> Result<Api> {
        Ok(Api {
            conn: Conn::open(address).await?,
            token: token.to_owned(),
            version: "compute 2.1",
        })
    }

    pub async fn call(&mut self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let body = body.map(|b| b.to_string().into_bytes()).unwrap_or_default();
        let bytes = request(
            method,
            path,
            &[("x-auth-token", &self.token), ("openstack-api-version", self.version)],
            &body,
        );
        self.conn.send(&bytes).await.with_context(|| format!("{method} {path}"))
    }

    pub async fn get(&mut self, path: &str) -> Result<Answer> {
        self.call("GET", path, None).await
    }

    pub async fn post(&mut self, path: &str, body: &Value) -> Result<Answer> {
        self.call("POST", path, Some(body)).await
    }
}

//! How many token validations a second an identity service answers, with the client on the same machine:
//! `cargo run -p haneul-identity --example rate -- PORT TOKEN [CONNECTIONS] [SECONDS] [QUERY]`. One request at a
//! time on each connection. For development only; `cargo xtask bench` has the figure of record.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (port, token) = (args[0].clone(), args[1].clone());
    let number = |i: usize, or: u64| args.get(i).map_or(or, |n| n.parse().expect("a number"));
    let (connections, seconds) = (number(2, 16), number(3, 5));
    let query = args.get(4).cloned().unwrap_or_else(|| "?nocatalog".into());
    let request = format!(
        "GET /identity/v3/auth/tokens{query} HTTP/1.1\r\nhost: x\r\nx-auth-token: {token}\r\nx-subject-token: {token}\r\n\r\n"
    );
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let (request, stop, addr) = (request.clone(), stop.clone(), format!("127.0.0.1:{port}"));
            tokio::spawn(async move {
                let mut s = tokio::net::TcpStream::connect(addr).await.unwrap();
                s.set_nodelay(true).unwrap();
                let mut buffer = vec![0; 16384];
                let mut n = 0u64;
                // All answers are of one length, found out by the first.
                let mut length = 0;
                while !stop.load(Ordering::Relaxed) {
                    s.write_all(request.as_bytes()).await.unwrap();
                    let mut have = 0;
                    loop {
                        let got = s.read(&mut buffer[have..]).await.unwrap();
                        assert!(got > 0, "the service closed the connection");
                        have += got;
                        if length == 0 {
                            let text = String::from_utf8_lossy(&buffer[..have]).into_owned();
                            assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                            let head = text.find("\r\n\r\n").unwrap() + 4;
                            let body: usize = text
                                .lines()
                                .find_map(|l| l.strip_prefix("content-length: "))
                                .unwrap()
                                .parse()
                                .unwrap();
                            length = head + body;
                        }
                        if have >= length {
                            break;
                        }
                    }
                    n += 1;
                }
                n
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut total = 0;
    for t in tasks {
        total += t.await.unwrap();
    }
    println!("{:.0} validations/s", total as f64 / start.elapsed().as_secs_f64());
}

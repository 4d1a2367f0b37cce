//! Tokens: made, validated over HTTP, and revoked.

use crate::Options;
use crate::figures::{Samples, Table};
use crate::http::{Answer, Conn, request};
use crate::ready::Ready;
use crate::servers::join;
use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::cell::Cell;
use std::time::{Duration, Instant};

const GROUP: &str = "tokens";
const CONNECTIONS: usize = 32;
const ROUNDS: u32 = 12;
const AUTH: &str = "/identity/v3/auth/tokens";

fn token_of(a: &Answer) -> Result<String> {
    Ok(a.header("x-subject-token").context("no token")?.to_owned())
}

fn by_token(token: &str, project: &str) -> Vec<u8> {
    let body = json!({"auth": {"identity": {"methods": ["token"], "token": {"id": token}}, "scope": {"project": {"id": project}}}});
    request("POST", &format!("{AUTH}?nocatalog"), &[], body.to_string().as_bytes())
}

fn validation(admin: &str, subject: &str) -> Vec<u8> {
    request(
        "GET",
        &format!("{AUTH}?nocatalog"),
        &[("x-auth-token", admin), ("x-subject-token", subject)],
        b"",
    )
}

pub async fn run(options: &Options, table: &mut Table) -> Result<()> {
    let ready = Ready::new(options, &[&format!("identity.bcrypt_rounds={ROUNDS}")]).await?;
    let address = ready.cloud.address.clone();
    let mut conn = Conn::open(&address).await?;
    let password = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {"name": "admin", "domain": {"id": "default"}, "password": ready.cloud.password()}}},
        "scope": {"project": {"name": "admin", "domain": {"id": "default"}}}
    }});
    let login = request("POST", AUTH, &[], password.to_string().as_bytes());
    // In turn with the hash alone, so that a busy machine slows both.
    let hash = bcrypt::hash(ready.cloud.password(), ROUNDS)?;
    let (mut made, mut alone) = (Samples::default(), Samples::default());
    for _ in 0..options.n(20).max(3) {
        let start = Instant::now();
        ensure!(bcrypt::verify(ready.cloud.password(), &hash)?, "bcrypt");
        alone.add(start.elapsed());
        let start = Instant::now();
        conn.send(&login).await?.expect(201)?;
        made.add(start.elapsed());
    }
    let beside = made.p50().as_secs_f64() / alone.p50().as_secs_f64();
    table.target(
        GROUP,
        format!("token by password (bcrypt, {ROUNDS} rounds), one client, beside the hash alone"),
        format!(
            "{}; alone p50 {:.0} ms; ratio {beside:.3}",
            made.text(),
            alone.p50().as_secs_f64() * 1e3
        ),
        ("ratio <= 1.03", beside <= 1.03),
        "p50 329 ms",
    );
    let admin = token_of(&conn.send(&login).await?.expect(201)?)?;
    let ask = by_token(&admin, &ready.project);
    let mut made = Samples::default();
    for _ in 0..options.n(1000) {
        let start = Instant::now();
        conn.send(&ask).await?.expect(201)?;
        made.add(start.elapsed());
    }
    let rate = 1.0 / made.p50().as_secs_f64();
    table.target(
        GROUP,
        "token by token, one client",
        format!("{rate:.0}/s; {}", made.text()),
        (">= 3,000/s", rate >= 3_000.0),
        "36.5/s, p50 28 ms",
    );

    // Many tokens, so that it is not one cache line that is measured.
    let mut tokens = Vec::new();
    for _ in 0..100 {
        tokens.push(token_of(&conn.send(&ask).await?.expect(201)?)?);
    }
    let mut one = Samples::default();
    for token in tokens.iter().cycle().take(options.n(5000)) {
        let bytes = validation(&admin, token);
        let start = Instant::now();
        conn.send(&bytes).await?.expect(200)?;
        one.add(start.elapsed());
    }
    table.add(
        GROUP,
        "validate a token over HTTP, one client",
        one.text(),
        "109/s, p50 8.1 ms",
    );
    let seconds = if options.quick { 1 } else { 5 };
    let mut rates = Vec::new();
    for _ in 0..3 {
        rates.push(load(&address, &admin, &tokens, Duration::from_secs(seconds)).await?);
    }
    rates.sort_by(f64::total_cmp);
    let rate = rates.get(1).copied().unwrap_or_default();
    table.target(
        GROUP,
        format!("validate tokens over HTTP, {CONNECTIONS} connections, one request at a time on each"),
        format!("{rate:.0}/s (median of 3 times {seconds} s)"),
        (">= 10,000/s", rate >= 10_000.0),
        "109/s",
    );
    revocation(options, table, &address, &admin, &ready.project).await
}

/// Validations per second.
async fn load(address: &str, admin: &str, tokens: &[String], time: Duration) -> Result<f64> {
    let requests: Vec<Vec<u8>> = tokens.iter().map(|t| validation(admin, t)).collect();
    let done = Cell::new(0usize);
    let start = Instant::now();
    let local = tokio::task::LocalSet::new();
    // Threads of their own would wake each other; one task for each connection, on this thread, costs the least.
    let tasks = local.run_until(async {
        let mut handles = Vec::new();
        for i in 0..CONNECTIONS {
            let (address, requests) = (address.to_owned(), requests.clone());
            handles.push(tokio::task::spawn_local(async move {
                let mut conn = Conn::open(&address).await?;
                let mut n = 0usize;
                while start.elapsed() < time {
                    let at = (i * 7 + n) % requests.len();
                    let answer = conn.send(requests.get(at).context("a request")?).await?;
                    ensure!(answer.status == 200, "{}", answer.status);
                    n += 1;
                }
                anyhow::Ok(n)
            }));
        }
        for h in handles {
            done.set(done.get() + h.await??);
        }
        anyhow::Ok(())
    });
    tasks.await?;
    Ok(done.get() as f64 / start.elapsed().as_secs_f64())
}

/// A token is good on every connection, is revoked on one, and must be good on none from then on.
async fn revocation(options: &Options, table: &mut Table, address: &str, admin: &str, project: &str) -> Result<()> {
    let mut conns = Vec::new();
    for _ in 0..CONNECTIONS {
        conns.push(Conn::open(address).await?);
    }
    let (rounds, mut late) = (options.n(100), 0);
    let mut took = Samples::default();
    for _ in 0..rounds {
        let first = conns.first_mut().context("a connection")?;
        let token = token_of(&first.send(&by_token(admin, project)).await?.expect(201)?)?;
        let good = validation(admin, &token);
        for answer in join(conns.iter_mut().map(|c| c.send(&good)).collect()).await {
            answer?.expect(200)?;
        }
        let revoke = request(
            "DELETE",
            AUTH,
            &[("x-auth-token", admin), ("x-subject-token", &token)],
            b"",
        );
        let start = Instant::now();
        conns
            .first_mut()
            .context("a connection")?
            .send(&revoke)
            .await?
            .expect(204)?;
        took.add(start.elapsed());
        for answer in join(conns.iter_mut().map(|c| c.send(&good)).collect()).await {
            late += usize::from(answer?.status == 200);
        }
    }
    table.target(
        GROUP,
        format!(
            "revocation seen at once: {rounds} tokens, asked on {CONNECTIONS} connections after the answer to DELETE"
        ),
        format!(
            "{late} of {} answers were late; DELETE {}",
            rounds * CONNECTIONS,
            took.text()
        ),
        ("none late", late == 0),
        "",
    );
    Ok(())
}

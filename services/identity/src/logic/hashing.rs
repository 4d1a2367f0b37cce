//! Hashing of passwords and secrets: bcrypt, off the runtime's threads, no more at once than there are
//! processors.
//!
//! bcrypt looks at 72 bytes only. What is longer is put through HMAC-SHA256 first and stored in passlib's
//! `$bcrypt-sha256$v=2` form, so that no byte is without effect.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use haneul_core::{Error, Result, id};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use tokio::sync::Semaphore;

/// bcrypt puts a zero after the password.
const BCRYPT_BYTES: usize = 71;
const LONG: &str = "$bcrypt-sha256$v=2,t=2b,r=";

/// See the module.
pub(crate) struct Hasher {
    rounds: u32,
    permits: Arc<Semaphore>,
    /// A hash that nothing matches, of the cost of new ones: checked where there is no other, so that the
    /// time does not tell.
    nobody: String,
}

impl Hasher {
    pub(crate) fn new(rounds: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            rounds,
            permits: Arc::new(Semaphore::new(cores)),
            nobody: format!("$2b${rounds:02}$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ01232"),
        }
    }

    async fn run<T: Send + 'static>(&self, f: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|_| Error::unavailable("The cloud is shutting down. Repeat the request."))?;
        tokio::task::spawn_blocking(f).await.map_err(Error::internal)
    }

    pub(crate) async fn hash(&self, secret: &str) -> Result<String> {
        let (secret, rounds) = (secret.to_owned(), self.rounds);
        self.run(move || hash(&secret, rounds)).await?
    }

    /// Whether the secret is the hashed one. Costs the same without a hash, and is false.
    pub(crate) async fn verify(&self, secret: &str, hash: Option<&str>) -> Result<bool> {
        let known = hash.is_some();
        let (secret, hash) = (secret.to_owned(), hash.unwrap_or(&self.nobody).to_owned());
        Ok(self.run(move || verify(&secret, &hash)).await? && known)
    }
}

fn hash(secret: &str, rounds: u32) -> Result<String> {
    if secret.len() <= BCRYPT_BYTES {
        return bcrypt::hash_with_result(secret, rounds)
            .map(|h| h.format_for_version(bcrypt::Version::TwoB))
            .map_err(Error::internal);
    }
    let mut salt = [0; 16];
    salt.copy_from_slice(&id::random_bytes(16));
    // The salt's text is both HMAC's key and part of the stored form.
    let parts = bcrypt::hash_with_salt("", 4, salt).map_err(Error::internal)?;
    let salt_text = parts.get_salt();
    let inner = bcrypt::hash_with_salt(shorten(secret, &salt_text), rounds, salt)
        .map_err(Error::internal)?
        .format_for_version(bcrypt::Version::TwoB);
    let digest = inner
        .get(29..)
        .ok_or_else(|| Error::internal("bcrypt gave no digest"))?;
    Ok(format!("{LONG}{rounds}${salt_text}${digest}"))
}

fn verify(secret: &str, hash: &str) -> bool {
    let Some(rest) = hash.strip_prefix(LONG) else {
        return secret.len() <= BCRYPT_BYTES && bcrypt::verify(secret, hash).unwrap_or(false);
    };
    let mut parts = rest.split('$');
    let (Some(rounds), Some(salt), Some(digest)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let Ok(rounds) = rounds.parse::<u32>() else {
        return false;
    };
    bcrypt::verify(shorten(secret, salt), &format!("$2b${rounds:02}${salt}{digest}")).unwrap_or(false)
}

/// base64(HMAC-SHA256(key = salt, secret)): 44 characters.
fn shorten(secret: &str, salt: &str) -> String {
    let mut key = [0u8; 64];
    for (k, s) in key.iter_mut().zip(salt.bytes()) {
        *k = s;
    }
    let inner = Sha256::new()
        .chain_update(key.map(|b| b ^ 0x36))
        .chain_update(secret.as_bytes())
        .finalize();
    STANDARD.encode(
        Sha256::new()
            .chain_update(key.map(|b| b ^ 0x5c))
            .chain_update(inner)
            .finalize(),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_count() {
        for n in [1, 71, 72, 73, 200] {
            let secret = "p".repeat(n);
            let h = hash(&secret, 4).unwrap();
            assert!(verify(&secret, &h), "{n}");
            assert!(!verify(&format!("{}x", "p".repeat(n - 1)), &h), "{n}");
            assert!(!verify(&format!("{secret}x"), &h), "{n}");
        }
    }

    #[test]
    fn foreign_hashes() {
        // The same digest under both of bcrypt's prefixes; passlib's documentation has the second form.
        let h = hash("secret", 4).unwrap();
        assert!(h.starts_with("$2b$04$"));
        assert!(verify("secret", &h.replace("$2b$", "$2a$")));
        assert!(verify("secret", &h.replace("$2b$", "$2y$")));
        let passlib = "$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2";
        assert!(verify("password", passlib));
        assert!(!verify("passwort", passlib));
    }

    /// The time does not tell who there is not.
    #[tokio::test]
    #[allow(clippy::disallowed_methods)]
    async fn nobody_costs_what_somebody_does() {
        let h = Hasher::new(10);
        let hash = h.hash("x").await.unwrap();
        let mut best = [std::time::Duration::MAX; 2];
        for _ in 0..5 {
            for (best, hash) in best.iter_mut().zip([Some(hash.as_str()), None]) {
                let start = std::time::Instant::now();
                assert!(!h.verify("y", hash).await.unwrap());
                *best = start.elapsed().min(*best);
            }
        }
        assert!(best[1] * 2 > best[0] && best[0] * 2 > best[1], "{best:?}");
    }
}

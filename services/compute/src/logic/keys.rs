//! Public keys: reading what users import, making pairs, fingerprints.

use haneul_core::{Error, Result};
use md5::{Digest, Md5};
use ssh_key::{Algorithm, LineEnding, PrivateKey, PublicKey};

/// A generated pair; the private half is shown once.
pub(crate) struct Pair {
    pub public: String,
    pub private: String,
    pub fingerprint: String,
}

fn invalid(why: &str) -> Error {
    Error::field("public_key", format!("Keypair data is invalid: {why}"))
}

/// Nova's form: MD5 of the key's bytes, in pairs of hex digits.
fn fingerprint(key: &PublicKey) -> Result<String> {
    let bytes = key.to_bytes().map_err(Error::internal)?;
    let digest = Md5::digest(bytes);
    Ok(digest.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(":"))
}

/// Checks an imported key; answers its fingerprint.
pub(crate) fn import(text: &str) -> Result<String> {
    let line = text.trim();
    if line.is_empty() || line.lines().count() != 1 {
        return Err(invalid(
            "it must be one line of OpenSSH form, such as 'ssh-ed25519 AAAA... comment'.",
        ));
    }
    let key = PublicKey::from_openssh(line)
        .map_err(|_| invalid("failed to generate fingerprint; it is not an OpenSSH public key."))?;
    fingerprint(&key)
}

/// Makes an ed25519 or RSA pair (before 2.92 Nova makes keys; RSA of 2048 bits here).
pub(crate) fn generate(comment: &str) -> Result<Pair> {
    let mut rng = ssh_key::rand_core::OsRng;
    let rsa = ssh_key::private::RsaKeypair::random(&mut rng, 2048).map_err(Error::internal)?;
    let mut key = PrivateKey::new(ssh_key::private::KeypairData::Rsa(rsa), comment).map_err(Error::internal)?;
    debug_assert!(matches!(key.algorithm(), Algorithm::Rsa { .. }));
    key.set_comment(comment);
    let public = key.public_key().to_openssh().map_err(Error::internal)?;
    let private = key.to_openssh(LineEnding::LF).map_err(Error::internal)?.to_string();
    Ok(Pair {
        fingerprint: fingerprint(key.public_key())?,
        public,
        private,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn pairs_and_imports() {
        let p = generate("me").unwrap();
        assert!(p.public.starts_with("ssh-rsa ") && p.private.contains("PRIVATE KEY"));
        assert_eq!(import(&p.public).unwrap(), p.fingerprint);
        assert_eq!(p.fingerprint.len(), 47);
        let ed = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti foo@bar";
        assert_eq!(import(ed).unwrap().len(), 47);
        for bad in [
            "",
            "ssh-rsa",
            "ssh-rsa AAAA\nssh-rsa BBBB",
            "nonsense key",
            "ssh-rsa !!!! x",
        ] {
            assert!(import(bad).is_err(), "{bad}");
        }
    }
}

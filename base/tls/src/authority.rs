//! The private authority: one key and one certificate for a cloud, and what it signs.

use crate::unusable;
use data_encoding::HEXLOWER;
use haneul_core::{Error, Result, clock, id};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SerialNumber, SignatureAlgorithm,
};
use sha2::{Digest, Sha256};
use time::{Duration, OffsetDateTime};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use uuid::Uuid;

/// Years for which the authority itself is good.
const YEARS: i64 = 20;
/// Certificates are good from before they were made, for hosts whose clocks are behind.
const BEFORE: Duration = Duration::hours(1);
const ZONE: &str = ".hosts.haneul.internal";
/// An uncompressed point of P-256.
const POINT: usize = 65;

/// A certificate with its key, both PEM; the certificate's chain comes first to last.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

/// A key that its owner made and never sends.
pub struct KeyPair(rcgen::KeyPair);

impl KeyPair {
    /// Makes a key (ECDSA, P-256).
    pub fn generate() -> Result<Self> {
        Ok(Self(
            rcgen::KeyPair::generate().map_err(|e| unusable("a key could not be made", e))?,
        ))
    }

    /// A key that was kept.
    pub fn from_pem(pem: &str) -> Result<Self> {
        Ok(Self(
            rcgen::KeyPair::from_pem(pem).map_err(|e| unusable("a stored key", e))?,
        ))
    }

    /// What is sent to be certified.
    pub fn public(&self) -> Vec<u8> {
        self.0.public_key_raw().to_vec()
    }

    /// PKCS #8, PEM.
    pub fn pem(&self) -> String {
        self.0.serialize_pem()
    }
}

/// A public key that somebody sent.
struct Sent<'a>(&'a [u8]);

impl PublicKeyData for Sent<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.0
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

/// Who a host's certificate speaks for. A host that leaves and joins again is another member: the certificates of its
/// former membership are worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostName {
    pub host: Uuid,
    pub membership: u64,
}

impl HostName {
    fn dns(self) -> String {
        format!("m{}.{}{ZONE}", self.membership, self.host)
    }

    /// Reads the name from a certificate that was verified before.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
        let mut names = certificate.valid_dns_names();
        let (name, more) = (names.next()?, names.next());
        let (membership, host) = name.strip_suffix(ZONE)?.strip_prefix('m')?.split_once('.')?;
        more.is_none().then_some(())?;
        Some(Self {
            host: Uuid::try_parse(host).ok()?,
            membership: membership.parse().ok()?,
        })
    }
}

/// Hex SHA-256 of a certificate.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    HEXLOWER.encode(&Sha256::digest(certificate))
}

/// The same of one in PEM; `None` when there is none.
pub fn fingerprint_of(pem: &str) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
    Some(fingerprint(&certificate))
}

/// The authority of one cloud.
pub struct Authority {
    certificate: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn params(cloud: Uuid) -> CertificateParams {
        let mut params = lasting(Duration::days(YEARS * 366));
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "Haneul");
        name.push(DnType::CommonName, format!("cloud {cloud}"));
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    }

    /// A new authority: certificate and key, to be stored.
    pub fn generate(cloud: Uuid) -> Result<Identity> {
        let key = rcgen::KeyPair::generate().map_err(|e| unusable("the authority's key", e))?;
        let certificate = Self::params(cloud)
            .self_signed(&key)
            .map_err(|e| unusable("the authority's certificate", e))?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// The stored authority of this cloud.
    pub fn open(cloud: Uuid, stored: &Identity) -> Result<Self> {
        let key = rcgen::KeyPair::from_pem(&stored.key).map_err(|e| unusable("the authority's key", e))?;
        let certificate = CertificateDer::from_pem_slice(stored.certificate.as_bytes())
            .map_err(|e| unusable("the authority's certificate", e))?;
        Ok(Self {
            certificate,
            pem: stored.certificate.clone(),
            issuer: Issuer::new(Self::params(cloud), key),
        })
    }

    /// The authority's certificate, PEM: what clients trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// See [`fingerprint`].
    pub fn fingerprint(&self) -> String {
        fingerprint(&self.certificate)
    }

    /// A certificate and key for a listener of ours, good for these names and addresses and always for
    /// [`crate::CONTROL`].
    pub fn server(&self, names: &[String], days: u32) -> Result<Identity> {
        let mut all = vec![crate::CONTROL.to_owned()];
        all.extend(names.iter().filter(|n| *n != crate::CONTROL).cloned());
        let mut params = named(&all, days)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = rcgen::KeyPair::generate().map_err(|e| unusable("a key could not be made", e))?;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(|e| unusable("a certificate could not be made", e))?;
        Ok(Identity {
            certificate: certificate.pem() + &self.pem,
            key: key.serialize_pem(),
        })
    }

    /// Certifies a host's key for both ends of a connection: hosts speak to each other as well. PEM.
    ///
    /// # Errors
    /// Bad request when the key is none of ECDSA, P-256.
    pub fn host(&self, name: HostName, public_key: &[u8], days: u32) -> Result<String> {
        if public_key.len() != POINT || public_key.first() != Some(&4) {
            return Err(Error::bad_request(format!(
                "The public key has {} bytes; it must be an uncompressed point of P-256, of {POINT}.",
                public_key.len()
            )));
        }
        let mut params = named(&[name.dns()], days)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(&Sent(public_key), &self.issuer)
            .map_err(|e| unusable("a certificate could not be made", e))?;
        Ok(certificate.pem())
    }
}

fn named(names: &[String], days: u32) -> Result<CertificateParams> {
    let wanted = CertificateParams::new(names.to_vec())
        .map_err(|e| Error::bad_request(format!("{}: no names for a certificate: {e}", names.join(", "))))?;
    let mut params = lasting(Duration::days(days.into()));
    params.subject_alt_names = wanted.subject_alt_names;
    params.distinguished_name = DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn lasting(life: Duration) -> CertificateParams {
    let now = OffsetDateTime::UNIX_EPOCH + Duration::microseconds(clock::now());
    let mut params = CertificateParams::default();
    params.not_before = now - BEFORE;
    params.not_after = now + life;
    // 159 random bits: positive in DER, and never the same twice.
    let mut serial = id::random_bytes(20);
    serial.iter_mut().take(1).for_each(|b| *b = (*b & 0x7f) | 0x40);
    params.serial_number = Some(SerialNumber::from(serial));
    params
}

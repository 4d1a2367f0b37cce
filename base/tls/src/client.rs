//! The side that dials.

use crate::{CONTROL, Identity, KeyPair, fingerprint, ring, unusable};
use haneul_core::clock::{self, Micros, SECOND};
use haneul_core::{Error, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};

/// Whom a connection to control believes.
pub enum Trust<'a> {
    /// The authority with this fingerprint (hex SHA-256), which the other side shows with its own certificate: what a
    /// machine knows that joins.
    Fingerprint(&'a str),
    /// This authority (PEM), and who we are.
    Member { authority: &'a str, identity: &'a Identity },
}

/// Dials control and makes sure that it is: its certificate is for [`CONTROL`], from the right authority.
pub async fn connect(address: &str, trust: &Trust<'_>) -> Result<TlsStream<TcpStream>> {
    let config = Arc::new(config(trust)?);
    let silent = |e: &dyn std::fmt::Display| Error::unavailable(format!("{address} does not answer: {e}"));
    let tcp = TcpStream::connect(address).await.map_err(|e| silent(&e))?;
    let _ = tcp.set_nodelay(true);
    crate::watch_peer(&tcp);
    let name = ServerName::try_from(CONTROL).map_err(Error::internal)?;
    TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|e| match clock_is_off(&e) {
            Some(why) => Error::unavailable(format!("{address} is not believed: {why}")),
            None => Error::unavailable(format!("{address} speaks no TLS that this machine trusts: {e}")),
        })
}

/// What is wrong when a certificate is not good at the time that it is here: control makes its own anew again and again.
fn clock_is_off(e: &std::io::Error) -> Option<String> {
    let TlsError::InvalidCertificate(e) = e.get_ref()?.downcast_ref()? else {
        return None;
    };
    let micros = |t: &UnixTime| Micros::try_from(t.as_secs()).map_or(Micros::MAX, |s| s.saturating_mul(SECOND));
    let (now, good, way) = match e {
        CertificateError::NotValidYetContext { time, not_before } => (micros(time), micros(not_before), "behind"),
        CertificateError::ExpiredContext { time, not_after } => (micros(time), micros(not_after), "ahead"),
        _ => return None,
    };
    let (edge, by) = if way == "behind" {
        ("from", good - now)
    } else {
        ("until", now - good)
    };
    Some(format!(
        "this machine's clock says {}, and control's certificate is good {edge} {}. The clock is {} {way}, at the least: set it (for instance by NTP) and try again",
        clock::iso(now),
        clock::iso(good),
        clock::span(by)
    ))
}

/// The time of the house, for the life of certificates.
#[derive(Debug)]
struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        let micros = u64::try_from(clock::now()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_micros(micros)))
    }
}

fn config(trust: &Trust<'_>) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_details(ring(), Arc::new(Now))
        .with_safe_default_protocol_versions()
        .map_err(Error::internal)?;
    Ok(match trust {
        Trust::Fingerprint(hex) => {
            let verifier = Pinned {
                fingerprint: (*hex).to_owned(),
                provider: ring(),
            };
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(verifier))
                .with_no_client_auth()
        }
        Trust::Member { authority, identity } => {
            let (chain, key) = identity.rustls()?;
            builder
                .with_root_certificates(roots(authority)?)
                .with_client_auth_cert(chain, key)
                .map_err(|e| unusable("this host's certificate", e))?
        }
    })
}

pub(crate) fn roots(pem: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| unusable("the authority's certificate", e))?;
        roots
            .add(certificate)
            .map_err(|e| unusable("the authority's certificate", e))?;
    }
    Ok(roots)
}

impl Identity {
    /// As a host keeps it: what was certified, and its own key.
    pub fn new(certificate: String, key: &KeyPair) -> Self {
        Self {
            certificate,
            key: key.pem(),
        }
    }

    pub(crate) fn rustls(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|e| Error::bad_request(format!("the certificate is no PEM: {e}")))?;
        if chain.is_empty() {
            return Err(Error::bad_request("the file of the certificate holds none (PEM)"));
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())
            .map_err(|_| Error::bad_request("the file of the key holds none (PEM, without a passphrase)"))?;
        Ok((chain, key))
    }
}

/// Trusts the one authority whose fingerprint is known, when the server shows it.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, TlsError> {
        let authority = intermediates.iter().find(|c| fingerprint(c) == self.fingerprint);
        let Some(authority) = authority else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| TlsError::General(e.to_string()))?;
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        let verify = |at| verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, at);
        verify(now).map_err(|e| {
            // Nobody but control can make us say that this machine's clock is off.
            let good = match &e {
                TlsError::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => *not_before,
                TlsError::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => *not_after,
                _ => return e,
            };
            verify(good).err().unwrap_or(e)
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        tokio_rustls::rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

//! The side that dials.

use crate::{CONTROL, Identity, KeyPair, fingerprint, ring, unusable};
use haneul_core::{Error, Result};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{WebPkiServerVerifier, verify_server_name};
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
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
        .map_err(|e| Error::unavailable(format!("{address} speaks no TLS that this machine trusts: {e}")))
}

fn config(trust: &Trust<'_>) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(ring())
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
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
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

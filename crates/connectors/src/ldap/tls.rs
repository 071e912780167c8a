//! Whom a TLS connection trusts: the certificates that were given, or else those of the machine.
//!
//! What must stay true: nothing is ever trusted because a check was left out. A given certificate is trusted as an authority, and
//! also as the peer's own if the peer shows exactly it (self-signed certificates of directory servers and Windows hosts).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use volvelle_domain::connector::{Failure, FailureClass};

/// Most certificates that one parameter may hold.
const MOST_CERTIFICATES: usize = 64;

/// The certificates of a parameter: PEM, or PEM in base64 as some clients send it.
///
/// # Errors
/// `Config` naming the parameter.
pub(crate) fn certificates(text: &str, parameter: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let pem = if text.starts_with("-----BEGIN") {
        text.as_bytes().to_vec()
    } else {
        let compact: String = text.split_whitespace().collect();
        BASE64.decode(compact).map_err(|_| unreadable(parameter))?
    };
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).take(MOST_CERTIFICATES).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(unreadable(parameter)),
    }
}

fn unreadable(parameter: &str) -> Failure {
    Failure::new(
        FailureClass::Config,
        format!("{parameter} holds no certificate"),
        format!("give {parameter} as PEM (-----BEGIN CERTIFICATE-----)"),
    )
}

/// A client configuration that trusts the given certificates only, or those of the machine if none were given.
///
/// # Errors
/// `Config` if there is nothing to trust.
pub(crate) fn client_config(given: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, Failure> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    if given.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    } else {
        roots.add_parsable_certificates(given.iter().cloned());
    }
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|_| nothing_to_trust())?;
    let verifier = Verifier { authorities, exact: given.to_vec(), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| nothing_to_trust())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn nothing_to_trust() -> Failure {
    Failure::new(
        FailureClass::Config,
        "there is no certificate to check the server's against",
        "give the certificate of the authority that signed the server's",
    )
}

/// The usual verification, and beside it the given certificates themselves.
#[derive(Debug)]
struct Verifier {
    authorities: Arc<WebPkiServerVerifier>,
    exact: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // Possession of the key is proven by the signature of the handshake, which is checked below in any case.
        if self.exact.iter().any(|exact| exact.as_ref() == shown.as_ref()) {
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(shown, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What a failed TLS handshake says about the certificate, if that is why it failed.
pub(crate) fn distrust(error: &rustls::Error, parameter: &str) -> Option<Failure> {
    let rustls::Error::InvalidCertificate(why) = error else { return None };
    let (said, hint) = match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("has expired".to_owned(), "renew the certificate on the server".to_owned())
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            "does not name the host that the target names".to_owned(),
            "use the name that is in the certificate, or give the certificate itself".to_owned(),
        ),
        CertificateError::UnknownIssuer => (
            "is signed by nobody who is trusted".to_owned(),
            format!("give the certificate of its authority in {parameter}"),
        ),
        other => (format!("is not accepted: {other:?}"), format!("check the server's certificate and {parameter}")),
    };
    Some(Failure::new(FailureClass::Config, format!("the server's certificate {said}"), hint))
}

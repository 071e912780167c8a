//! The gateway's configuration file, and the refusal to use secret files that everybody can read.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;
use volvelle_holder::customer::TokenFragment;

/// `volvelle gateway --config FILE`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// Certificate and key; a gateway in production has them.
    pub tls: Tls,
    /// `sqlite:///path` or `postgres://…`.
    pub store: String,
    /// The file that names the holders and this gateway's certificate for them.
    pub quorum: PathBuf,
    /// Where it is remembered how far the database has come, so that a restored backup is noticed; beside the database for
    /// SQLite if nothing is said.
    #[serde(default)]
    pub watermark: Option<PathBuf>,
    /// The key that signs clients' authorizations for the holders, if this gateway signs any.
    #[serde(default)]
    pub authorization_key: Option<PathBuf>,
    /// Pins of other gateways on the same database, for which these authorizations hold too.
    #[serde(default)]
    pub authorization_gateways: Vec<String>,
    /// The customer's fragments, in the vendor's format, which only this gateway and the customer's safe have.
    #[serde(default)]
    pub customer_fragments: Option<PathBuf>,
    /// A fragment of the customer's that a token keeps.
    #[serde(default)]
    pub customer_fragment: Option<InToken>,
}

/// `[customer_fragment.pkcs11]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InToken {
    /// Which key of which token.
    pub pkcs11: TokenFragment,
}

/// Where the certificate and its key are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM, the leaf first.
    pub cert: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// If a file is missing, wrong, or secret and readable by everybody.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let config: Self = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{} is not a valid configuration: {}", path.display(), error.message()))?;
        if !config.store.starts_with("sqlite:") && !config.store.starts_with("postgres") {
            bail!("store must begin with sqlite:// or postgres://");
        }
        if config.store.starts_with("postgres") {
            private(path)?;
        }
        private(&config.tls.key)?;
        private(&config.quorum)?;
        Ok(config)
    }
}

/// Refuses a file that others than its owner and group can read.
///
/// # Errors
/// Names the file and the command that mends it.
pub fn private(path: &Path) -> Result<()> {
    let meta = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if meta.permissions().mode() & 0o007 != 0 {
        bail!("{0} holds a secret and everybody can read it; run: chmod o-rwx {0}", path.display());
    }
    Ok(())
}

/// The TLS side of the accept loop.
///
/// # Errors
/// If the files hold no certificate or no key, or they do not belong together.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor> {
    private(&tls.key)?;
    let chain = CertificateDer::pem_file_iter(&tls.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("no certificate in {}", tls.cert.display()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).with_context(|| format!("no key in {}", tls.key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

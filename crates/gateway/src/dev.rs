//! `volvelle dev`: one gateway, the embedded store and three holders on this machine, for trying things out.
//!
//! What must stay true: starting again on the same directory finds everything as it was, whatever was killed when.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use volvelle_domain::Secret;
use volvelle_domain::ids::AccessId;
pub use volvelle_fragments::Suite;
use volvelle_holder::local;
use volvelle_holder::roster::write_durably;
use volvelle_rotation::Settings;
use volvelle_store::Store;

use crate::ApiError;
use crate::children::{DirLock, supervise};
use crate::credentials::{self, OsEntropy};
use crate::customer;
use crate::run::{Gateway, Predecessor, first_account};

/// Holders of a development set-up, and how many of them are needed.
const HOLDERS: (u8, u8) = (3, 2);
/// Time for the holders to make the first key.
const FIRST_KEY: Duration = Duration::from_secs(60);
/// Time for enough holders to come up again; without them the gateway serves all the same, and says so on each value.
const HOLDERS_UP: Duration = Duration::from_secs(10);

/// What `volvelle dev` was told.
#[derive(Clone, Debug)]
pub struct Dev {
    /// Everything is kept here.
    pub dir: PathBuf,
    /// Where the gateway listens.
    pub listen: SocketAddr,
    /// Bounds of the engine.
    pub settings: Settings,
    /// The suite of the keys of new accounts, the first one too; the usual one if nothing is said.
    pub suite: Suite,
    /// The customer's fragments; `customer_fragments.json` in the folder if nothing is said and that is there.
    pub customer_fragments: Option<PathBuf>,
}

/// Runs until `shutdown`. `ready` is called with the gateway's address once it serves.
///
/// # Errors
/// Another gateway runs on the directory, the address is taken, or the holders do not come up.
pub async fn run(dev: Dev, shutdown: CancellationToken, ready: impl FnOnce(&str)) -> Result<()> {
    private_folder(&dev.dir)?;
    let _lock = DirLock::take(&dev.dir)?;
    if !dev.listen.ip().is_loopback() {
        bail!("volvelle dev speaks plain HTTP and listens on loopback only; for {} use `volvelle gateway`", dev.listen);
    }
    let beside = Some(dev.dir.join("customer_fragments.json")).filter(|file| file.exists());
    let fragments = customer::load(dev.customer_fragments.or(beside).as_deref(), None)?;
    let listener = TcpListener::bind(dev.listen).await.with_context(|| format!("cannot listen on {}", dev.listen))?;
    let url = format!("http://{}", listener.local_addr()?);
    let (n, t) = HOLDERS;
    let mut setup = local::prepare_signed(&dev.dir.join("holders"), n, t)?;
    setup.quorum.suite = dev.suite;
    let holders = tokio::spawn(supervise(holder_program()?, setup.holder_configs.clone(), shutdown.clone()));
    let store = Store::open(&format!("sqlite://{}", dev.dir.join("volvelle.db").display())).await?;
    let mut gateway = Gateway::new(store, (&setup.quorum, fragments), "dev", dev.settings)?;
    let key = dev.dir.join("authorization.der");
    if key.exists() {
        gateway.sign_with(&key, &setup.quorum, &[])?;
    }
    let outcome = async {
        let admin = admin(&dev.dir.join("admin.json"), &url)?;
        found(&gateway, admin, &shutdown).await?;
        holders_up(&gateway).await;
        gateway.make_ready(Predecessor::Dead, Some(dev.dir.join("watermark"))).await
    }
    .await;
    if let Err(error) = outcome {
        shutdown.cancel();
        holders.await?;
        return Err(error);
    }
    ready(&url);
    Box::pin(gateway.run(listener, None, shutdown)).await;
    holders.await?;
    Ok(())
}

fn private_folder(dir: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("cannot protect {}", dir.display()))
}

/// The holder that was built and installed together with this program.
fn holder_program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("where this program is")?;
    let holder = own.with_file_name("volvelle-holder");
    if !holder.exists() {
        bail!("{} is missing; build or install volvelle-holder beside volvelle", holder.display());
    }
    Ok(holder)
}

/// The administrator's credentials. They are on the disk before the account is made: nobody is locked out by a crash.
pub(crate) fn admin(file: &Path, url: &str) -> Result<(AccessId, Secret)> {
    if let Ok(text) = std::fs::read_to_string(file) {
        let known: Value =
            serde_json::from_str(&text).with_context(|| format!("{} is not the file of a gateway", file.display()))?;
        if let (Some(id), Some(key)) = (known["access_id"].as_str(), known["access_key"].as_str()) {
            let admin = (AccessId(id.to_owned()), Secret::from(key));
            if known["url"] != url {
                write_admin(file, url, &admin)?;
            }
            return Ok(admin);
        }
    }
    let admin = (credentials::access_id(&OsEntropy), credentials::access_key(&OsEntropy));
    write_admin(file, url, &admin)?;
    Ok(admin)
}

fn write_admin(file: &Path, url: &str, (id, key): &(AccessId, Secret)) -> Result<()> {
    let text = json!({"url": url, "access_id": id.0, "access_key": key.expose_str().unwrap_or_default()});
    write_durably(file, text.to_string().as_bytes(), true)
}

/// Makes the first account; the holders may still be starting.
async fn found(gateway: &Gateway, admin: (AccessId, Secret), shutdown: &CancellationToken) -> Result<()> {
    let deadline = Instant::now() + FIRST_KEY;
    loop {
        match first_account(&gateway.app, admin.clone()).await {
            Ok(_) => return Ok(()),
            Err(ApiError::Unavailable { message, .. }) if Instant::now() < deadline => {
                tracing::debug!(message, "waiting for the holders");
            }
            Err(error) => bail!("the first account cannot be made: {}", error.body("")["error"]),
        }
        tokio::select! {
            () = shutdown.cancelled() => bail!("stopped before the first account was made"),
            () = sleep(Duration::from_millis(100)) => {}
        }
    }
}

/// Waits until enough holders answer.
async fn holders_up(gateway: &Gateway) {
    let deadline = Instant::now() + HOLDERS_UP;
    while Instant::now() < deadline {
        let up = gateway.app.vault.quorum().status().await.iter().filter(|holder| holder.state == "up").count();
        if up >= usize::from(HOLDERS.1) {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    tracing::warn!("too few fragment holders are up: values cannot be opened until they are");
}

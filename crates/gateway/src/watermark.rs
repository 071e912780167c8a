//! How far the database had come when this gateway last looked, kept outside of it. A database that lies behind was restored
//! from an older backup: then no stored value is called verified before its target was asked.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;
use volvelle_holder::roster::write_durably;
use volvelle_rotation::Engine;
use volvelle_store::{Store, audit};

/// How often it is brought up to date.
const EVERY: Duration = Duration::from_secs(2);

/// The file that remembers.
#[derive(Clone, Debug)]
pub struct Watermark(PathBuf);

impl Watermark {
    /// The watermark in `file`.
    #[must_use]
    pub const fn new(file: PathBuf) -> Self {
        Self(file)
    }

    /// Compares the database with what is remembered; if it lies behind, every secret is put in doubt before anybody is served.
    ///
    /// # Errors
    /// The file or the database cannot be used.
    pub async fn check(&self, store: &Store, engine: &Engine) -> Result<bool> {
        let remembered = match std::fs::read_to_string(&self.0) {
            Ok(text) => text.trim().parse::<i64>().with_context(|| format!("{} is no number", self.0.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", self.0.display())),
        };
        let height = height(store).await?;
        if height >= remembered {
            return Ok(false);
        }
        let doubted = engine.doubt_everything().await?;
        tracing::error!(
            height,
            remembered,
            doubted,
            "the database is older than it was: a backup was restored; every rotated secret is verified anew"
        );
        self.keep(height)?;
        Ok(true)
    }

    /// Follows the database until `shutdown`.
    pub async fn follow(&self, store: Store, shutdown: CancellationToken) {
        let mut kept = 0;
        loop {
            let over = shutdown.is_cancelled();
            match height(&store).await {
                Ok(height) if height != kept => match self.keep(height) {
                    Ok(()) => kept = height,
                    Err(error) => tracing::warn!(%error, "the watermark cannot be written"),
                },
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "the watermark cannot be read from the database"),
            }
            if over {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn keep(&self, height: i64) -> Result<()> {
        write_durably(&self.0, height.to_string().as_bytes(), true)
    }
}

async fn height(store: &Store) -> Result<i64> {
    let mut tx = store.read().await?;
    Ok(audit::height(&mut tx).await?)
}

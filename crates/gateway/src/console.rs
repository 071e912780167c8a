//! The web console: its files, and its sessions. The pages are a client of the public API and can do nothing more; the only
//! thing here that the API has not is a cookie in the place of the token.
//!
//! What must stay true: no script can read the token, and no other site can make a browser use it.

mod assets;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;
use crate::server::{Answer, Call, Operations};

pub use assets::{asset, packed};
pub use session::{Presented, Sessions};

/// The gateway's operations together with the console.
pub struct Console {
    app: Arc<App>,
    sessions: Sessions,
}

impl Console {
    /// The console of a gateway.
    #[must_use]
    pub fn new(app: Arc<App>) -> Self {
        Self { sessions: Sessions::new(Arc::clone(&app)), app }
    }
}

#[async_trait]
impl Operations for Console {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Answer, ApiError>> {
        self.app.call(call)
    }

    async fn health(&self) -> Result<Value, ApiError> {
        self.app.health().await
    }

    fn openapi(&self) -> Value {
        self.app.openapi()
    }

    fn metrics(&self) -> String {
        self.app.metrics()
    }

    fn sessions(&self) -> Option<&Sessions> {
        Some(&self.sessions)
    }
}

/// Whether a path belongs to the console.
#[must_use]
pub fn owns(path: &str) -> bool {
    path == "/console" || path.starts_with("/console/")
}

//! The body of every answer that is not a success.

use serde::{Deserialize, Serialize};

/// What went wrong, for people and for programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// One sentence without a value in it.
    pub error: String,
    /// Machine-readable code, such as `not_found`.
    #[serde(default)]
    pub code: String,
    /// What can be done about it; may be empty.
    #[serde(default)]
    pub hint: String,
    /// Names this request in logs and audit.
    #[serde(default)]
    pub request_id: String,
}

//! What the parts behind the gateway refuse, as errors of the API. Texts of databases stay in the log.

use volvelle_domain::connector::Failure;
use volvelle_holder::{Presence, QuorumError, Refusal};
use volvelle_rotation::EngineError;
use volvelle_store::StoreError;

use crate::error::ApiError;

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(what) => Self::AlreadyExists(what.to_owned()),
            StoreError::Forbidden(what) => Self::Conflict(format!("the store refuses {what}")),
            StoreError::LostLease => Self::Conflict("it was changed by somebody else at the same time".to_owned()),
            StoreError::Unavailable(source) => {
                tracing::error!(error = %source, "the database does not work");
                Self::Unavailable {
                    message: "the database is not available".to_owned(),
                    hint: "look at the database and at the gateway's log".to_owned(),
                }
            }
            other => {
                tracing::error!(error = %other, "the store failed");
                Self::Internal
            }
        }
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Store(error) => error.into(),
            EngineError::Quorum(error) => error.into(),
            EngineError::Failed(failure) => failure.into(),
            EngineError::NotRotated => {
                Self::BadParameter { param: "name".to_owned(), message: "it is no rotated secret".to_owned() }
            }
            EngineError::Busy => Self::Conflict("a rotation of it is under way; try again when it is over".to_owned()),
            EngineError::OutOfSync => Self::Rotation {
                code: "rotation_out_of_sync",
                message: "no stored value opens the account, so it is not rotated".to_owned(),
                hint: "run `volvelle rotated-secret repair`".to_owned(),
            },
        }
    }
}

impl From<QuorumError> for ApiError {
    fn from(error: QuorumError) -> Self {
        use QuorumError as E;
        match error {
            E::TooFewHolders { .. } | E::KeyGeneration(_) => Self::Unavailable {
                message: error.to_string(),
                hint: "start the fragment holders that are down".to_owned(),
            },
            E::Refused { why, detail } => {
                let (why, hint) = match why {
                    Refusal::Deleted => (
                        "this version was deleted, and the holders never open it again",
                        "a backup does not bring deleted versions back; write a new value",
                    ),
                    Refusal::Policy => (
                        "the holders' policy does not let this gateway open it",
                        "ask the holders' administrators; `policies` in the roster says what each gateway may",
                    ),
                    Refusal::Budget => (
                        "this gateway has opened as many items as the holders allow for now",
                        "wait, or have the holders' administrators raise the budget in the roster",
                    ),
                    Refusal::Authorization => (
                        "the holders do not accept the authorization of this request",
                        "sign in again; if that does not help, compare the gateway's signing key with the holders' configuration",
                    ),
                };
                Self::HoldersRefuse { message: format!("{why} ({detail})"), hint: hint.to_owned() }
            }
            E::Holders(message) => Self::Unavailable {
                message,
                hint: "run `volvelle fragments status` to see how each holder is".to_owned(),
            },
            E::CustomerFragment { presence: Presence::Wrong, .. } => {
                Self::CustomerFragment { code: "customer_fragment_wrong", message: error.to_string() }
            }
            E::CustomerFragment { .. } => {
                Self::CustomerFragment { code: "customer_fragment_missing", message: error.to_string() }
            }
            E::CustomerToken { .. } => {
                Self::CustomerFragment { code: "customer_fragment_token", message: error.to_string() }
            }
            E::Record(inner) => {
                tracing::error!(error = %inner, "a sealed record cannot be opened");
                Self::Unavailable {
                    message: format!("the stored record cannot be opened: {inner}"),
                    hint: "the database was changed by somebody else, or restored in parts".to_owned(),
                }
            }
            E::Config(inner) => {
                tracing::error!(error = %inner, "the holders' configuration is wrong");
                Self::Internal
            }
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        use volvelle_domain::connector::FailureClass as C;
        let code = match failure.class {
            C::Config => "target_config",
            C::Auth => "target_auth",
            C::Privilege => "target_privilege",
            C::Policy => "target_policy",
            C::PeerIdentity => "target_identity",
            C::Unreachable => "target_unreachable",
            C::Timeout => "target_timeout",
            C::LoginBudget => "target_login_budget",
            C::Protocol => "target_protocol",
        };
        Self::Refused { code, message: failure.message, hint: failure.hint }
    }
}

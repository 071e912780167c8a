//! What can go wrong with a request, and the one place that says how each is answered.

use hyper::StatusCode;
use serde_json::{Value, json};

/// Why a request was not done. No variant may carry a secret value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// No such operation, or none named.
    UnknownCommand(String),
    /// A parameter is missing or wrong.
    BadParameter {
        /// Its wire name.
        param: String,
        /// What is wrong with it.
        message: String,
    },
    /// The body is no JSON object.
    BadBody,
    /// No token, or one that is unknown, ended or revoked; or a wrong access key.
    Unauthenticated,
    /// The caller lacks the right; the same whether or not the object exists.
    Unauthorized {
        /// The tenant.
        account: String,
        /// The caller.
        access_id: String,
    },
    /// There is no such object, and the caller may know that.
    NotFound {
        /// The tenant.
        account: String,
        /// The caller.
        access_id: String,
        /// What was asked for, such as `item /a/b`.
        what: String,
    },
    /// The name is taken.
    AlreadyExists(String),
    /// It cannot be done in the present state.
    Conflict(String),
    /// The target, asked before anything was changed, makes it impossible.
    Refused {
        /// Such as `target_auth`.
        code: &'static str,
        /// What happened.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A rotation was tried and did not succeed, or is not over yet.
    Rotation {
        /// `rotation_failed`, `rotation_partial`, `rotation_in_doubt`, `rotation_out_of_sync` or `rotation_pending`.
        code: &'static str,
        /// What happened.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// Somebody has checked the object out.
    Locked {
        /// Who.
        by: String,
        /// Until when.
        until: String,
    },
    /// Too many failed attempts; try again after so many seconds.
    SlowDown(u64),
    /// The body is longer than allowed.
    TooLarge,
    /// It took longer than allowed.
    Timeout,
    /// A part the gateway needs does not answer.
    Unavailable {
        /// What does not answer.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// The fragment holders can and will not.
    HoldersRefuse {
        /// Which of them, and why.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// What was asked for is sealed with a customer's fragment that this gateway has not got.
    CustomerFragment {
        /// `customer_fragment_missing`, `customer_fragment_wrong` or `customer_fragment_token`.
        code: &'static str,
        /// Which one.
        message: String,
    },
    /// A fault of the program; details are in the log under the request id.
    Internal,
}

/// How an error is answered.
struct Parts {
    status: StatusCode,
    code: &'static str,
    text: String,
    hint: String,
}

impl ApiError {
    fn parts(&self) -> Parts {
        let (status, code, text, hint) = match self {
            Self::UnknownCommand(name) => (
                StatusCode::NOT_FOUND,
                "unknown_command",
                format!("unknown command {name}").trim_end().to_owned(),
                "GET /openapi.json lists the operations",
            ),
            Self::BadParameter { param, message } => {
                (StatusCode::BAD_REQUEST, "bad_parameter", format!("{param}: {message}"), "")
            }
            Self::BadBody => (
                StatusCode::BAD_REQUEST,
                "bad_body",
                "the body is not a JSON object".to_owned(),
                "send the parameters as one JSON object",
            ),
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "Status 401 Unauthorized, Error: UnauthorizedAccess. Message: the credential is not valid".to_owned(),
                "ask for a new token with /auth",
            ),
            Self::Unauthorized { account, access_id } => (
                StatusCode::UNAUTHORIZED,
                "unauthorized",
                format!(
                    "Status 401 Unauthorized, Error: UnauthorizedAccess. Message: account id: {account}, access id: \
                     {access_id}. unauthorized access for access id {access_id}"
                ),
                "a role must grant the capability on this path",
            ),
            Self::NotFound { account, access_id, what } => (
                StatusCode::NOT_FOUND,
                "not_found",
                format!(
                    "Status 404 Not Found, Error: NotFound. Message: account id: {account}, access id: {access_id}. \
                     failed to obtain {what}"
                ),
                "",
            ),
            Self::AlreadyExists(what) => {
                (StatusCode::CONFLICT, "already_exists", format!("AlreadyExists: {what} exists already"), "")
            }
            Self::Conflict(what) => (StatusCode::CONFLICT, "conflict", format!("Conflict: {what}"), ""),
            Self::Refused { code, message, hint } => (StatusCode::BAD_REQUEST, *code, message.clone(), hint.as_str()),
            Self::Rotation { code, message, hint } => (StatusCode::BAD_GATEWAY, *code, message.clone(), hint.as_str()),
            Self::Locked { by, until } => (
                StatusCode::LOCKED,
                "locked",
                format!("it is checked out by {by} until {until}"),
                "wait, or unlock it with unlock-item",
            ),
            Self::SlowDown(seconds) => (
                StatusCode::TOO_MANY_REQUESTS,
                "slow_down",
                format!("too many failed attempts; try again in {seconds} s"),
                "check the access key",
            ),
            Self::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is longer than 1 MiB".to_owned(), "")
            }
            Self::Timeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "timeout",
                "the request took longer than allowed".to_owned(),
                "what was begun may still be done: look before trying again",
            ),
            Self::Unavailable { message, hint } => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", message.clone(), hint.as_str())
            }
            Self::HoldersRefuse { message, hint } => {
                (StatusCode::FORBIDDEN, "holders_refuse", message.clone(), hint.as_str())
            }
            Self::CustomerFragment { code, message } => (
                StatusCode::SERVICE_UNAVAILABLE,
                *code,
                message.clone(),
                "give this gateway the customer's fragment and start it again, or ask a gateway that has it; nothing is lost \
                 as long as the fragment is kept somewhere",
            ),
            Self::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "internal error".to_owned(),
                "the gateway's log has more under this request id",
            ),
        };
        Parts { status, code, text, hint: hint.to_owned() }
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.parts().status
    }

    /// The JSON body.
    #[must_use]
    pub fn body(&self, request_id: &str) -> Value {
        let Parts { code, text, hint, .. } = self.parts();
        json!({"error": text, "code": code, "hint": hint, "request_id": request_id})
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.parts().text)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_as_clients_expect() {
        let (account, access_id) = ("acc-x".to_owned(), "p-y".to_owned());
        let refused = ApiError::Unauthorized { account: account.clone(), access_id: access_id.clone() };
        assert_eq!(refused.status(), 401);
        let text = refused.body("r1")["error"].as_str().expect("text").to_owned();
        assert!(text.contains("unauthorized access for access id p-y"), "{text}");
        let missing = ApiError::NotFound { account, access_id, what: "item /some/item".to_owned() };
        assert_eq!(missing.status(), 404);
        let text = missing.body("r1")["error"].as_str().expect("text").to_owned();
        assert!(text.ends_with("account id: acc-x, access id: p-y. failed to obtain item /some/item"), "{text}");
        assert!(
            ApiError::AlreadyExists("/a".into()).body("r")["error"].as_str().expect("text").contains("AlreadyExists")
        );
    }
}

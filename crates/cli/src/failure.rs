//! Why a command failed, and the exit code that tells scripts. The codes are documented: they never change.

use volvelle_api::ClientError;

/// Something else went wrong.
pub const ERROR: u8 = 1;
/// The command line or a parameter is wrong.
pub const USAGE: u8 = 2;
/// There is no such object.
pub const NOT_FOUND: u8 = 3;
/// Not signed in, not allowed, or checked out by somebody else.
pub const DENIED: u8 = 4;
/// The gateway, or a part it needs, does not answer.
pub const UNREACHABLE: u8 = 5;
/// A rotation failed or succeeded in part, or a stored value does not open its account.
pub const ROTATION: u8 = 6;

/// The holders' logs have what the audit log does not explain.
pub const UNEXPLAINED: u8 = 7;

/// Every exit code with its meaning, for help and documents.
pub const CODES: &[(u8, &str)] = &[
    (0, "done"),
    (ERROR, "something else went wrong"),
    (USAGE, "the command line or a parameter is wrong"),
    (NOT_FOUND, "there is no such object"),
    (DENIED, "not signed in, not allowed, or checked out by somebody else"),
    (UNREACHABLE, "the gateway, or a part it needs, does not answer"),
    (ROTATION, "a rotation failed or succeeded only in part, or a stored value does not open its account"),
    (UNEXPLAINED, "the holders' logs have what the audit log does not explain"),
];

/// Why a command failed: exit code, sentence and hint.
#[derive(Debug)]
pub struct Failed {
    /// The exit code.
    pub code: u8,
    /// What happened.
    pub message: String,
    /// What to do about it; may be empty.
    pub hint: String,
    /// The gateway's machine-readable code; empty when it did not answer.
    pub reason: String,
}

impl Failed {
    /// A failure with the general code.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::with(ERROR, message, hint)
    }

    /// A wrong command line.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::with(USAGE, message, hint)
    }

    /// A failure with this exit code.
    pub fn with(code: u8, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into(), reason: String::new() }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Unreachable { reason, .. } if reason.contains("certificate") => Self::with(
                UNREACHABLE,
                message,
                "name the root that signed it with --ca-cert FILE or VOLVELLE_CA_CERT, if it is the right gateway",
            ),
            ClientError::Unreachable { .. } => Self::with(
                UNREACHABLE,
                message,
                "is the gateway running? --gateway-url, --data-dir or a profile says which one is asked",
            ),
            ClientError::Refused { status, body } => {
                let code = match (status, body.code.as_str()) {
                    (_, code) if code.starts_with("rotation") => ROTATION,
                    (_, "bad_parameter") => USAGE,
                    (404, _) => NOT_FOUND,
                    (401 | 403 | 423 | 429, _) => DENIED,
                    (502..=504, _) => UNREACHABLE,
                    _ => ERROR,
                };
                Self { code, message: plain(&body.error), hint: body.hint, reason: body.code }
            }
            ClientError::Setup(_) => Self::new(message, ""),
        }
    }
}

/// The sentence inside the form that official clients look for.
fn plain(error: &str) -> String {
    let text = error.split_once("Message: ").map_or(error, |(_, text)| text);
    let text = match text.split_once("access id: ") {
        Some((_, rest)) if text.starts_with("account id: ") => rest.split_once(". ").map_or(text, |(_, rest)| rest),
        _ => text,
    };
    let text = ["AlreadyExists: ", "Conflict: "].iter().find_map(|form| text.strip_prefix(form)).unwrap_or(text);
    match text.strip_prefix("failed to obtain ") {
        Some(what) => format!("there is no {what}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn the_sentence_is_taken_out_of_the_official_form() {
        let form = "Status 404 Not Found, Error: NotFound. Message: account id: acc-1, access id: p-1. failed to obtain item /a";
        assert_eq!(plain(form), "there is no item /a");
        assert_eq!(plain("AlreadyExists: item /a exists already"), "item /a exists already");
        assert_eq!(plain("name: is required"), "name: is required");
    }
}

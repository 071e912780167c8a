//! What a Redfish service says of itself (`@Message.ExtendedInfo`), as sentences for a person and classes for the engine.
//!
//! What must stay true: a service may repeat the value it refuses, so that the candidate is taken out of whatever it says.

use serde_json::Value;
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};

/// Most messages that are looked at.
const MOST: usize = 8;
/// Longest text of a message that is passed on.
const LONGEST: usize = 160;

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The last part of its name: `InsufficientPrivilege`.
    pub(super) id: String,
    pub(super) text: String,
    pub(super) arguments: Vec<String>,
}

/// Every message of an answer, wherever it stands.
pub(super) fn all(body: &Value) -> Vec<Message> {
    let places = [
        &body["error"]["@Message.ExtendedInfo"],
        &body["@Message.ExtendedInfo"],
        &body["Password@Message.ExtendedInfo"],
    ];
    let told = places.into_iter().filter_map(Value::as_array).flatten().take(MOST);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found: Vec<Message> = told
        .map(|message| Message {
            id: text(&message["MessageId"]).rsplit('.').next().unwrap_or_default().to_owned(),
            text: text(&message["Message"]),
            arguments: message["MessageArgs"].as_array().into_iter().flatten().map(text).collect(),
        })
        .collect();
    if found.is_empty() && body["error"]["code"].is_string() {
        let id = text(&body["error"]["code"]).rsplit('.').next().unwrap_or_default().to_owned();
        found.push(Message { id, text: text(&body["error"]["message"]), arguments: Vec::new() });
    }
    found
}

/// Whether an answer that says it went well annotates the password as not set.
pub(super) fn refused_all_the_same(body: &Value) -> bool {
    let notes = body["Password@Message.ExtendedInfo"].as_array();
    notes.is_some_and(|notes| {
        notes.iter().any(|note| !matches!(note["MessageSeverity"].as_str().or(note["Severity"].as_str()), Some("OK")))
    })
}

/// The account that must change its password before anything else.
pub(super) fn must_change(messages: &[Message]) -> Option<String> {
    let message = messages.iter().find(|message| message.id == "PasswordChangeRequired")?;
    Some(message.arguments.first().cloned().unwrap_or_default())
}

/// The service's words without the candidate and without anything that is no text.
fn quoted(text: &str, candidate: Option<&Secret>) -> String {
    let hidden = candidate.and_then(Secret::expose_str).filter(|password| !password.is_empty());
    let text = hidden.map_or_else(|| text.to_owned(), |password| text.replace(password, "…"));
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

const POLICY: &[&str] = &[
    "PropertyValueFormatError",
    "PropertyValueOutOfRange",
    "PropertyValueError",
    "PropertyValueIncorrect",
    "PropertyValueTypeError",
    "PropertyValueNotInList",
    "StringValueTooLong",
    "StringValueTooShort",
    "AccountNotModified",
    "PasswordComplexityError",
];

/// What a refusal (status 400 to 499) means. `what` is what was asked for, as in "will not …".
pub(super) fn refusal(status: u16, body: &Value, what: &str, candidate: Option<&Secret>) -> Failure {
    let messages = all(body);
    let is = |ids: &[&str]| messages.iter().any(|message| ids.contains(&message.id.as_str()));
    let said = messages.iter().find(|message| !message.text.is_empty());
    let words = said.map(|message| format!(": {}", quoted(&message.text, candidate).trim_end_matches('.')));
    let words = words.unwrap_or_default();
    if is(&["SessionLimitExceeded", "ServiceTemporarilyUnavailable", "ServiceShuttingDown"]) || status == 503 {
        let message = format!("the BMC has no room for another session or request{words}");
        return Failure::new(FailureClass::Timeout, message, "try again later");
    }
    if messages.iter().any(|message| message.text.to_lowercase().contains("locked")) {
        return Failure::new(
            FailureClass::LoginBudget,
            format!("the BMC has locked an account{words}"),
            "wait for AccountLockoutDuration, or unlock it on the BMC",
        );
    }
    if must_change(&messages).is_some() {
        let message = format!("the BMC demands a new password of the acting user before it will {what}");
        return Failure::new(FailureClass::Privilege, message, "change that password first");
    }
    if status == 403 || is(&["InsufficientPrivilege", "AccessDenied"]) {
        let message = format!("the BMC does not let the acting user {what}{words}");
        return Failure::new(FailureClass::Privilege, message, "give its role ConfigureUsers");
    }
    if status == 412 || status == 428 {
        let message = "the account was changed by somebody else at the same moment, and nothing was done";
        return Failure::new(FailureClass::Timeout, message, "try again");
    }
    if status == 401 {
        return Failure::new(FailureClass::Auth, format!("the BMC has ended the session{words}"), "try again");
    }
    if candidate.is_some() && status == 400 && (is(POLICY) || words.to_lowercase().contains("password")) {
        let message = format!("the BMC refuses the new password{words}");
        return Failure::new(FailureClass::Policy, message, "compare the password policy with the BMC's");
    }
    let message = format!("the BMC will not {what} (HTTP {status}){words}");
    Failure::new(FailureClass::Config, message, "check the account and the BMC's firmware")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn error(id: &str, text: &str) -> Value {
        json!({"error": {"code": "Base.1.18.GeneralError", "message": "A general error.", "@Message.ExtendedInfo": [
            {"MessageId": format!("Base.1.18.{id}"), "Message": text, "MessageArgs": ["/redfish/v1/x", 1]}]}})
    }

    #[test]
    fn messages_become_sentences_and_classes() {
        let new = Secret::from("Sup3r,Secret");
        let of = |status, id, text| refusal(status, &error(id, text), "set the password", Some(&new));
        let told = of(400, "PropertyValueFormatError", "The value 'Sup3r,Secret' for the property Password is wrong.");
        assert_eq!(told.class, FailureClass::Policy);
        assert_eq!(told.message, "the BMC refuses the new password: The value '…' for the property Password is wrong");
        assert_eq!(of(403, "InsufficientPrivilege", "").class, FailureClass::Privilege);
        assert_eq!(of(503, "ServiceTemporarilyUnavailable", "").class, FailureClass::Timeout);
        assert_eq!(of(401, "AccessDenied", "User account is locked.").class, FailureClass::LoginBudget);
        assert_eq!(of(412, "PreconditionFailed", "").class, FailureClass::Timeout);
        assert_eq!(of(404, "ResourceNotFound", "gone").class, FailureClass::Config);
        assert_eq!(refusal(400, &json!({}), "x", None).message, "the BMC will not x (HTTP 400)");
    }

    #[test]
    fn messages_are_found_wherever_they_stand() {
        assert_eq!(all(&error("Created", "x"))[0].arguments, ["/redfish/v1/x", ""]);
        let short = json!({"error": {"code": "Base.1.0.InsufficientPrivilege", "message": "no"}});
        assert_eq!(all(&short)[0].id, "InsufficientPrivilege");
        let noted = json!({"Password@Message.ExtendedInfo": [{"MessageId": "Base.1.18.PropertyValueFormatError",
            "MessageSeverity": "Warning"}]});
        assert!(refused_all_the_same(&noted) && all(&noted)[0].id == "PropertyValueFormatError");
        assert!(!refused_all_the_same(&json!({"@Message.ExtendedInfo": [{"MessageId": "Base.1.18.Success"}]})));
        let required = json!({"@Message.ExtendedInfo": [{"MessageId": "Base.1.18.PasswordChangeRequired",
            "MessageArgs": ["/redfish/v1/AccountService/Accounts/2"]}]});
        assert_eq!(must_change(&all(&required)).as_deref(), Some("/redfish/v1/AccountService/Accounts/2"));
    }
}

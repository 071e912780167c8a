//! A Redfish service somebody has logged in to: its sessions, its accounts and its rules.
//!
//! A session is used where the service offers them: then a wrong password is one failed login and not one per request. Services without
//! sessions get the password with each request.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::Method;
use serde_json::Value;
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass};
use zeroize::Zeroizing;

use super::http::{Answer, Ask, Client, Proof};
use super::visit::{Visit, Who};
use super::{config, messages, strange};

const ROOT: &str = "/redfish/v1/";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const ACCOUNT_SERVICE: &str = "/redfish/v1/AccountService";
/// Most accounts, and most pages of them.
const MOST_ACCOUNTS: usize = 256;
const MOST_PAGES: usize = 16;
/// How long the end of a session may take.
const FAREWELL: std::time::Duration = std::time::Duration::from_secs(3);

/// What came of a login.
pub(super) enum Login {
    In(Box<Inside>),
    /// The service refused the name or the password; a locked account may look the same.
    Refused,
}

/// Somebody inside.
pub(super) struct Inside {
    client: Client,
    session: Option<String>,
    account_service: String,
    /// The account that must change its password before anything else, if the service says so.
    pub(super) must_change: Option<String>,
}

/// Rules of the service for all accounts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) shortest: Option<u16>,
    pub(super) longest: Option<u16>,
    /// Failed logins after which an account is locked; 0: never.
    pub(super) threshold: u32,
}

/// One account.
pub(super) struct Account {
    pub(super) path: String,
    pub(super) body: Value,
    pub(super) tag: Option<String>,
}

impl Account {
    pub(super) fn name(&self) -> &str {
        self.body["UserName"].as_str().unwrap_or_default()
    }

    /// Why no password opens it now, if so.
    pub(super) fn barred(&self) -> Option<Failure> {
        let user = self.name();
        if self.body["Locked"] == true {
            return Some(Failure::new(
                FailureClass::LoginBudget,
                format!("the account {user} is locked on the BMC after failed logins"),
                "wait for AccountLockoutDuration, or set Locked to false on the BMC",
            ));
        }
        if self.body["Enabled"] == false {
            return Some(config(
                format!("the account {user} is disabled on the BMC"),
                "enable the account, or stop rotating it",
            ));
        }
        let types = self.body["AccountTypes"].as_array();
        if types.is_some_and(|types| !types.iter().any(|kind| kind == "Redfish")) {
            return Some(config(
                format!("the account {user} may not use Redfish, so that its password cannot be checked"),
                "add Redfish to its AccountTypes",
            ));
        }
        None
    }

    fn role(&self) -> Option<&str> {
        self.body["Links"]["Role"]["@odata.id"].as_str()
    }
}

/// A path of the service's own, as it names it.
fn path(value: &Value) -> Option<&str> {
    value["@odata.id"].as_str().filter(|path| is_path(path))
}

/// Whether a text is a path that may be asked for: the service names them, and one elsewhere is none of its own.
pub(super) fn is_path(path: &str) -> bool {
    path.starts_with("/redfish/") && path.len() <= 512 && path.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Logs in, by a session if there are any.
pub(super) async fn log_in(visit: &Visit<'_>, who: Who<'_>) -> Result<Login, Failure> {
    let password = who.must()?;
    let text = password.expose_str().ok_or_else(|| config("the password is no text", "correct it"))?;
    let mut client = Client::open(visit).await?;
    let root = client.ask(Ask { method: Method::GET, path: ROOT, if_match: None, body: None }).await?;
    if root.status != 200 {
        return Err(strange(format!("there is no Redfish service (HTTP {})", root.status)));
    }
    let account_service = path(&root.body["AccountService"]).unwrap_or(ACCOUNT_SERVICE).to_owned();
    let sessions = path(&root.body["Links"]["Sessions"]).unwrap_or(SESSIONS);
    // A value in a tree of JSON would be copied and not wiped.
    let mut body = Zeroizing::new(b"{\"UserName\":".to_vec());
    body.extend_from_slice(&quoted(who.user));
    body.extend_from_slice(b",\"Password\":");
    body.extend_from_slice(&quoted(text));
    body.push(b'}');
    let ask = Ask { method: Method::POST, path: sessions, if_match: None, body: Some(body) };
    let answer = client.ask(ask).await?;
    let told = messages::all(&answer.body);
    let must_change = messages::must_change(&told);
    match answer.status {
        200 | 201 if answer.token.is_some() => {
            let session = answer.location.as_deref().map(without_host).filter(|path| is_path(path));
            let session = session.or_else(|| path(&answer.body)).map(str::to_owned);
            client.proof = answer.token.map_or(Proof::None, Proof::Token);
            Ok(Login::In(Box::new(Inside { client, session, account_service, must_change })))
        }
        404 | 405 | 501 => {
            let pair = Zeroizing::new(format!("{}:{text}", who.user));
            client.proof = Proof::Basic(Secret::from(format!("Basic {}", BASE64.encode(pair.as_bytes()))));
            let mut inside = Inside { client, session: None, account_service, must_change };
            let path = inside.account_service.clone();
            let answer = inside.get(&path).await?;
            if answer.status == 401 {
                return Ok(Login::Refused);
            }
            inside.must_change = messages::must_change(&messages::all(&answer.body));
            Ok(Login::In(Box::new(inside)))
        }
        // Some say 400 with a message of their own.
        401 | 400 if answer.status == 401 || told.iter().any(|message| message.id.contains("Unauthorized")) => {
            if told.iter().any(|message| message.text.to_lowercase().contains("locked")) {
                return Err(messages::refusal(401, &answer.body, "log in", None));
            }
            Ok(Login::Refused)
        }
        200..=299 => Err(strange("it opens a session and gives no token")),
        status => Err(messages::refusal(status, &answer.body, "log in", None)),
    }
}

/// A JSON string.
fn quoted(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(serde_json::to_vec(text).expect("text can be written"))
}

fn without_host(location: &str) -> &str {
    location.find("/redfish/").map_or(location, |at| &location[at..])
}

impl Inside {
    async fn get(&mut self, path: &str) -> Result<Answer, Failure> {
        self.client.ask(Ask { method: Method::GET, path, if_match: None, body: None }).await
    }

    async fn must_get(&mut self, path: &str, what: &str) -> Result<Answer, Failure> {
        let answer = self.get(path).await?;
        match answer.status {
            200 if answer.body.is_object() => Ok(answer),
            200 => Err(strange(format!("{path} is no JSON"))),
            status => Err(messages::refusal(status, &answer.body, what, None)),
        }
    }

    /// Ends the session: controllers have few. The connection ends with it.
    pub(super) async fn leave(mut self) {
        if let Some(path) = self.session.take() {
            let ask = Ask { method: Method::DELETE, path: &path, if_match: None, body: None };
            let _ = tokio::time::timeout(FAREWELL, self.client.ask(ask)).await;
        }
    }

    /// The account at a path.
    pub(super) async fn account(&mut self, path: &str) -> Result<Account, Failure> {
        let answer = self.must_get(path, "read the account").await?;
        let tag = answer.tag.or_else(|| answer.body["@odata.etag"].as_str().map(str::to_owned));
        Ok(Account { path: path.to_owned(), tag, body: answer.body })
    }

    /// The rules, and the accounts with these names (`None` where there is none).
    pub(super) async fn accounts<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Result<(Rules, [Option<Account>; N]), Failure> {
        let path_of_all = self.account_service.clone();
        let service = self.must_get(&path_of_all, "read its accounts").await?.body;
        if service["ServiceEnabled"] == false {
            return Err(config("the BMC's account service is switched off", "switch it on"));
        }
        let number = |name: &str| service[name].as_u64();
        let length = |name: &str| number(name).and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
        let rules = Rules {
            shortest: length("MinPasswordLength"),
            longest: length("MaxPasswordLength"),
            threshold: number("AccountLockoutThreshold").map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        };
        let mut page = path(&service["Accounts"]).map(str::to_owned);
        let mut paths = Vec::new();
        for _ in 0..MOST_PAGES {
            let Some(next) = page.take() else { break };
            let collection = self.must_get(&next, "read its accounts").await?.body;
            let members = collection["Members"].as_array().into_iter().flatten();
            paths.extend(members.filter_map(path).map(str::to_owned));
            page = collection["Members@odata.nextLink"].as_str().filter(|path| is_path(path)).map(str::to_owned);
        }
        // Some services name accounts by their users.
        paths.sort_by_key(|path| !names.iter().any(|name| path.rsplit('/').next() == Some(name)));
        let mut found = [const { None }; N];
        for path in paths.iter().take(MOST_ACCOUNTS) {
            if found.iter().all(Option::is_some) {
                break;
            }
            // Others' accounts may be hidden from the acting user, and empty slots may not answer.
            let account = match self.account(path).await {
                Ok(account) => account,
                Err(failure) if matches!(failure.class, FailureClass::Unreachable | FailureClass::Timeout) => {
                    return Err(failure);
                }
                Err(_) => continue,
            };
            if let Some(at) = names.iter().position(|name| *name == account.name())
                && found[at].is_none()
            {
                found[at] = Some(account);
            }
        }
        Ok((rules, found))
    }

    /// What the account's role may do; `None` if that cannot be read.
    pub(super) async fn privileges(&mut self, account: &Account) -> Option<Vec<String>> {
        let linked = account.role().filter(|path| is_path(path)).map(str::to_owned);
        let named = account.body["RoleId"].as_str().map(|role| format!("{}/Roles/{role}", self.account_service));
        let role = self.get(&linked.or(named)?).await.ok().filter(|answer| answer.status == 200)?;
        let privileges = role.body["AssignedPrivileges"].as_array()?;
        Some(privileges.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect())
    }

    /// Sets the account's password, if it is still in the state in which it was read.
    pub(super) async fn set_password(&mut self, account: &Account, new: &str) -> Result<Answer, Failure> {
        let mut body = Zeroizing::new(b"{\"Password\":".to_vec());
        body.extend_from_slice(&quoted(new));
        body.push(b'}');
        let (path, if_match) = (account.path.as_str(), account.tag.as_deref());
        self.client.ask(Ask { method: Method::PATCH, path, if_match, body: Some(body) }).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_paths_of_the_service_are_followed() {
        assert!(is_path("/redfish/v1/AccountService/Accounts/3"));
        for wrong in ["https://elsewhere/redfish/v1", "/other", "/redfish/v1/a b", "/redfish/\r\nX: y"] {
            assert!(!is_path(wrong), "{wrong:?}");
        }
        assert_eq!(without_host("https://bmc/redfish/v1/S/1"), "/redfish/v1/S/1");
    }

    #[test]
    fn an_account_that_nobody_can_enter_says_why() {
        let of = |body: Value| Account { path: String::new(), body, tag: None }.barred().map(|failure| failure.class);
        assert_eq!(of(json!({"UserName": "a", "Locked": true})), Some(FailureClass::LoginBudget));
        assert_eq!(of(json!({"UserName": "a", "Enabled": false})), Some(FailureClass::Config));
        assert_eq!(of(json!({"UserName": "a", "AccountTypes": ["SNMP"]})), Some(FailureClass::Config));
        assert_eq!(of(json!({"UserName": "a", "AccountTypes": ["IPMI", "Redfish"], "Locked": false})), None);
    }
}

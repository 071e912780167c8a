//! One call of the connector: who acts, in which region, and whether something was sent that may change AWS.

use volvelle_domain::connector::{ActingAs, Call, Failure, FailureClass};

use super::place::Service;
use super::query::{Client, Key, Trouble};
use super::{EXTERNAL_ID, OWN, config, flag, text, word, xml};
use crate::sent::Sent;

/// One call of the connector.
pub(super) struct Visit<'a> {
    pub(super) client: Client,
    pub(super) call: &'a Call<'a>,
    pub(super) sent: Sent,
}

impl<'a> Visit<'a> {
    pub(super) fn new(client: Client, call: &'a Call<'a>) -> Self {
        Self { client, call, sent: Sent::default() }
    }

    /// A parameter of the secret.
    pub(super) fn param(&self, name: &str) -> &'a str {
        word(self.call.params, name)
    }

    fn region(&self) -> &'a str {
        match (self.param("aws-region"), text(self.call.target, "region")) {
            ("", "") => super::DEFAULT_REGION,
            ("", region) | (region, _) => region,
        }
    }

    /// Calls an action; the answer is the XML.
    pub(super) async fn ask(&self, key: &Key, service: Service, pairs: &[(&str, &str)]) -> Result<String, Trouble> {
        self.client.call(key, (service, self.region()), pairs).await
    }

    /// The key that acts; of a target with a role, a session of that role.
    pub(super) async fn acting(&self) -> Result<Key, Failure> {
        if self.call.acting == ActingAs::User {
            let missing = || config("there is no access key that could act", "give api-id and api-key");
            return Key::of(self.call.current).ok_or_else(missing);
        }
        let base = self.base().await?;
        let role = text(self.call.target, "role-arn");
        if role.is_empty() { Ok(base) } else { self.assume(&base, role).await }
    }

    /// The key of the target, or of the gateway itself where the target says so.
    async fn base(&self) -> Result<Key, Failure> {
        if flag(self.call.target, OWN) {
            return self.client.own_key().await;
        }
        let secret = &self.call.target.secret;
        let missing = || config("access-key-id or access-key is missing", "set both on the target");
        Ok(Key {
            id: secret.expose_text("access-key-id").ok_or_else(missing)?.to_owned(),
            secret: secret.field("access-key").ok_or_else(missing)?.clone(),
            token: secret.field("session-token").cloned(),
        })
    }

    async fn assume(&self, base: &Key, role: &str) -> Result<Key, Failure> {
        let external = text(self.call.target, EXTERNAL_ID);
        let mut pairs = vec![
            ("Action", "AssumeRole"),
            ("RoleArn", role),
            ("RoleSessionName", "volvelle"),
            ("DurationSeconds", "900"),
        ];
        if !external.is_empty() {
            pairs.push(("ExternalId", external));
        }
        let xml = zeroize::Zeroizing::new(self.ask(base, Service::Sts, &pairs).await.map_err(Trouble::failure)?);
        let field = |name| xml::text(&xml, name).filter(|text| !text.is_empty());
        match (field("AccessKeyId"), field("SecretAccessKey"), field("SessionToken")) {
            (Some(id), Some(secret), Some(token)) => {
                Ok(Key { id, secret: secret.as_str().into(), token: Some(token.as_str().into()) })
            }
            _ => Err(protocol("AssumeRole")),
        }
    }

    /// The ARN of whoever holds the key.
    pub(super) async fn identity(&self, key: &Key) -> Result<String, Trouble> {
        let xml = self.ask(key, Service::Sts, &[("Action", "GetCallerIdentity")]).await?;
        xml::text(&xml, "Arn").ok_or_else(|| Trouble::Unclear(protocol("GetCallerIdentity")))
    }
}

/// An answer that makes no sense.
pub(super) fn protocol(action: &str) -> Failure {
    Failure::new(FailureClass::Protocol, format!("the answer to {action} cannot be read"), "")
}

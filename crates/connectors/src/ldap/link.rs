//! With `answers`, the only module that knows the LDAP library: an encrypted connection to a server whose certificate was checked.
//!
//! What must stay true: no password leaves over an unencrypted connection unless the target says so explicitly, and an empty
//! password is never sent, because servers take it for an anonymous login and let it in.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ldap3::exop::PasswordModify;
use ldap3::{Ldap, LdapConnAsync, LdapConnSettings, LdapError, LdapResult, Mod, Scope, SearchEntry, SearchOptions};
use rustls::ClientConfig;
use volvelle_domain::Secret;
use volvelle_domain::connector::{Failure, FailureClass, TargetParams};
use zeroize::Zeroizing;

use super::answers::{self, Bound};
use super::{config, flag, text, tls};

/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Where a directory is and how it is reached.
pub(crate) struct Server {
    url: String,
    /// Name or address, for Kerberos.
    pub(crate) host: String,
    start_tls: bool,
    tls: Arc<ClientConfig>,
}

impl Server {
    /// Of a target's parameters.
    ///
    /// # Errors
    /// `Config` naming the parameter.
    pub(crate) fn of(target: &TargetParams) -> Result<Self, Failure> {
        let given = text(target, "ldap-url").trim().trim_end_matches('/');
        let (scheme, rest) = given
            .split_once("://")
            .map(|(scheme, rest)| (scheme.to_lowercase(), rest))
            .filter(|(scheme, rest)| ["ldap", "ldaps"].contains(&scheme.as_str()) && !rest.is_empty())
            .ok_or_else(|| config("ldap-url must be ldaps://HOST[:PORT] or ldap://HOST[:PORT]", "set ldap-url"))?;
        if rest.contains(['/', '?', '#', '@', ' ', ',']) {
            return Err(config(
                "ldap-url must hold nothing but scheme, host and port",
                "leave out what follows the port",
            ));
        }
        let host = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                port.parse::<u16>()
                    .ok()
                    .filter(|port| *port != 0)
                    .ok_or_else(|| config("the port in ldap-url must be between 1 and 65535", "set ldap-url"))?;
                host
            }
            _ => rest,
        };
        let plain = scheme == "ldap" && flag(target, "allow-plaintext");
        let certificates = tls::certificates(text(target, "ldap-ca-cert"), "ldap-ca-cert")?;
        Ok(Self {
            url: format!("{scheme}://{rest}"),
            host: host.trim_matches(['[', ']']).to_owned(),
            start_tls: scheme == "ldap" && !plain,
            tls: tls::client_config(&certificates)?,
        })
    }

    /// Connects; nothing secret has been sent yet.
    pub(crate) async fn connect(&self) -> Result<Link, Failure> {
        let settings = LdapConnSettings::new()
            .set_conn_timeout(CONNECT)
            .set_starttls(self.start_tls)
            .set_config(Arc::clone(&self.tls));
        let (driver, ldap) =
            LdapConnAsync::with_settings(settings, &self.url).await.map_err(|error| self.unreachable(&error))?;
        tokio::spawn(async move {
            // How it ended is told by the operation that was waiting.
            let _ = driver.drive().await;
        });
        Ok(Link { ldap })
    }

    fn unreachable(&self, error: &LdapError) -> Failure {
        if let LdapError::Io { source } = error
            && let Some(tls) = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            return tls::distrust(tls, "ldap-ca-cert").unwrap_or_else(|| {
                Failure::new(FailureClass::Unreachable, format!("no TLS with {}: {tls}", self.url), "check the port")
            });
        }
        if let LdapError::LdapResult { result } = error {
            return config(
                format!("the directory refuses StartTLS (code {})", result.rc),
                "use ldaps://, or set allow-plaintext where the network is trusted",
            );
        }
        Failure::new(
            FailureClass::Unreachable,
            format!("the directory at {} cannot be reached: {error}", self.url),
            "check ldap-url, the network and the server",
        )
    }
}

/// What a server says of itself.
#[derive(Debug, Default)]
pub(crate) struct Root {
    /// It is an Active Directory.
    pub(crate) domain: bool,
    /// It knows the password modify operation.
    pub(crate) passmod: bool,
    /// It is OpenLDAP, which knows a control that checks a change without making it (and does not say so).
    pub(crate) open_ldap: bool,
    /// Where to search when nothing else was said.
    pub(crate) base: String,
    /// The Kerberos realm.
    pub(crate) realm: String,
}

/// OpenLDAP's control for changes that are checked and not made.
const NO_OPERATION: &str = "1.3.6.1.4.1.4203.666.5.2";
/// What [`NO_OPERATION`] answers where the change would have been made.
const WOULD_CHANGE: u32 = 0x410e;
const PASSMOD: &str = "1.3.6.1.4.1.4203.1.11.1";
const ACTIVE_DIRECTORY: &str = "1.2.840.113556.1.4.800";

/// A connection.
pub(crate) struct Link {
    ldap: Ldap,
}

fn lost(error: &LdapError) -> Failure {
    Failure::new(FailureClass::Unreachable, format!("the connection to the directory broke: {error}"), "try again")
}

impl Link {
    /// Logs in.
    pub(super) async fn bind(&mut self, dn: &str, password: Option<&Secret>) -> Result<Bound, Failure> {
        let password = password.filter(|password| !password.is_empty());
        let Some(password) = password.and_then(Secret::expose_str) else {
            return Err(config(format!("there is no password to log in to the directory as {dn}"), "give it"));
        };
        if dn.is_empty() {
            return Err(config("bind-dn is empty", "set bind-dn"));
        }
        self.ldap.with_controls(answers::ask_ppolicy());
        let result = self.ldap.simple_bind(dn, password).await.map_err(|error| lost(&error))?;
        Ok(answers::bound(&result, dn))
    }

    /// Logs in or says why not.
    pub(super) async fn must_bind(&mut self, dn: &str, password: Option<&Secret>) -> Result<(), Failure> {
        match self.bind(dn, password).await? {
            Bound::In => Ok(()),
            Bound::Refused(failure)
            | Bound::RightButBarred(failure)
            | Bound::Locked(failure)
            | Bound::Failed(failure) => Err(failure),
        }
    }

    /// Asks the server what it is.
    pub(super) async fn root(&mut self) -> Result<Root, Failure> {
        let asked = [
            "supportedExtension",
            "objectClass",
            "supportedCapabilities",
            "defaultNamingContext",
            "namingContexts",
            "ldapServiceName",
        ];
        let Some(entry) = self.read("", &asked).await? else { return Ok(Root::default()) };
        let has = |attribute: &str, value: &str| entry.values(attribute).iter().any(|found| found == value);
        let base = [entry.value("defaultNamingContext"), entry.value("namingContexts")].into_iter().flatten().next();
        let realm = entry.value("ldapServiceName").and_then(|name| name.rsplit('@').next()).unwrap_or_default();
        Ok(Root {
            domain: has("supportedCapabilities", ACTIVE_DIRECTORY),
            passmod: has("supportedExtension", PASSMOD),
            open_ldap: has("objectClass", "OpenLDAProotDSE"),
            base: base.unwrap_or_default().to_owned(),
            realm: realm.to_uppercase(),
        })
    }

    /// Reads one entry; `None` if it does not exist or may not be seen.
    pub(super) async fn read(&mut self, dn: &str, attributes: &[&str]) -> Result<Option<Entry>, Failure> {
        let found = self.ldap.search(dn, Scope::Base, "(objectClass=*)", attributes).await;
        let found = found.map_err(|error| lost(&error))?;
        match found.1.rc {
            0 | 32 | 50 => Ok(found.0.into_iter().next().map(Entry::new)),
            _ => Err(answers::failed(&found.1, "reading the directory")),
        }
    }

    /// Finds entries, two at most.
    pub(super) async fn find(&mut self, base: &str, filter: &str, attributes: &[&str]) -> Result<Vec<Entry>, Failure> {
        self.ldap.with_search_options(SearchOptions::new().sizelimit(2));
        let found = self.ldap.search(base, Scope::Subtree, filter, attributes).await.map_err(|error| lost(&error))?;
        match found.1.rc {
            // 4: there are more than asked for; 10: other servers may know more.
            0 | 4 | 10 => {
                let entries = found.0.into_iter().filter(|entry| !entry.is_ref());
                Ok(entries.map(Entry::new).collect())
            }
            _ => Err(answers::failed(&found.1, &format!("the search below {base:?}"))),
        }
    }

    /// The password modify operation (RFC 3062).
    pub(super) async fn passmod(
        &mut self,
        dn: &str,
        old: Option<&Secret>,
        new: &Secret,
    ) -> Result<LdapResult, LdapError> {
        let change = PasswordModify {
            user_id: Some(dn),
            old_pass: old.and_then(Secret::expose_str),
            new_pass: new.expose_str(),
        };
        self.ldap.with_controls(answers::ask_ppolicy());
        Ok(self.ldap.extended(change).await?.1)
    }

    /// Replaces an attribute's values by one.
    pub(super) async fn replace(&mut self, dn: &str, attribute: &str, value: &Secret) -> Result<LdapResult, LdapError> {
        let values = HashSet::from([value.expose().to_vec()]);
        self.ldap.with_controls(answers::ask_ppolicy());
        self.ldap.modify(dn, vec![Mod::Replace(attribute.as_bytes().to_vec(), values)]).await
    }

    /// Takes one value away and adds another, in one step: Active Directory's change by the account itself.
    pub(super) async fn exchange(
        &mut self,
        dn: &str,
        attribute: &str,
        old: &Secret,
        new: &Secret,
    ) -> Result<LdapResult, LdapError> {
        let (old, new) = ([old.expose().to_vec()], [new.expose().to_vec()]);
        let name = attribute.as_bytes().to_vec();
        self.ldap
            .modify(dn, vec![Mod::Delete(name.clone(), HashSet::from(old)), Mod::Add(name, HashSet::from(new))])
            .await
    }

    /// Removes an attribute, whatever it holds.
    pub(super) async fn remove(&mut self, dn: &str, attribute: &str) -> Result<LdapResult, LdapError> {
        self.ldap.modify(dn, vec![Mod::Delete(attribute.as_bytes().to_vec(), HashSet::new())]).await
    }

    /// Whether the right to write `userPassword` is there, asked of OpenLDAP without writing. `None` if it does not say.
    pub(super) async fn may_write(&mut self, dn: &str) -> Result<Option<bool>, Failure> {
        let control = ldap3::controls::RawControl { ctype: NO_OPERATION.to_owned(), crit: true, val: None };
        let mut bytes = [0_u8; 24];
        getrandom::fill(&mut bytes).expect("the system gives randomness");
        let value = HashSet::from([format!("Aa1.{}", BASE64.encode(bytes)).into_bytes()]);
        self.ldap.with_controls(control);
        let result = self.ldap.modify(dn, vec![Mod::Replace(b"userPassword".to_vec(), value)]).await;
        let result = result.map_err(|error| lost(&error))?;
        Ok(match result.rc {
            WOULD_CHANGE => Some(true),
            // A policy that wants the old password beside the new one says so with the same code.
            50 if !result.text.to_lowercase().contains("old password") => Some(false),
            _ => None,
        })
    }

    /// Whether a domain lacks the right to reset a password: it looks at the right before it looks at the value, which is none.
    pub(super) async fn may_not_reset(&mut self, dn: &str) -> Result<bool, Failure> {
        let value = HashSet::from([b"x".to_vec()]);
        let result = self.ldap.modify(dn, vec![Mod::Replace(b"unicodePwd".to_vec(), value)]).await;
        Ok(result.map_err(|error| lost(&error))?.rc == 50)
    }
}

/// An entry with its attributes.
pub(super) struct Entry(SearchEntry);

impl Entry {
    fn new(found: ldap3::ResultEntry) -> Self {
        Self(SearchEntry::construct(found))
    }

    /// Its distinguished name.
    pub(super) fn dn(&self) -> &str {
        &self.0.dn
    }

    /// The text values of an attribute; names are compared without regard to case.
    pub(super) fn values(&self, name: &str) -> &[String] {
        let found = self.0.attrs.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, values)| values.as_slice()).unwrap_or_default()
    }

    /// The first text value.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).first().map(String::as_str)
    }

    /// The first value as a number.
    pub(super) fn number(&self, name: &str) -> Option<i64> {
        self.value(name)?.parse().ok()
    }

    /// All values of an attribute as secrets.
    pub(super) fn secrets(&self, name: &str) -> Vec<Secret> {
        let text = self.values(name).iter().map(|value| Secret::from(value.as_str()));
        let binary = self.0.bin_attrs.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        text.chain(binary.flat_map(|(_, values)| values.iter().cloned().map(Secret::new))).collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        for value in self.0.attrs.iter_mut().filter(|(name, _)| name.eq_ignore_ascii_case("userPassword")) {
            for text in std::mem::take(value.1) {
                drop(Zeroizing::new(text));
            }
        }
    }
}

/// Active Directory's form of a password: quoted, UTF-16.
pub(super) fn quoted(password: &Secret) -> Option<Secret> {
    let text = Zeroizing::new(format!("\"{}\"", password.expose_str()?));
    Some(Secret::new(text.encode_utf16().flat_map(u16::to_le_bytes).collect()))
}

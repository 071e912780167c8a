//! The customer's fragments that a gateway has: the vendor's file of them, keys in a token, and what the quorum asks of each.
//!
//! What must stay true: a value is in no error, log or answer; nothing is sealed with a fragment whose check value is not the one
//! that was written down when the fragment was first used.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use volvelle_fragments::CustomerFragment;
use volvelle_fragments::customer::generate;
use zeroize::Zeroizing;

use crate::QuorumError;
use crate::roster::read_guarded;
use crate::token::{Mac, TokenKey};

/// Most fragments of one gateway. A record does not say which one it needs, so that each may be tried.
const MOST: usize = 16;
/// Longest id of a fragment.
const LONGEST_ID: usize = 80;

/// Which fragment something was sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// What people call it: `cf-…`.
    pub id: &'a str,
    /// Its check value in hexadecimal, written down when it was first used.
    pub check: &'a str,
}

/// Whether a gateway has a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It has it.
    Present,
    /// It has none of that id.
    Missing,
    /// It has one of that id with another value.
    Wrong,
}

impl Presence {
    /// As it stands in answers: `present`, `missing` or `wrong`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Present => "present",
            Self::Missing => "missing",
            Self::Wrong => "wrong",
        }
    }
}

/// A fragment that this gateway has.
#[derive(Debug)]
pub struct Held {
    /// `cf-…`.
    pub id: String,
    /// What its owner called it.
    pub name: String,
    /// What its owner says about it.
    pub description: String,
    /// Its check value in hexadecimal.
    pub check: String,
    kept: Kept,
}

/// Where a fragment is.
#[derive(Debug)]
enum Kept {
    Here(CustomerFragment),
    Token(Arc<Mac>),
}

/// A fragment that is a key in a PKCS#11 token and never leaves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFragment {
    /// `cf-…`, chosen by its owner.
    pub id: String,
    /// What its owner calls it.
    #[serde(default)]
    pub name: String,
    /// What its owner says about it.
    #[serde(default)]
    pub description: String,
    /// The vendor's library.
    pub module: std::path::PathBuf,
    /// The token's label.
    pub token: String,
    /// The key's label.
    pub key: String,
    /// A file with the user's PIN.
    pub pin_file: std::path::PathBuf,
}

impl Held {
    /// Where its value is: `file` or `token`.
    #[must_use]
    pub const fn kept_in(&self) -> &'static str {
        match self.kept {
            Kept::Here(_) => "file",
            Kept::Token(_) => "token",
        }
    }

    /// The customer's leg for an input.
    pub(crate) async fn leg(&self, x: &[u8]) -> Result<Zeroizing<[u8; 32]>, QuorumError> {
        match &self.kept {
            Kept::Here(value) => Ok(value.leg(x)),
            Kept::Token(mac) => mac.ask(x).await.map_err(|error| self.token_says(&error)),
        }
    }

    /// The same for a write, after a look whether the token has the key still that the check value is of.
    pub(crate) async fn leg_to_seal(&self, x: &[u8]) -> Result<Zeroizing<[u8; 32]>, QuorumError> {
        if let Kept::Token(mac) = &self.kept {
            mac.ask_check().await.map_err(|error| self.token_says(&error))?;
        }
        self.leg(x).await
    }

    fn token_says(&self, error: &anyhow::Error) -> QuorumError {
        QuorumError::CustomerToken { fragment: self.id.clone(), detail: format!("{error:#}") }
    }
}

/// The fragments that a gateway has. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct CustomerFragments(Arc<Vec<Held>>);

/// The vendor's file.
#[derive(Serialize, Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    customer_fragments: Vec<Entry<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
    #[serde(borrow, default)]
    description: Cow<'a, str>,
    #[serde(borrow, default)]
    name: Cow<'a, str>,
}

impl CustomerFragments {
    /// Reads the vendor's file `customer_fragments.json`, which nobody but its owner and his group may read.
    ///
    /// # Errors
    /// The file cannot be read, everybody can read it, or it is no such file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_guarded(path)?;
        let shown = path.display();
        // What the parser quotes could be the value.
        let file: File<'_> = serde_json::from_slice(&text).map_err(|error| {
            anyhow!("{shown} is no file of customer fragments (line {}, column {})", error.line(), error.column())
        })?;
        ensure!(!file.customer_fragments.is_empty(), "{shown} has no fragment");
        let held = file.customer_fragments.iter().map(|entry| held(entry).with_context(|| format!("{shown}")));
        Self::of(held.collect::<Result<_>>()?)
    }

    /// These and one more, which is a key in a token. The token is asked for its check value.
    ///
    /// # Errors
    /// The token cannot be used, or a fragment of that id is there already.
    pub fn with_token(self, fragment: &TokenFragment) -> Result<Self> {
        let TokenFragment { id, name, description, module, token, key, pin_file } = fragment.clone();
        check_id(&id)?;
        let mac = Mac::open(TokenKey { module, token, key, pin_file })?;
        let check = hex::encode(mac.check());
        let mut held = Arc::into_inner(self.0).context("the fragments are used already")?;
        held.push(Held { id, name, description, check, kept: Kept::Token(mac) });
        Self::of(held)
    }

    fn of(held: Vec<Held>) -> Result<Self> {
        ensure!(held.len() <= MOST, "a gateway has at most {MOST} customer fragments");
        let mut known = HashSet::new();
        if let Some(twice) = held.iter().find(|one| !known.insert(&one.id)) {
            bail!("the customer fragment {} is there twice", twice.id);
        }
        Ok(Self(Arc::new(held)))
    }

    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Held> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The check values of all of them.
    #[must_use]
    pub fn checks(&self) -> Vec<String> {
        self.iter().map(|held| held.check.clone()).collect()
    }

    /// Whether `wanted` is here.
    #[must_use]
    pub fn presence(&self, wanted: Wanted<'_>) -> Presence {
        if self.iter().any(|held| held.check == wanted.check) {
            Presence::Present
        } else if self.iter().any(|held| held.id == wanted.id) {
            Presence::Wrong
        } else {
            Presence::Missing
        }
    }

    /// The fragment that has the check value of `wanted`, whatever it is called here.
    ///
    /// # Errors
    /// It is not here, or one of that name has another value.
    pub fn find(&self, wanted: Wanted<'_>) -> Result<&Held, QuorumError> {
        let found = self.iter().find(|held| held.check == wanted.check);
        found.ok_or_else(|| QuorumError::CustomerFragment {
            fragment: wanted.id.to_owned(),
            presence: self.presence(wanted),
        })
    }
}

fn check_id(id: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let named = id.len() > 3 && id.len() <= LONGEST_ID && id.starts_with("cf-") && id.chars().all(plain);
    ensure!(named, "the id of a customer fragment is cf- and letters, digits or hyphens");
    Ok(())
}

fn held(entry: &Entry<'_>) -> Result<Held> {
    let id = entry.id.to_string();
    check_id(&id)?;
    let bytes = STANDARD.decode(entry.value.as_bytes()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| anyhow!("the value of {id} is not base64"))?;
    let value =
        CustomerFragment::from_bytes(&bytes).map_err(|_| anyhow!("the value of {id} is not 32 random bytes"))?;
    let check = hex::encode(value.check());
    Ok(Held {
        id,
        name: entry.name.to_string(),
        description: entry.description.to_string(),
        check,
        kept: Kept::Here(value),
    })
}

/// A new fragment as the text of the vendor's file.
///
/// # Errors
/// The system gives no randomness.
pub fn fresh(name: &str, description: &str) -> Result<Zeroizing<String>> {
    let value = Zeroizing::new(STANDARD.encode(&*generate()?));
    let mut id = [0; 12];
    getrandom::fill(&mut id).map_err(|_| anyhow!("the system gives no randomness"))?;
    let entry = Entry {
        id: format!("cf-{}", hex::encode(id)).into(),
        value: value.as_str().into(),
        description: description.into(),
        name: name.into(),
    };
    Ok(Zeroizing::new(serde_json::to_string_pretty(&File { customer_fragments: vec![entry] })?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("customer_fragments.json");
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        (folder, path)
    }

    #[test]
    fn a_new_fragment_is_read_back_from_the_vendors_file_and_no_two_are_alike() {
        let text = fresh("mine", "of the test").expect("made");
        let (_folder, path) = file(&text, 0o640);
        let known = CustomerFragments::read(&path).expect("read");
        let one = known.iter().next().expect("one");
        assert_eq!((one.name.as_str(), one.description.as_str(), one.id.len()), ("mine", "of the test", 27));
        assert_eq!(one.check.len(), 64);
        let other = fresh("mine", "of the test").expect("made");
        let (_folder, path) = file(&other, 0o600);
        let others = CustomerFragments::read(&path).expect("read");
        assert_ne!(others.iter().next().map(|held| &held.check), Some(&one.check));
        let wanted = Wanted { id: &one.id, check: &one.check };
        assert_eq!((known.presence(wanted), others.presence(wanted)), (Presence::Present, Presence::Missing));
        let renamed = Wanted { id: "cf-other", check: &one.check };
        assert!(known.find(renamed).is_ok(), "the value counts, not what it is called");
        let changed = Wanted { id: &one.id, check: "00" };
        assert_eq!(known.presence(changed), Presence::Wrong);
    }

    #[test]
    fn a_file_that_is_wrong_or_open_to_everybody_is_refused_without_a_word_of_what_it_holds() {
        let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=";
        let entry = |id: &str, value: &str| format!(r#"{{"id":"{id}","value":"{value}","name":"","description":""}}"#);
        let of = |entries: &[String]| format!(r#"{{"customer_fragments":[{}]}}"#, entries.join(","));
        let cases = [
            (of(&[entry("cf-a", secret)]), 0o604, "chmod"),
            (of(&[entry("cf-a", secret), entry("cf-a", secret)]), 0o600, "twice"),
            (of(&[entry("a", secret)]), 0o600, "cf-"),
            (of(&[entry("cf-a", &secret[..20])]), 0o600, "32 random bytes"),
            (of(&[entry("cf-a", "*")]), 0o600, "base64"),
            (of(&[entry("cf-a", &STANDARD.encode([7; 32]))]), 0o600, "32 random bytes"),
            (format!(r#"{{"customer_fragments":"{secret}"}}"#), 0o600, "column"),
            (of(&[]), 0o600, "no fragment"),
            (of(&(0..17).map(|n| entry(&format!("cf-{n}"), secret)).collect::<Vec<_>>()), 0o600, "at most 16"),
        ];
        for (text, mode, word) in cases {
            let (_folder, path) = file(&text, mode);
            let refusal = format!("{:#}", CustomerFragments::read(&path).expect_err("refused"));
            assert!(refusal.contains(word), "{refusal}");
            assert!(!refusal.contains(&secret[..8]), "{refusal}");
        }
    }
}

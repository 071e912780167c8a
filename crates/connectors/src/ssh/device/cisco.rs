//! Cisco's own forms of secrets: type 8 (PBKDF2 with HMAC-SHA-256, 20,000 rounds) and type 9 (scrypt with N = 16,384, r = 1, p = 1).
//! They differ in nothing else.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::alphabet::Alphabet;
use base64::engine::{GeneralPurpose, general_purpose};
use volvelle_domain::Secret;
use yescrypt::{Mode, Params};

use super::super::shadow::Verdict;

const LETTERS: &str = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of a salt.
const SALT: usize = 14;
/// Characters of a hash.
const HASH: usize = 43;
/// Rounds of type 8.
const ROUNDS: u32 = 20_000;

/// One of the forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Type 8.
    Eight,
    /// Type 9.
    Nine,
}

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Eight => "$8$",
            Self::Nine => "$9$",
        }
    }

    /// The form of a field, if it is one of these.
    pub(super) fn of(field: &Secret) -> Option<Self> {
        [Self::Eight, Self::Nine].into_iter().find(|kind| field.expose().starts_with(kind.prefix().as_bytes()))
    }

    fn hash(self, salt: &str, password: &Secret) -> Option<Secret> {
        let mut out = [0; 32];
        match self {
            Self::Eight => {
                let rounds = NonZeroU32::new(ROUNDS)?;
                pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt.as_bytes(), password.expose(), &mut out);
            }
            Self::Nine => {
                let params = Params::new(Mode::Classic, 16_384, 1, 1).ok()?;
                yescrypt::yescrypt(password.expose(), salt.as_bytes(), &params, &mut out).ok()?;
            }
        }
        let engine = GeneralPurpose::new(&Alphabet::new(LETTERS).ok()?, general_purpose::NO_PAD);
        Some(Secret::from(format!("{}{salt}${}", self.prefix(), engine.encode(out))))
    }
}

fn fresh_salt() -> Option<String> {
    let mut bytes = [0; SALT];
    getrandom::fill(&mut bytes).ok()?;
    let letters = LETTERS.as_bytes();
    Some(bytes.iter().map(|byte| char::from(letters[usize::from(byte % 64)])).collect())
}

/// The stored form of a password, computed where it keeps nobody waiting.
pub(super) async fn hash_aside(kind: Kind, password: &Secret) -> Option<Secret> {
    let (salt, password) = (fresh_salt()?, password.clone());
    tokio::task::spawn_blocking(move || kind.hash(&salt, &password)).await.ok().flatten()
}

/// Whether the field is the password's.
pub(super) async fn verdict_aside(kind: Kind, field: &Secret, password: &Secret) -> Verdict {
    let (field, password) = (field.clone(), password.clone());
    let compared = tokio::task::spawn_blocking(move || {
        let salt = field.expose_str()?.strip_prefix(kind.prefix())?.split_once('$')?.0.to_owned();
        // A damaged field would compare unequal to everything, which is no answer about the password.
        (salt.len() == SALT && field.expose().len() == kind.prefix().len() + SALT + 1 + HASH)
            .then(|| kind.hash(&salt, &password).map(|own| own.ct_eq(&field)))?
    });
    match compared.await {
        Ok(Some(true)) => Verdict::Holds,
        Ok(Some(false)) => Verdict::Differs,
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published examples of another implementation.
    const KNOWN: [(Kind, &str); 2] = [
        (Kind::Eight, "$8$TnGX/fE4KGHOVU$pEhnEvxrvaynpi8j4f.EMHr6M.FzU8xnZnBr/tJdFWk"),
        (Kind::Nine, "$9$2MJBozw/9R3UsU$2lFhcKvpghcyw8deP25GOfyZaagyUOGBymkryvOdfo6"),
    ];

    #[tokio::test]
    async fn a_known_field_holds_its_password_and_no_other() {
        for (kind, known) in KNOWN {
            let known = Secret::from(known);
            assert_eq!(Kind::of(&known), Some(kind));
            assert!(matches!(verdict_aside(kind, &known, &"hashcat".into()).await, Verdict::Holds));
            assert!(matches!(verdict_aside(kind, &known, &"hashcaT".into()).await, Verdict::Differs));
            let damaged = Secret::from(format!("{}short$x", kind.prefix()));
            assert!(matches!(verdict_aside(kind, &damaged, &"hashcat".into()).await, Verdict::Unknown));
            let own = hash_aside(kind, &"new".into()).await.expect("hashes");
            assert!(matches!(verdict_aside(kind, &own, &"new".into()).await, Verdict::Holds));
        }
        assert_eq!(Kind::of(&"$6$a$b".into()), None);
    }
}

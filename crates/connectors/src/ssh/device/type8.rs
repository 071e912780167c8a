//! Cisco's type 8 secrets: PBKDF2 with HMAC-SHA-256, 20,000 rounds.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use base64::Engine as _;
use base64::alphabet::Alphabet;
use base64::engine::{GeneralPurpose, general_purpose};
use volvelle_domain::Secret;

use super::super::shadow::Verdict;

const LETTERS: &str = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of a salt.
pub(super) const SALT: usize = 14;
const ROUNDS: u32 = 20_000;

/// A new salt.
pub(super) fn fresh_salt() -> Option<String> {
    let mut bytes = [0; SALT];
    getrandom::fill(&mut bytes).ok()?;
    let letters = LETTERS.as_bytes();
    Some(bytes.iter().map(|byte| char::from(letters[usize::from(byte % 64)])).collect())
}

/// Bytes in Cisco's base64.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let alphabet = Alphabet::new(LETTERS).ok()?;
    Some(GeneralPurpose::new(&alphabet, general_purpose::NO_PAD).encode(bytes))
}

/// [`hash`] where it keeps nobody waiting.
pub(super) async fn hash_aside(password: &Secret) -> Option<Secret> {
    let (salt, password) = (fresh_salt()?, password.clone());
    tokio::task::spawn_blocking(move || hash(&salt, &password)).await.ok().flatten()
}

/// Whether the field is the password's.
pub(super) async fn verdict_aside(field: &Secret, password: &Secret) -> Verdict {
    let (field, password) = (field.clone(), password.clone());
    let compared = tokio::task::spawn_blocking(move || {
        let salt = field.expose_str()?.strip_prefix("$8$")?.split_once('$')?.0.to_owned();
        // A damaged field would compare unequal to everything, which is no answer about the password.
        (salt.len() == SALT && field.expose().len() == 3 + SALT + 1 + 43)
            .then(|| hash(&salt, &password).map(|own| own.ct_eq(&field)))?
    });
    match compared.await {
        Ok(Some(true)) => Verdict::Holds,
        Ok(Some(false)) => Verdict::Differs,
        _ => Verdict::Unknown,
    }
}

fn hash(salt: &str, password: &Secret) -> Option<Secret> {
    let mut out = [0; 32];
    let rounds = NonZeroU32::new(ROUNDS)?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt.as_bytes(), password.expose(), &mut out);
    Some(Secret::from(format!("$8${salt}${}", text(&out)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A published example of another implementation.
    const KNOWN: &str = "$8$TnGX/fE4KGHOVU$pEhnEvxrvaynpi8j4f.EMHr6M.FzU8xnZnBr/tJdFWk";

    #[tokio::test]
    async fn a_known_field_holds_its_password_and_no_other() {
        let known = Secret::from(KNOWN);
        assert!(matches!(verdict_aside(&known, &"hashcat".into()).await, Verdict::Holds));
        assert!(matches!(verdict_aside(&known, &"hashcaT".into()).await, Verdict::Differs));
        assert!(matches!(verdict_aside(&"$8$short$x".into(), &"hashcat".into()).await, Verdict::Unknown));
        let own = hash_aside(&"new".into()).await.expect("hashes");
        assert!(matches!(verdict_aside(&own, &"new".into()).await, Verdict::Holds));
    }
}

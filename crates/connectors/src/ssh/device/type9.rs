//! Cisco's type 9 secrets: scrypt with N = 16,384, r = 1, p = 1.

use volvelle_domain::Secret;
use yescrypt::{Mode, Params};

use super::super::shadow::Verdict;
use super::type8::{SALT, fresh_salt, text};

/// [`hash`] where it keeps nobody waiting.
pub(super) async fn hash_aside(password: &Secret) -> Option<Secret> {
    let (salt, password) = (fresh_salt()?, password.clone());
    tokio::task::spawn_blocking(move || hash(&salt, &password)).await.ok().flatten()
}

/// Whether the field is the password's.
pub(super) async fn verdict_aside(field: &Secret, password: &Secret) -> Verdict {
    let (field, password) = (field.clone(), password.clone());
    let compared = tokio::task::spawn_blocking(move || {
        let salt = field.expose_str()?.strip_prefix("$9$")?.split_once('$')?.0.to_owned();
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
    let params = Params::new(Mode::Classic, 16_384, 1, 1).ok()?;
    yescrypt::yescrypt(password.expose(), salt.as_bytes(), &params, &mut out).ok()?;
    Some(Secret::from(format!("$9${salt}${}", text(&out)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A published example of another implementation.
    const KNOWN: &str = "$9$2MJBozw/9R3UsU$2lFhcKvpghcyw8deP25GOfyZaagyUOGBymkryvOdfo6";

    #[tokio::test]
    async fn a_known_field_holds_its_password_and_no_other() {
        let known = Secret::from(KNOWN);
        assert!(matches!(verdict_aside(&known, &"hashcat".into()).await, Verdict::Holds));
        assert!(matches!(verdict_aside(&known, &"hashcaT".into()).await, Verdict::Differs));
        assert!(matches!(verdict_aside(&"$9$short$x".into(), &"hashcat".into()).await, Verdict::Unknown));
        let own = hash_aside(&"new".into()).await.expect("hashes");
        assert!(matches!(verdict_aside(&own, &"new".into()).await, Verdict::Holds));
    }
}

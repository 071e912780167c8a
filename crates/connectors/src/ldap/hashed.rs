//! Compares a password with stored `userPassword` values, where a privileged account may read them.

use aws_lc_rs::{constant_time, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};
use volvelle_domain::Secret;

/// What stored values say of one password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One of them is made of it.
    Holds,
    /// None of them is.
    Differs,
    /// There is one that cannot be compared.
    Unknown,
}

/// Compares with every stored value; a directory may hold several.
pub(super) fn verdict(stored: &[Secret], password: &Secret) -> Verdict {
    let each: Vec<Verdict> = stored.iter().map(|value| one(value.expose(), password.expose())).collect();
    if each.contains(&Verdict::Holds) {
        Verdict::Holds
    } else if each.is_empty() || each.contains(&Verdict::Unknown) {
        Verdict::Unknown
    } else {
        Verdict::Differs
    }
}

fn one(stored: &[u8], password: &[u8]) -> Verdict {
    let Some((scheme, rest)) = split(stored) else { return same(stored, password) };
    let hash: fn(&[u8], &[u8]) -> Vec<u8> = match scheme.as_str() {
        "CLEARTEXT" => return same(rest, password),
        "SHA" | "SSHA" => |p, s| digested(&digest::SHA1_FOR_LEGACY_USE_ONLY, p, s),
        "SHA256" | "SSHA256" => |p, s| digested(&digest::SHA256, p, s),
        "SHA384" | "SSHA384" => |p, s| digested(&digest::SHA384, p, s),
        "SHA512" | "SSHA512" => |p, s| digested(&digest::SHA512, p, s),
        "MD5" | "SMD5" => |p, s| Md5::new().chain_update(p).chain_update(s).finalize().to_vec(),
        _ => return Verdict::Unknown,
    };
    let Ok(bytes) = BASE64.decode(rest) else { return Verdict::Unknown };
    let length = hash(b"", b"").len();
    let Some((kept, salt)) = bytes.split_at_checked(length) else { return Verdict::Unknown };
    same(kept, &hash(password, salt))
}

/// `{SCHEME}` in capitals, and what follows.
fn split(stored: &[u8]) -> Option<(String, &[u8])> {
    let inner = stored.strip_prefix(b"{")?;
    let end = inner.iter().take(24).position(|byte| *byte == b'}')?;
    let scheme = std::str::from_utf8(&inner[..end]).ok()?.to_uppercase();
    Some((scheme, &inner[end + 1..]))
}

fn digested(algorithm: &'static digest::Algorithm, password: &[u8], salt: &[u8]) -> Vec<u8> {
    let mut context = digest::Context::new(algorithm);
    context.update(password);
    context.update(salt);
    context.finish().as_ref().to_vec()
}

fn same(a: &[u8], b: &[u8]) -> Verdict {
    if constant_time::verify_slices_are_equal(a, b).is_ok() { Verdict::Holds } else { Verdict::Differs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(stored: &[&str], password: &str) -> Verdict {
        let stored: Vec<Secret> = stored.iter().map(|text| Secret::from(*text)).collect();
        verdict(&stored, &Secret::from(password))
    }

    #[test]
    fn schemes_of_directories_are_compared() {
        // `slappasswd -s secret` and friends.
        assert_eq!(ask(&["{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="], "secret"), Verdict::Holds);
        assert_eq!(ask(&["{sha}5en6G6MezRroT3XKqkdPOmY/BfQ="], "Secret"), Verdict::Differs);
        assert_eq!(ask(&["{MD5}Xr4ilOzQ4PCOq3aQ0qbuaQ=="], "secret"), Verdict::Holds);
        assert_eq!(ask(&["{CLEARTEXT}secret"], "secret"), Verdict::Holds);
        assert_eq!(ask(&["secret"], "secret"), Verdict::Holds);
        assert_eq!(ask(&["{ARGON2}$argon2id$v=19$x"], "secret"), Verdict::Unknown);
        assert_eq!(ask(&["{ARGON2}$argon2id$v=19$x", "secret"], "secret"), Verdict::Holds);
        assert_eq!(ask(&[], "secret"), Verdict::Unknown);
        assert_eq!(ask(&["{SSHA}AAAA"], "secret"), Verdict::Unknown);
    }
}

//! Access ids, access keys and tokens: how they are drawn, and how they are compared. Only hashes of keys
//! and tokens are stored; both are 256 random bits, so that a plain SHA-256 suffices.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use volvelle_domain::Secret;
use volvelle_domain::ids::{AccessId, AccountId, Entropy};
use zeroize::Zeroizing;

const LETTERS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";

/// The operating system's generator.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsEntropy;

impl Entropy for OsEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

/// A new access id: `p-` and twelve letters or digits.
#[must_use]
pub fn access_id(entropy: &dyn Entropy) -> AccessId {
    AccessId(format!("p-{}", tag(entropy)))
}

/// A new account id: `acc-` and twelve letters or digits.
#[must_use]
pub fn account_id(entropy: &dyn Entropy) -> AccountId {
    AccountId(format!("acc-{}", tag(entropy)))
}

/// A new association's id: `ass-` and twelve letters or digits.
#[must_use]
pub fn assoc_id(entropy: &dyn Entropy) -> String {
    format!("ass-{}", tag(entropy))
}

fn tag(entropy: &dyn Entropy) -> String {
    let mut bytes = [0; 12];
    entropy.fill(&mut bytes);
    bytes.iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

/// A new access key, in base64.
#[must_use]
pub fn access_key(entropy: &dyn Entropy) -> Secret {
    Secret::from(STANDARD.encode(random(entropy)))
}

/// A new token: `t-` and 64 hexadecimal digits.
#[must_use]
pub fn token(entropy: &dyn Entropy) -> Secret {
    Secret::from(format!("t-{}", hex::encode(random(entropy))))
}

fn random(entropy: &dyn Entropy) -> Zeroizing<[u8; 32]> {
    let mut bytes = Zeroizing::new([0; 32]);
    entropy.fill(bytes.as_mut());
    bytes
}

/// What is stored of a key or token.
#[must_use]
pub fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Whether `given` is what `stored` was made of; compares in constant time.
#[must_use]
pub fn matches(stored: &[u8; 32], given: &Secret) -> bool {
    bool::from(stored.ct_eq(&hash(given.expose())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_and_comparison() {
        let (one, two) = (token(&OsEntropy), token(&OsEntropy));
        assert_eq!(one.len(), 66);
        assert!(one.expose().starts_with(b"t-"));
        assert!(matches(&hash(one.expose()), &one));
        assert!(!matches(&hash(one.expose()), &two));
        assert_eq!(access_key(&OsEntropy).len(), 44);
        assert_eq!(access_id(&OsEntropy).0.len(), 14);
        assert_eq!(account_id(&OsEntropy).0.len(), 16);
    }
}

//! New passwords: uniformly random under a policy, made of characters that survive shells, terminals and prompts.

use zeroize::Zeroize;

use crate::Secret;
use crate::connector::PasswordPolicy;
use crate::ids::Entropy;

/// Shortest password a policy may ask for.
pub const SHORTEST: u16 = 5;
/// Longest password a policy may ask for.
pub const LONGEST: u16 = 128;

const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &[u8] = b"0123456789";
/// No quotes, backslash, dollar, backtick, colon, space, braces or control characters: none of these has a meaning in
/// `chpasswd` input, a shell word, a device prompt or a connection string.
const SPECIAL: &[u8] = b"!#%+,-.=@^_~";

/// Why no password can be made under a policy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    /// The length is out of range.
    #[error("password-length must be between {SHORTEST} and {LONGEST}, not {0}")]
    Length(u16),
    /// No class of characters is allowed.
    #[error("the password policy must allow at least one class of characters")]
    NoClass,
}

/// A random password under `policy`: every allowed class occurs at least once, and every password that obeys the policy
/// is equally likely (whole passwords are rejected, never patched).
///
/// # Errors
/// The policy is impossible.
pub fn generate(policy: &PasswordPolicy, entropy: &dyn Entropy) -> Result<Secret, PolicyError> {
    if !(SHORTEST..=LONGEST).contains(&policy.length) {
        return Err(PolicyError::Length(policy.length));
    }
    let classes: Vec<&[u8]> =
        [(policy.lower, LOWER), (policy.upper, UPPER), (policy.digits, DIGITS), (policy.special, SPECIAL)]
            .into_iter()
            .filter_map(|(wanted, class)| wanted.then_some(class))
            .collect();
    if classes.is_empty() {
        return Err(PolicyError::NoClass);
    }
    let alphabet = classes.concat();
    // Four classes in five characters succeed about once in six tries; a thousand failures do not happen.
    for _ in 0..100_000 {
        let mut password = draw(&alphabet, usize::from(policy.length), entropy);
        if classes.iter().all(|class| password.iter().any(|byte| class.contains(byte))) {
            return Ok(Secret::new(password));
        }
        password.zeroize();
    }
    Err(PolicyError::NoClass)
}

/// `length` characters, each uniform over `alphabet` (at most 256 characters): bytes past the last whole multiple are
/// thrown away.
fn draw(alphabet: &[u8], length: usize, entropy: &dyn Entropy) -> Vec<u8> {
    let limit = 256 - 256 % alphabet.len();
    let mut password = Vec::with_capacity(length);
    let mut pool = [0_u8; 64];
    while password.len() < length {
        entropy.fill(&mut pool);
        for byte in pool {
            if usize::from(byte) < limit && password.len() < length {
                password.push(alphabet[usize::from(byte) % alphabet.len()]);
            }
        }
    }
    pool.zeroize();
    password
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// Splitmix64: predictable, which is what a test wants.
    struct Dice(AtomicU64);

    impl Entropy for Dice {
        fn fill(&self, bytes: &mut [u8]) {
            for byte in bytes {
                let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                *byte = (z >> 24) as u8;
            }
        }
    }

    proptest! {
        #[test]
        fn every_password_obeys_its_policy(
            seed: u64, length in SHORTEST..=LONGEST, lower: bool, upper: bool, digits: bool, special: bool,
        ) {
            prop_assume!(lower || upper || digits || special);
            let policy = PasswordPolicy { length, lower, upper, digits, special };
            let password = generate(&policy, &Dice(seed.into())).expect("possible policy");
            prop_assert_eq!(password.len(), usize::from(length));
            for (wanted, class) in [(lower, LOWER), (upper, UPPER), (digits, DIGITS), (special, SPECIAL)] {
                prop_assert_eq!(password.expose().iter().any(|b| class.contains(b)), wanted);
            }
        }
    }

    #[test]
    fn characters_are_equally_likely() {
        let policy = PasswordPolicy { length: 100, lower: true, upper: false, digits: false, special: false };
        let dice = Dice(7.into());
        let mut counts = [0_u32; 26];
        for _ in 0..1000 {
            for byte in generate(&policy, &dice).expect("possible policy").expose() {
                counts[usize::from(byte - b'a')] += 1;
            }
        }
        assert!(counts.iter().all(|n| (3500..4200).contains(n)), "{counts:?}");
    }

    #[test]
    fn impossible_policies_are_named() {
        let policy = PasswordPolicy { length: 4, ..PasswordPolicy::default() };
        assert_eq!(generate(&policy, &Dice(1.into())).err(), Some(PolicyError::Length(4)));
        let none = PasswordPolicy { length: 9, lower: false, upper: false, digits: false, special: false };
        assert_eq!(generate(&none, &Dice(1.into())).err(), Some(PolicyError::NoClass));
    }
}

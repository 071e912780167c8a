//! What the host demands of a password, and how it says that it refuses one.

use volvelle_domain::Secret;
use volvelle_domain::connector::PasswordPolicy;

/// Words by which a refusal for the sake of policy is known.
pub(super) const REFUSALS: &[&str] = &[
    "bad password",
    "already been used",
    "too short",
    "too simple",
    "too weak",
    "too similar",
    "too many",
    "is similar",
    "contains less than",
    "contains the user name",
    "exhausted maximum",
    "palindrome",
    "must choose a longer",
    "must wait longer",
];

/// Longest sentence of a host that is passed on.
const LONGEST_SENTENCE: usize = 200;

/// The host's own sentence: the first line with one of `words`, without control characters; empty if it says the password.
pub(super) fn sentence(said: &str, words: &[&str], password: &Secret) -> String {
    let holds = |line: &&str| words.iter().any(|word| line.to_lowercase().contains(word));
    let Some(line) = said.lines().map(str::trim).find(holds) else { return String::new() };
    if password.expose_str().is_some_and(|text| !text.is_empty() && line.contains(text)) {
        return String::new();
    }
    line.chars().filter(|c| !c.is_control()).take(LONGEST_SENTENCE).collect()
}

/// What the configuration of `pam_pwquality`, `pam_cracklib`, `pam_pwhistory` and `pam_unix` demands.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Demands {
    least_length: u16,
    least_classes: u16,
    lower: bool,
    upper: bool,
    digits: bool,
    special: bool,
    /// Passwords that may not be used again.
    pub(super) history: u16,
}

impl Demands {
    /// One setting such as `minlen = 14` or `dcredit=-1`; anything else is passed over.
    pub(super) fn read(&mut self, setting: &str) {
        let Some((name, value)) = setting.split_once('=') else { return };
        let Ok(value) = value.trim().parse::<i32>() else { return };
        let amount = u16::try_from(value).unwrap_or(0);
        match name.trim() {
            "minlen" | "min" => self.least_length = amount,
            "minclass" => self.least_classes = amount,
            "lcredit" => self.lower = value < 0,
            "ucredit" => self.upper = value < 0,
            "dcredit" => self.digits = value < 0,
            "ocredit" => self.special = value < 0,
            "remember" => self.history = self.history.max(amount),
            _ => {}
        }
    }

    /// One line of PAM configuration.
    pub(super) fn read_pam(&mut self, line: &str) {
        line.split_whitespace().for_each(|word| self.read(word));
    }

    /// The policy made as strict as the host; `None` if it is strict enough.
    pub(super) fn tighten(&self, policy: &PasswordPolicy) -> Option<PasswordPolicy> {
        let mut tight = PasswordPolicy {
            length: policy.length.max(self.least_length.min(volvelle_domain::password::LONGEST)),
            lower: policy.lower || self.lower,
            upper: policy.upper || self.upper,
            digits: policy.digits || self.digits,
            special: policy.special || self.special,
        };
        let mut missing = self.least_classes.saturating_sub(
            [tight.lower, tight.upper, tight.digits, tight.special].into_iter().map(u16::from).sum::<u16>(),
        );
        for class in [&mut tight.lower, &mut tight.upper, &mut tight.digits, &mut tight.special] {
            if missing > 0 && !*class {
                *class = true;
                missing -= 1;
            }
        }
        (tight != *policy).then_some(tight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_becomes_as_strict_as_the_host_and_no_stricter() {
        let mut demands = Demands::default();
        demands.read("minlen = 30");
        demands.read_pam("password requisite pam_pwquality.so retry=1 ocredit=-1 minclass=3 dcredit=1");
        demands.read_pam("password required pam_pwhistory.so remember=5");
        let loose = PasswordPolicy { length: 12, lower: true, upper: false, digits: false, special: false };
        let tight = PasswordPolicy { length: 30, lower: true, upper: true, digits: false, special: true };
        assert_eq!(demands.tighten(&loose), Some(tight.clone()));
        assert_eq!(demands.tighten(&tight), None);
        assert_eq!(demands.history, 5);
    }

    #[test]
    fn the_hosts_sentence_never_repeats_the_password() {
        let said = "New password: \r\nBAD PASSWORD: it is too short\r\nNew password: ";
        assert_eq!(sentence(said, REFUSALS, &"abc".into()), "BAD PASSWORD: it is too short");
        assert_eq!(sentence("BAD PASSWORD: hunter2 is too short", REFUSALS, &"hunter2".into()), "");
    }
}

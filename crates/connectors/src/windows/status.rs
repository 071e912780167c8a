//! What the statuses of Windows mean for a login and for a change of a password.

use volvelle_domain::connector::{ApplyOutcome, Failure, FailureClass};

/// What a refused login says about the password.
#[derive(Debug)]
pub(super) enum Denied {
    /// It is wrong.
    Wrong(Failure),
    /// It is right, but the account may not log in.
    RightButBarred(Failure),
    /// The account is locked or disabled, or the host says something else: nothing is known about the password.
    Unclear(Failure),
}

impl Denied {
    /// The failure inside.
    pub(super) fn failure(self) -> Failure {
        match self {
            Self::Wrong(failure) | Self::RightButBarred(failure) | Self::Unclear(failure) => failure,
        }
    }
}

/// Reads the status of a refused login of `who`.
pub(super) fn denied(status: u32, who: &str) -> Denied {
    let fail = |class, said: &str, hint: &str| Failure::new(class, format!("{who} {said}"), hint);
    let barred = |said, hint| Denied::RightButBarred(fail(FailureClass::Privilege, said, hint));
    match status {
        // A wrong name and a wrong password are told alike by most hosts.
        0xc000_006d | 0xc000_006a | 0xc000_0064 => Denied::Wrong(fail(
            FailureClass::Auth,
            "was refused by the host: wrong name or password",
            "run `volvelle rotated-secret verify`, or correct the credential of the target",
        )),
        0xc000_0234 => Denied::Unclear(fail(
            FailureClass::LoginBudget,
            "is locked on the host after failed logins",
            "unlock it on the host, then rotate again",
        )),
        0xc000_0072 => Denied::Unclear(fail(
            FailureClass::Config,
            "is disabled on the host",
            "enable the account, or stop rotating it",
        )),
        0xc000_0193 => barred("is an account that has expired", "extend the account, or stop rotating it"),
        0xc000_0224 => barred("must change its password at the next logon", "let the target's credential act"),
        0xc000_0071 => barred("has an expired password", "let the target's credential act (use-target-creds)"),
        0xc000_015b => barred(
            "may not log on over the network",
            "give it the right to access this computer from the network, or let the target's credential act",
        ),
        0xc000_006f => barred("may not log on at this hour", "change its logon hours"),
        0xc000_0070 => barred("may not log on from this machine", "change the workstations it may use"),
        0xc000_006e => barred(
            "is restricted: a blank password, or a policy of the host, keeps it from logging on over the network",
            "check the account's restrictions",
        ),
        other => Denied::Unclear(fail(
            FailureClass::Protocol,
            &format!("was refused by the host with status {other:08x}"),
            "",
        )),
    }
}

/// Reads the status of a change of the password of `who`.
pub(super) fn changed(status: u32, who: &str) -> ApplyOutcome {
    let reject = |class, said: String, hint: &str| ApplyOutcome::Rejected(Failure::new(class, said, hint));
    match status {
        0 => ApplyOutcome::Applied,
        0xc000_006c | 0xc000_025a | 0xc000_025b | 0xc000_025c => reject(
            FailureClass::Policy,
            format!("the host refuses the new password of {who}: length, complexity, history or minimum age"),
            "tighten the password policy, or wait for the minimum age",
        ),
        0xc000_006a => reject(
            FailureClass::Auth,
            format!("the host says that the present password of {who} is wrong"),
            "run `volvelle rotated-secret verify`",
        ),
        0xc000_0022 => reject(
            FailureClass::Privilege,
            format!("the acting account may not change the password of {who} (access denied)"),
            "use an account of the host's Administrators group",
        ),
        0xc000_0234 => reject(
            FailureClass::LoginBudget,
            format!("{who} is locked on the host after failed logins"),
            "unlock it on the host, then rotate again",
        ),
        other => ApplyOutcome::Ambiguous(Failure::new(
            FailureClass::Protocol,
            format!("the host answers the change with status {other:08x}"),
            "",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wrong_password_is_told_as_wrong() {
        for status in [0xc000_006d, 0xc000_006a] {
            assert!(matches!(denied(status, "x"), Denied::Wrong(_)));
        }
        for status in [0xc000_0071, 0xc000_0224, 0xc000_0193, 0xc000_015b] {
            assert!(matches!(denied(status, "x"), Denied::RightButBarred(_)));
        }
        for status in [0xc000_0234, 0xc000_0072, 0xc000_0001, 1] {
            assert!(matches!(denied(status, "x"), Denied::Unclear(_)));
        }
        assert!(matches!(changed(0xc000_006c, "x"), ApplyOutcome::Rejected(f) if f.class == FailureClass::Policy));
        assert!(matches!(changed(0xc000_0001, "x"), ApplyOutcome::Ambiguous(_)));
    }
}

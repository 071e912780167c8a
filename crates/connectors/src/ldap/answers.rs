//! What directory servers answer, in sentences: result codes, Active Directory's codes in the text, and the password policy control.

use ldap3::LdapResult;
use ldap3::controls::RawControl;
use volvelle_domain::connector::{ApplyOutcome, Failure, FailureClass};

/// The password policy control (draft-behera-ldap-password-policy), asked for at bind and change.
pub(super) const PPOLICY: &str = "1.3.6.1.4.1.42.2.27.8.5.1";

/// What the password policy control of an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ppolicy {
    Expired,
    Locked,
    ChangeAfterReset,
    ModNotAllowed,
    MustSupplyOld,
    Quality,
    TooShort,
    TooYoung,
    InHistory,
}

/// Asks the server to say more about passwords; servers that do not know it ignore it.
pub(super) fn ask_ppolicy() -> RawControl {
    RawControl { ctype: PPOLICY.to_owned(), crit: false, val: None }
}

/// The error of the password policy control: `SEQUENCE { warning [0] …, error [1] ENUMERATED }`.
pub(super) fn ppolicy(result: &LdapResult) -> Option<Ppolicy> {
    let control = result.ctrls.iter().find(|control| control.1.ctype == PPOLICY)?;
    parse_ppolicy(control.1.val.as_deref()?)
}

fn parse_ppolicy(value: &[u8]) -> Option<Ppolicy> {
    let (0x30, mut rest) = (*value.first()?, value.get(2..)?) else { return None };
    // Two elements at most, both with short lengths.
    for _ in 0..2 {
        let (tag, length) = (*rest.first()?, usize::from(*rest.get(1)?));
        let content = rest.get(2..2 + length)?;
        if tag == 0x81 {
            return Some(match content.first()? {
                0 => Ppolicy::Expired,
                1 => Ppolicy::Locked,
                2 => Ppolicy::ChangeAfterReset,
                3 => Ppolicy::ModNotAllowed,
                4 => Ppolicy::MustSupplyOld,
                5 => Ppolicy::Quality,
                6 => Ppolicy::TooShort,
                7 => Ppolicy::TooYoung,
                8 => Ppolicy::InHistory,
                _ => return None,
            });
        }
        rest = rest.get(2 + length..)?;
    }
    None
}

/// What a bind came to.
#[derive(Debug)]
pub(super) enum Bound {
    /// In.
    In,
    /// The password is wrong.
    Refused(Failure),
    /// The password is right, but the account may not log in: expired, must change, disabled, wrong hour or machine.
    RightButBarred(Failure),
    /// The account is locked: this says nothing about the password.
    Locked(Failure),
    /// Something else.
    Failed(Failure),
}

/// The code after `data ` in Active Directory's text of a refused bind.
fn data_code(text: &str) -> Option<&str> {
    text.split("data ").nth(1)?.split([',', ' ']).next()
}

/// Reads the answer to a bind of `who`.
pub(super) fn bound(result: &LdapResult, who: &str) -> Bound {
    let fail = |class, said: &str, hint: &str| Failure::new(class, format!("{who} {said}"), hint);
    let said = ppolicy(result);
    match (result.rc, said) {
        (_, Some(Ppolicy::Locked)) => {
            return Bound::Locked(fail(
                FailureClass::LoginBudget,
                "is locked on the directory after failed logins",
                "unlock it (delete pwdAccountLockedTime), then rotate again",
            ));
        }
        (49, Some(Ppolicy::Expired)) => {
            return Bound::RightButBarred(fail(
                FailureClass::Privilege,
                "has an expired password and no grace login left",
                "let the target's credential act (use-target-creds)",
            ));
        }
        (0, _) => return Bound::In,
        (49, _) => {}
        _ => return Bound::Failed(failed(result, "the login")),
    }
    let barred = |said, hint| Bound::RightButBarred(fail(FailureClass::Privilege, said, hint));
    match data_code(&result.text) {
        Some("775") => Bound::Locked(fail(
            FailureClass::LoginBudget,
            "is locked in the domain (data 775)",
            "unlock it in the domain, then rotate again",
        )),
        Some("773") => {
            barred("must change its password at the next logon (data 773)", "let the target's credential act")
        }
        Some("532") => {
            barred("has an expired password (data 532)", "let the target's credential act (use-target-creds)")
        }
        Some("533") => barred("is disabled in the domain (data 533)", "enable the account, or stop rotating it"),
        Some("701") => barred("is an account that has expired (data 701)", "extend the account, or stop rotating it"),
        Some("530") => barred("may not log on at this hour (data 530)", "change its logon hours"),
        Some("531") => barred("may not log on from this machine (data 531)", "change the workstations it may use"),
        Some("525") => {
            Bound::Failed(fail(FailureClass::Config, "is not known in the domain (data 525)", "check the user's name"))
        }
        code => {
            let code = code.map(|code| format!(" (data {code})")).unwrap_or_default();
            Bound::Refused(fail(
                FailureClass::Auth,
                &format!("was refused by the directory: wrong name or password{code}"),
                "run `volvelle rotated-secret verify`, or correct the credential of the target",
            ))
        }
    }
}

/// The first line of a server's text, without what could be long or strange.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// A failure of an operation that is not about a password.
pub(super) fn failed(result: &LdapResult, doing: &str) -> Failure {
    let (class, hint) = match result.rc {
        50 => (FailureClass::Privilege, "give the acting account the right"),
        32 | 34 => (FailureClass::Config, "check bind-dn, user-dn and rotated-username"),
        8 | 13 => (FailureClass::Config, "use ldaps:// or StartTLS"),
        10 => (FailureClass::Config, "this server is read-only: name the one that takes writes"),
        51 | 52 => (FailureClass::Unreachable, "the server is busy or shutting down: try again"),
        3 => (FailureClass::Timeout, ""),
        _ => (FailureClass::Protocol, ""),
    };
    let name = format!("{result}");
    let name = name.split(['(', ')']).nth(1).unwrap_or("unknown").to_owned();
    let text = short(&result.text);
    let text = if text.is_empty() { String::new() } else { format!(": {text}") };
    Failure::new(class, format!("{doing} failed with code {} ({name}){text}", result.rc), hint)
}

/// Whether a refused change says that the password was used before: it may be the one that is in force.
pub(super) fn is_in_history(result: &LdapResult) -> bool {
    let text = result.text.to_lowercase();
    ppolicy(result) == Some(Ppolicy::InHistory)
        || text.contains("history of old passwords")
        || text.contains("in history")
        || text.contains("not being changed from existing value")
}

/// What became of a change of the password of `who`.
pub(super) fn changed(result: &LdapResult, who: &str) -> ApplyOutcome {
    if result.rc == 0 {
        return ApplyOutcome::Applied;
    }
    let reject = |class, said: String, hint: &str| ApplyOutcome::Rejected(Failure::new(class, said, hint));
    let policy = |said: &str, hint: &str| {
        reject(FailureClass::Policy, format!("the directory refuses the new password of {who}: {said}"), hint)
    };
    match ppolicy(result) {
        Some(Ppolicy::Quality) => return policy("its quality is too low", "tighten the password policy"),
        Some(Ppolicy::TooShort) => return policy("it is too short", "raise password-length"),
        Some(Ppolicy::InHistory) => return policy("it was used before", "rotate again"),
        Some(Ppolicy::TooYoung) => return too_young(who),
        Some(Ppolicy::MustSupplyOld) => {
            return reject(
                FailureClass::Privilege,
                format!("the directory demands the old password of {who} with the new one"),
                "let the account act for itself (use-user-creds)",
            );
        }
        Some(Ppolicy::ModNotAllowed) => {
            return reject(
                FailureClass::Privilege,
                format!("the directory's policy forbids {who} to change its password"),
                "let the target's credential act (use-target-creds)",
            );
        }
        _ => {}
    }
    let text = result.text.to_lowercase();
    if text.contains("too young") {
        return too_young(who);
    }
    if text.starts_with("0000052d") {
        let why = result.text.rsplit(": ").next().unwrap_or_default();
        let why = if why.is_empty() || why.len() > 120 { "length, complexity, history or minimum age" } else { why };
        return policy(&format!("{} (52D)", short(why).trim_end_matches('!')), "tighten the password policy");
    }
    if text.starts_with("00000056") || text.contains("wrong_password") {
        return reject(
            FailureClass::Auth,
            format!("the directory says that the present password of {who} is wrong (56)"),
            "run `volvelle rotated-secret verify`",
        );
    }
    match result.rc {
        50 => reject(
            FailureClass::Privilege,
            format!("the acting account may not change the password of {who} (insufficient access rights)"),
            "give it the right to write userPassword, or in a domain `Reset Password` on the account",
        ),
        19 => policy(&short(&result.text), "tighten the password policy"),
        53 if text.starts_with("0000001f") => reject(
            FailureClass::Config,
            "the domain takes passwords over encrypted connections only (1F)".to_owned(),
            "use ldaps:// or StartTLS",
        ),
        53 if text.contains("verify old password") => reject(
            FailureClass::Privilege,
            format!("the directory may not compare the old password of {who}"),
            "give the account `auth` and `write` on its own userPassword (`by self =xw`)",
        ),
        51 | 52 => ApplyOutcome::NotReached(failed(result, "the change")),
        3 | 80 => ApplyOutcome::Ambiguous(failed(result, "the change")),
        _ => ApplyOutcome::Rejected(failed(result, "the change")),
    }
}

/// A new candidate would fare no better, so that this is not a matter of policy for the engine.
fn too_young(who: &str) -> ApplyOutcome {
    ApplyOutcome::Rejected(Failure::new(
        FailureClass::Privilege,
        format!("the password of {who} is too young to be changed by the account itself"),
        "wait for the minimum age, or let the target's credential act (use-target-creds)",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(rc: u32, text: &str) -> LdapResult {
        LdapResult { rc, matched: String::new(), text: text.to_owned(), refs: Vec::new(), ctrls: Vec::new() }
    }

    #[test]
    fn the_policy_control_is_read_with_and_without_a_warning() {
        assert_eq!(parse_ppolicy(&[0x30, 3, 0x81, 1, 6]), Some(Ppolicy::TooShort));
        assert_eq!(parse_ppolicy(&[0x30, 8, 0xa0, 3, 0x80, 1, 9, 0x81, 1, 1]), Some(Ppolicy::Locked));
        assert_eq!(parse_ppolicy(&[0x30, 5, 0xa0, 3, 0x80, 1, 9]), None);
        assert_eq!(parse_ppolicy(&[0x30, 0]), None);
        assert_eq!(parse_ppolicy(&[]), None);
    }

    #[test]
    fn the_domains_codes_become_sentences() {
        let text = |code: &str| {
            format!("80090308: LdapErr: DSID-0C0903A9, comment: AcceptSecurityContext error, data {code}, v1db1")
        };
        assert!(matches!(bound(&result(49, &text("52e")), "x"), Bound::Refused(f) if f.message.contains("52e")));
        assert!(matches!(bound(&result(49, &text("775")), "x"), Bound::Locked(f) if f.message.contains("locked")));
        for code in ["773", "532", "533", "701", "530", "531"] {
            assert!(
                matches!(bound(&result(49, &text(code)), "x"), Bound::RightButBarred(f) if f.message.contains(code))
            );
        }
        let policy = result(
            19,
            "0000052D: Constraint violation - check_password_restrictions: the password does not meet the complexity criteria!",
        );
        assert!(matches!(changed(&policy, "x"), ApplyOutcome::Rejected(f)
            if f.class == FailureClass::Policy && f.message.ends_with("the password does not meet the complexity criteria (52D)")));
        let windows = result(53, "0000052D: SvcErr: DSID-031A12D2, problem 5003 (WILL_NOT_PERFORM), data 0");
        assert!(matches!(changed(&windows, "x"), ApplyOutcome::Rejected(f) if f.class == FailureClass::Policy));
        let young = result(
            19,
            "0000052D: Constraint violation - check_password_restrictions: password is too young to change!",
        );
        assert!(matches!(changed(&young, "x"), ApplyOutcome::Rejected(f) if f.class == FailureClass::Privilege));
        let wrong = result(19, "00000056: AtrErr: DSID-03191083, #1: problem 1005 (CONSTRAINT_ATT_TYPE)");
        assert!(matches!(changed(&wrong, "x"), ApplyOutcome::Rejected(f) if f.class == FailureClass::Auth));
        assert!(matches!(changed(&result(80, ""), "x"), ApplyOutcome::Ambiguous(_)));
    }
}

//! A user's own command for the change (`rotator-custom-cmd`).
//!
//! `{{USERNAME}}`, `{{NEW_PASSWORD}}` and `{{OLD_PASSWORD}}` become references to shell variables, quoted as their place
//! demands; the values travel on standard input and are read by the shell itself. So they are in no process list, no history
//! and no file of the host - unless the command hands them to a program as arguments: `mytool --password {{NEW_PASSWORD}}`
//! shows the password to everybody who can list processes. `printf '%s\n' {{NEW_PASSWORD}} | mytool --stdin` does not, and
//! neither does a program that reads `VOLVELLE_NEW_PASSWORD`, `VOLVELLE_OLD_PASSWORD` and `VOLVELLE_USERNAME` from its
//! environment, which only the same user and root can see.
//!
//! Limits: here-documents and comments with a quote mark in them confuse the quoting of placeholders; the command runs under
//! `sh` with nothing on standard input; exit status 0 means done, everything else is found out by probing.

use volvelle_domain::connector::{ApplyOutcome, Failure, FailureClass};
use volvelle_domain::{Credential, Secret};

use super::survey::one_line;
use super::visit::{Inside, Visit};
use super::{broken, config, runs_nothing};

const PLACEHOLDERS: [(&str, &str); 3] = [
    ("{{USERNAME}}", "VOLVELLE_USERNAME"),
    ("{{NEW_PASSWORD}}", "VOLVELLE_NEW_PASSWORD"),
    ("{{OLD_PASSWORD}}", "VOLVELLE_OLD_PASSWORD"),
];

/// The last line of the command's text as it is sent.
const END: &str = "VOLVELLE_END_OF_COMMAND";
/// Longest command.
const LONGEST: usize = 16 * 1024;

const RUN: &str = r#"
IFS= read -r VOLVELLE_USERNAME; IFS= read -r VOLVELLE_NEW_PASSWORD; IFS= read -r VOLVELLE_OLD_PASSWORD;
export VOLVELLE_USERNAME VOLVELLE_NEW_PASSWORD VOLVELLE_OLD_PASSWORD;
n=$(printf '\nx'); n=${n%x}; c=; while IFS= read -r l && [ "$l" != VOLVELLE_END_OF_COMMAND ]; do c=$c$l$n; done;
exec </dev/null; eval "$c"
"#;

/// The secret's own command, if it has one.
pub(super) fn command<'a>(visit: &Visit<'a>) -> Option<&'a str> {
    Some(visit.param("rotator-custom-cmd")).filter(|text| !text.trim().is_empty())
}

/// Checks a command without running it.
pub(super) fn check(text: &str) -> Result<(), Failure> {
    if text.len() > LONGEST || text.contains('\0') || text.lines().any(|line| line == END) {
        return Err(config(
            format!("rotator-custom-cmd must be text of at most {LONGEST} bytes"),
            "put a long procedure into a script on the host",
        ));
    }
    if !text.contains("{{NEW_PASSWORD}}") && !text.contains("VOLVELLE_NEW_PASSWORD") {
        return Err(config(
            "rotator-custom-cmd does not use the new password",
            "use {{NEW_PASSWORD}}, or read VOLVELLE_NEW_PASSWORD from the environment",
        ));
    }
    Ok(())
}

/// The command with references instead of placeholders.
fn referring(text: &str) -> String {
    let (mut out, mut rest, mut quote) = (String::with_capacity(text.len() + 64), text, None);
    while let Some(first) = rest.chars().next() {
        if let Some((placeholder, variable)) = PLACEHOLDERS.iter().find(|(name, _)| rest.starts_with(name)) {
            out.push_str(&match quote {
                None => format!("\"${{{variable}}}\""),
                Some('"') => format!("${{{variable}}}"),
                Some(_) => format!("'\"${{{variable}}}\"'"),
            });
            rest = &rest[placeholder.len()..];
            continue;
        }
        let escaped = first == '\\' && quote != Some('\'');
        let taken = if escaped { rest.chars().take(2).map(char::len_utf8).sum() } else { first.len_utf8() };
        if matches!(first, '\'' | '"') {
            match quote {
                None => quote = Some(first),
                Some(open) if open == first => quote = None,
                Some(_) => {}
            }
        }
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

/// Runs the command as the acting user.
pub(super) async fn apply(visit: &Visit<'_>, acting: &Credential, password: &Secret, inside: Inside) -> ApplyOutcome {
    let Some(text) = command(visit) else {
        return ApplyOutcome::NotReached(config("rotator-custom-cmd is empty", "rotate again"));
    };
    let old = visit.call.current.field("password").map_or(&[][..], Secret::expose);
    if old.iter().any(|byte| matches!(byte, b'\n' | b'\r' | 0)) {
        return ApplyOutcome::Rejected(config("a password must be one line", "correct rotated-password"));
    }
    let text = referring(text);
    let lines = [visit.user().as_bytes(), password.expose(), old, text.as_bytes(), END.as_bytes()];
    visit.sending();
    let ran = match inside.session.run(inside.channel, &one_line(&[RUN]), &lines).await {
        Ok(ran) => ran,
        Err(failure) => return ApplyOutcome::Ambiguous(failure),
    };
    if ran.refused {
        return ApplyOutcome::Rejected(runs_nothing());
    }
    let mut session = inside.session;
    session.seen = None;
    match ran.status {
        Some(0) => {
            visit.leave(acting, session);
            ApplyOutcome::Applied
        }
        // What it wrote may hold anything, so that only the status is passed on.
        Some(status) => ApplyOutcome::Ambiguous(Failure::new(
            FailureClass::Protocol,
            format!("the custom command ended with exit status {status}"),
            "run rotator-custom-cmd by hand on the host",
        )),
        None => ApplyOutcome::Ambiguous(broken("while the custom command ran")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_references_quoted_as_their_place_demands() {
        let n = "${VOLVELLE_NEW_PASSWORD}";
        for (text, expected) in [
            ("set {{NEW_PASSWORD}} x", format!("set \"{n}\" x")),
            ("set \"a{{NEW_PASSWORD}}b\"", format!("set \"a{n}b\"")),
            ("set 'a{{NEW_PASSWORD}}b'", format!("set 'a'\"{n}\"'b'")),
            ("echo it\\'s {{NEW_PASSWORD}}", format!("echo it\\'s \"{n}\"")),
            ("echo \"a\\\"{{NEW_PASSWORD}}\"", format!("echo \"a\\\"{n}\"")),
            ("echo '\"' {{NEW_PASSWORD}}", format!("echo '\"' \"{n}\"")),
            ("ü {{OTHER}}", "ü {{OTHER}}".to_owned()),
        ] {
            assert_eq!(referring(text), expected, "{text}");
        }
    }
}

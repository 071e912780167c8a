//! PowerShell on a host, whichever way leads there: a script and its arguments go in on standard input, lines `name=value` come out.
//!
//! What must stay true: neither a script nor a value is in a command line.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use volvelle_domain::Secret;
use volvelle_domain::connector::Failure;
use zeroize::Zeroizing;

use super::http::Place;
use super::login::{self, Login};
use super::visit::{Route, Visit, Who};
use super::{ntlm, openssh, winrm};

/// The program and what it is told to do.
pub(super) const PROGRAM: &str = "powershell.exe";

/// Reads the number of lines, then each line; the first is the script, the others are its arguments.
const START: &str = "$ProgressPreference='SilentlyContinue';$i=[Console]::In;$n=[int]$i.ReadLine();\
    $a=@(1..$n|%{[Text.Encoding]::UTF8.GetString([Convert]::FromBase64String($i.ReadLine()))});\
    $r=@($a[1..($n-1)]);& ([scriptblock]::Create($a[0])) @r";

/// The arguments of [`PROGRAM`]: always the same.
pub(super) fn arguments() -> String {
    format!("-NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand {}", BASE64.encode(ntlm::utf16(START)))
}

fn input(script: &str, arguments: &[&Secret]) -> Zeroizing<String> {
    let mut out = Zeroizing::new(format!("{}\n{}\n", arguments.len() + 1, BASE64.encode(script)));
    for argument in arguments {
        out.push_str(&Zeroizing::new(BASE64.encode(argument.expose())));
        out.push('\n');
    }
    out
}

/// Somebody who is logged in.
pub(super) enum Shell {
    WinRm(Box<winrm::Session>),
    Ssh(Box<openssh::Session>),
}

/// Logs in to the call's target.
pub(super) async fn log_in(visit: &Visit<'_>, who: &Who<'_>) -> Result<Login<Shell>, Failure> {
    Ok(match visit.address.route {
        Route::Ssh => match openssh::log_in(visit, who).await? {
            Login::In(session) => Login::In(Box::new(Shell::Ssh(session))),
            Login::Denied => Login::Denied,
        },
        _ => match login::log_in(&Place::of(visit), who).await? {
            Login::In(session) => Login::In(Box::new(Shell::WinRm(session))),
            Login::Denied => Login::Denied,
        },
    })
}

impl Shell {
    /// Runs a script with arguments. `sending` is called just before they leave. Gives its lines `name=value`.
    pub(super) async fn run(
        &mut self,
        script: &str,
        arguments: &[&Secret],
        sending: &(dyn Fn() + Sync),
    ) -> Result<Vec<(String, String)>, Failure> {
        let input = input(script, arguments);
        let output = match self {
            Self::WinRm(session) => session.run(&input, sending).await?,
            Self::Ssh(session) => session.run(&input, sending).await?,
        };
        Ok(output
            .lines()
            .filter_map(|line| line.trim().split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }
}

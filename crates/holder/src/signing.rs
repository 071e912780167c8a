//! The commands by which administrators sign a roster and machines accept it.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use volvelle_holder::Roster;
use volvelle_holder::roster::write_durably;
use volvelle_holder::setup::administrator::init_administrator;
use volvelle_holder::trust::{self, Trust};

fn file(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help).value_parser(value_parser!(PathBuf))
}

pub(super) fn commands() -> [Command; 4] {
    let roster = || file("roster", "FILE", "The roster").required(true);
    [
        Command::new("admin-key")
            .about("Make an administrator's key on his own machine, and print the public part for `init --administrator`")
            .after_help("A second time it changes nothing and prints the same line. The key signs rosters; lose it and the others must \
                         name a new one: change-roster --administrator N=KEY, signed by T of those who have theirs.")
            .arg(file("dir", "DIR", "A folder that nobody else reads").required(true)),
        Command::new("show-roster")
            .about("Show who takes part, who signed, and the digest to compare on the telephone")
            .arg(roster())
            .arg(file("from", "FILE", "The roster in use: shows what is different, and whose signatures count")),
        Command::new("sign-roster")
            .about("Sign a roster, into the file itself; then give it to the next administrator")
            .after_help("Look at it first: show-roster --roster FILE --from THE-ONE-IN-USE.")
            .arg(roster())
            .arg(file("dir", "DIR", "The administrator's folder").required(true)),
        Command::new("accept-roster")
            .about("Take a signed roster into the folder of a holder or a gateway, which reads it at its next start")
            .after_help("Refused unless as many administrators of the roster in use signed it as that one's threshold, and its number is \
                         higher.")
            .arg(roster())
            .arg(file("dir", "DIR", "The folder of the holder or of the gateway's identity").required(true))
            .arg(Arg::new("first").long("first").action(ArgAction::SetTrue).help(
                "None was ever accepted here: believe this one, which you compared with the other administrators",
            )),
    ]
}

fn given<'a>(arguments: &'a ArgMatches, name: &str) -> Result<&'a PathBuf> {
    arguments.get_one::<PathBuf>(name).with_context(|| format!("--{name} is needed"))
}

pub(super) fn admin_key(arguments: &ArgMatches) -> Result<String> {
    init_administrator(given(arguments, "dir")?)
}

pub(super) fn show(arguments: &ArgMatches) -> Result<String> {
    let before = arguments.get_one::<PathBuf>("from").map(|file| Roster::load(file)).transpose()?;
    trust::shown(&Roster::load(given(arguments, "roster")?)?, before.as_ref())
}

pub(super) fn sign(arguments: &ArgMatches) -> Result<String> {
    let path = given(arguments, "roster")?;
    let text = trust::sign(Roster::load(path)?, given(arguments, "dir")?)?;
    write_durably(path, text.as_bytes(), false)?;
    let signed = Roster::parse(&text)?;
    Ok(format!(
        "roster number {} has {} signatures, digest {}",
        signed.serial,
        signed.signatures.len(),
        signed.digest()
    ))
}

pub(super) fn accept(arguments: &ArgMatches) -> Result<String> {
    let path = given(arguments, "roster")?;
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let trust = if arguments.get_flag("first") { Trust::First } else { Trust::Successor };
    let roster = trust::accept(given(arguments, "dir")?, &text, trust)?;
    Ok(format!("roster number {} is accepted, digest {}; start the program anew", roster.serial, roster.digest()))
}

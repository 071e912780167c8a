//! `volvelle gen-customer-fragment`: makes a fragment of the customer's own on this machine, asking nobody.
//!
//! What must stay true: the value is printed or written once, and said to be irreplaceable each time.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use crate::failure::Failed;
use crate::{locate, print};

/// The command.
pub fn command() -> Command {
    let text =
        |id: &'static str, help: &'static str| Arg::new(id).long(id).value_name("TEXT").default_value("").help(help);
    Command::new("gen-customer-fragment")
        .about("Makes a customer's fragment on this machine and prints it once")
        .long_about(
            "Makes a fragment of your own on this machine, asking no gateway and no holder, and prints it once as the file \
             customer_fragments.json. What is sealed with a protection key made with it (volvelle key create --customer-frg-id) is \
             opened by nobody without it: not by all holders together, not by us, not from a backup. LOSING IT LOSES THE DATA. \
             Keep two copies in different places, off the gateway, before you make the first key with it.",
        )
        .arg(text("name", "what you call it").short('n'))
        .arg(text("description", "what it is for"))
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help("write it to a new file that only you can read, instead of printing it"),
        )
        .after_help(
            "Examples:\n  volvelle gen-customer-fragment --name safe --out customer_fragments.json\n  \
             volvelle gen-customer-fragment --name safe --json\n",
        )
}

/// Runs it.
pub fn generate(leaf: &ArgMatches) -> Result<(), Failed> {
    let given = |id: &str| leaf.get_one::<String>(id).map(String::as_str).unwrap_or_default();
    let text = volvelle_gateway::customer::fresh(given("name"), given("description"))
        .map_err(|error| Failed::new(format!("no fragment was made: {error:#}"), ""))?;
    match leaf.get_one::<PathBuf>("out") {
        None => print::line(&text),
        Some(path) => {
            let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            opened
                .and_then(|mut file| {
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                })
                .map_err(|e| Failed::new(format!("cannot write {}: {}", path.display(), locate::plain(&e)), ""))?;
        }
    }
    print::warning(
        "this fragment is shown once and is nowhere else. Whoever loses it loses everything that is sealed with it: no holder, no \
         backup and no support can bring it back. Keep two copies in different places before you use it",
    );
    Ok(())
}

//! `volvelle audit reconcile`: what the holders were asked, by their own logs, against what the gateway says it was asked.
//!
//! What must stay true: nothing is believed of a log whose chain does not hold beyond the place where it breaks, and that is told.

mod judge;

use std::path::{Path, PathBuf};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use volvelle_gateway::holder_log;

use self::judge::{Asked, Judge, Said, Times};
use crate::failure::{Failed, UNEXPLAINED};
use crate::session::Session;
use crate::{print, runtime};

/// Entries of one page of the audit log.
const PAGE: u32 = 1000;
/// Most pages that are read: five million entries.
const MOST_PAGES: usize = 5000;
/// How far back is looked when nobody says.
const DAYS: i64 = 30;

/// The command.
pub fn command() -> Command {
    let number = |id: &'static str, default: &'static str, help: &'static str| {
        Arg::new(id)
            .long(id)
            .value_name("SECONDS")
            .default_value(default)
            .value_parser(value_parser!(i64).range(0..=86_400))
            .help(help)
    };
    Command::new("reconcile")
        .about("Compares the holders' logs with the audit log, and lists what no request explains")
        .after_help(
            "Examples:\n  \
             volvelle-holder log export --dir /var/lib/volvelle-holder/log > holder-1.jsonl    (each holder's administrator)\n  \
             volvelle audit reconcile --log holder-1.jsonl --log holder-2.jsonl --log holder-3.jsonl --all-holders\n\n\
             Exit code 7 says that something is unexplained or a chain is broken. What is under way just now has left no entry \
             yet: if something is listed that began a moment ago, run it again.\nOperations it uses: audit-list, audit-verify, \
             get-account-settings.",
        )
        .arg(
            Arg::new("log")
                .long("log")
                .value_name("PATH")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(value_parser!(PathBuf))
                .help("a holder's log: its folder, or a file that `volvelle-holder log export` wrote; once for each holder"),
        )
        .arg(
            Arg::new("all-holders")
                .long("all-holders")
                .action(ArgAction::SetTrue)
                .help("these are the logs of all holders: a read that none of them knows is unexplained too"),
        )
        .arg(
            Arg::new("since")
                .long("since")
                .value_name("TIME")
                .value_parser(|text: &str| text.parse::<Timestamp>().map_err(|error| error.to_string()))
                .help("begin here, such as 2026-11-26T00:00:00Z; 30 days ago if nothing is said"),
        )
        .arg(number("skew", "60", "how far the clocks of gateway and holders may differ"))
        .arg(number("cache-seconds", "300", "how long a gateway may keep a derived key (kek_cache_seconds)"))
}

/// Runs it.
pub fn run(leaf: &ArgMatches) -> Result<(), Failed> {
    let session = Session::open(leaf)?;
    let answer = runtime()?.block_on(reconcile(&session, leaf))?;
    print::answer("audit-reconcile", &Map::new(), &answer, leaf)?;
    let count = |field: &str| answer[field].as_array().map_or(0, Vec::len);
    let broken = answer["audit_valid"] == false
        || answer["logs"].as_array().into_iter().flatten().any(|log| log["valid"] == false);
    let missing = if leaf.get_flag("all-holders") { count("reads_without_evaluation") } else { 0 };
    match count("unexplained") + count("unexplained_burials") + missing {
        _ if broken => Err(Failed::with(UNEXPLAINED, "a chain is broken", "compare with copies kept elsewhere")),
        0 => Ok(()),
        n => Err(Failed::with(
            UNEXPLAINED,
            format!("{n} evaluations, burials or reads are unexplained"),
            "if no gateway was working just now, somebody else has a gateway's identity: take it out of the roster",
        )),
    }
}

async fn reconcile(session: &Session, leaf: &ArgMatches) -> Result<Value, Failed> {
    let number = |id: &str| leaf.get_one::<i64>(id).copied().unwrap_or_default().saturating_mul(1000);
    let month = SignedDuration::from_hours(24 * DAYS);
    let since = leaf.get_one::<Timestamp>("since").copied();
    let from = since.unwrap_or_else(|| Timestamp::now().checked_sub(month).unwrap_or(Timestamp::MIN));
    let settings = session.call("get-account-settings", Map::new()).await?;
    let realm = settings["realm"].as_str().unwrap_or_default().to_owned();
    let verified = session.call("audit-verify", Map::new()).await?;
    let said = entries(session, from.as_millisecond()).await?;
    let times = Times { skew: number("skew"), cache: number("cache-seconds"), from: from.as_millisecond() };
    let mut judge = Judge::new(said, times, since.is_some());
    let mut logs = Vec::new();
    for path in leaf.get_many::<PathBuf>("log").into_iter().flatten() {
        logs.push(read_log(path, &realm, &mut judge)?);
    }
    let mut answer = judge.verdict();
    answer["audit_valid"] = verified["valid"].clone();
    answer["audit_broken_at"] = verified["broken_at"].clone();
    answer["logs"] = Value::from(logs);
    Ok(answer)
}

/// What the gateway wrote down from a time on, oldest first.
async fn entries(session: &Session, from: i64) -> Result<Vec<Said>, Failed> {
    let (mut all, mut token) = (Vec::new(), String::new());
    for _ in 0..MOST_PAGES {
        let Value::Object(params) = json!({"limit": PAGE, "pagination-token": token}) else { break };
        let page = session.call("audit-list", params).await?;
        for entry in page["entries"].as_array().into_iter().flatten() {
            let said =
                Said::read(entry).ok_or_else(|| Failed::new("the audit log has an entry that cannot be read", ""))?;
            // A little more than is asked for: what explains may stand before what it explains.
            if said.at < from - 2 * judge::LONGEST_REQUEST {
                all.reverse();
                return Ok(all);
            }
            all.push(said);
        }
        token = page["next_page"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            all.reverse();
            return Ok(all);
        }
    }
    Err(Failed::usage("the audit log has too many entries for one comparison", "say with --since where to begin"))
}

fn read_log(path: &Path, realm: &str, judge: &mut Judge) -> Result<Value, Failed> {
    let name = path.display().to_string();
    if !path.exists() {
        return Err(Failed::usage(format!("there is no log {name}"), "--log is a folder or a file of a holder"));
    }
    judge.begin_log(&name);
    let outcome = holder_log::read_part(path, |entry| {
        let own = entry.realm == realm;
        judge.ask(own, &entry.inputs, &Asked::of(&entry));
    });
    Ok(match outcome {
        Ok(checked) => json!({"log": name, "valid": true, "entries": checked.entries, "head": checked.head}),
        Err(error) => json!({"log": name, "valid": false, "error": format!("{error:#}")}),
    })
}

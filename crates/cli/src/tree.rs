//! The command tree, built from the table of operations: the noun spellings are shown, the vendor's flat ones work too.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use volvelle_api::Operation;

use crate::failure::{CODES, Failed};
use crate::flags::Detail;
use crate::{customer, examples, flags, profile, reconcile, reference, serve};

#[derive(Default)]
struct Node<'a> {
    op: Option<&'a Operation>,
    children: BTreeMap<String, Node<'a>>,
}

/// Which commands need their flags: making all of them takes longer than most calls.
pub enum Scope {
    /// Every command.
    All,
    /// Those whose words are all on the command line.
    Words(BTreeSet<String>),
}

impl Scope {
    /// What this process was started with needs.
    pub fn of_process() -> Self {
        // Not `args`, which ends the program over an argument that is no UTF-8.
        Self::Words(std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect())
    }

    fn has(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::Words(words) => path.split(' ').all(|word| words.contains(word)),
        }
    }

    fn detail(&self) -> Detail {
        match self {
            Self::Words(words) if !words.contains("--help") => Detail::Usual,
            _ => Detail::Full,
        }
    }
}

/// The groups of the overview, each with its commands.
const OVERVIEW: &[(&str, &[&str])] = &[
    ("Secrets", &["rotated-secret", "target", "secret", "item", "key"]),
    ("Access", &["role", "auth-method", "describe-permissions", "explain-access", "account", "audit"]),
    (
        "Session",
        &[
            "configure",
            "unconfigure",
            "set-default-profile",
            "get-default-profile",
            "auth",
            "validate-token",
            "revoke-token",
            "revoke-all-tokens",
        ],
    ),
    ("Server", &["dev", "gateway", "fragments"]),
    ("Tools", &["gen-customer-fragment", "completions", "man"]),
];

/// The whole program's command.
pub fn command(ops: &[Operation], scope: &Scope) -> Command {
    let mut root = Node::default();
    for op in ops {
        for path in &op.cli {
            let mut node = &mut root;
            for word in path.split(' ') {
                node = node.children.entry(word.to_owned()).or_default();
            }
            node.op = Some(op);
        }
    }
    let mut top = Command::new("volvelle")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Rotates passwords of privileged accounts and never loses one")
        .max_term_width(110)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .args(flags::globals());
    for op in ops {
        for name in std::iter::once(&op.name).chain(&op.aliases).filter(|n| !root.children.contains_key(*n)) {
            if scope.has(name) {
                top = top.subcommand(leaf(name, op, Some(scope.detail())).hide(true));
            }
        }
    }
    for (word, node) in &root.children {
        top = top.subcommand(branch(word, word, node, scope));
    }
    let top = top.mut_subcommand("audit", |audit| audit.subcommand(reconcile::command()));
    let top = top.subcommands(profile::commands()).subcommands(serve::commands()).subcommands(tools());
    let top = top.subcommand(customer::command());
    let overview = overview(&top);
    top.help_template("{about}\n\n{usage-heading} {usage}\n\n{before-help}Options:\n{options}{after-help}")
        .before_help(overview)
        .after_help(footer())
}

fn tools() -> [Command; 3] {
    [
        Command::new("completions")
            .about("Prints completions for a shell")
            .long_about(
                "Prints completions for a shell, such as: volvelle completions bash > /etc/bash_completion.d/volvelle",
            )
            .arg(
                Arg::new("shell")
                    .required(true)
                    .value_parser(clap::value_parser!(clap_complete::Shell))
                    .help("which shell"),
            ),
        Command::new("man")
            .about("Writes man pages into a folder")
            .arg(Arg::new("dir").required(true).value_name("DIR").help("the folder; it is made if it is missing")),
        Command::new("reference")
            .about("Prints a reference page in Markdown")
            .hide(true)
            .arg(Arg::new("page").required(true).help("which page: cli, api, or the kind of a target")),
    ]
}

fn overview(top: &Command) -> String {
    let mut out = String::new();
    for (heading, words) in OVERVIEW {
        out.push_str(&format!("{heading}:\n"));
        for word in *words {
            let about =
                top.find_subcommand(word).and_then(Command::get_about).map(ToString::to_string).unwrap_or_default();
            out.push_str(&format!("  {word:<21} {about}\n"));
        }
        out.push('\n');
    }
    out
}

fn footer() -> String {
    let mut out = String::from("Exit codes:\n");
    for (code, meaning) in CODES {
        out.push_str(&format!("  {code}  {meaning}\n"));
    }
    out.push_str(
        "\nA SECRET is - (read standard input), @FILE (read a file), ? or nothing (ask), or the value itself, which other users of \
         the machine can see.\nThe vendor's flat spellings, such as create-ssh-target or get-rotated-secret-value, work as well. \
         `volvelle COMMAND --help` tells more, `-h` less.",
    );
    out
}

fn about_noun(path: &str) -> String {
    match path {
        "rotated-secret" => "Passwords and keys that rotate: create, read, rotate, verify, repair".to_owned(),
        "target" => "Hosts and the privileged users who act on them".to_owned(),
        "key" => "Protection keys, and the customer's fragments they are made with".to_owned(),
        "secret" => "Static secrets: values that people set".to_owned(),
        "item" => "Items of every kind: list, describe, lock, delete".to_owned(),
        "role" => "Roles: who may do what on which path".to_owned(),
        "auth-method" => "Identities that sign in, and their keys".to_owned(),
        "account" => "The account's settings; more accounts".to_owned(),
        "audit" => "The audit trail".to_owned(),
        "fragments" => "The fragment holders: status, refresh, repair, other keys".to_owned(),
        _ => match path.rsplit_once(' ') {
            Some((noun, "create")) => format!("Makes a {}, by kind", noun.replace('-', " ")),
            Some((noun, "update")) => format!("Changes a {}, by kind", noun.replace('-', " ")),
            _ => format!("Commands on {path}"),
        },
    }
}

fn branch(word: &str, path: &str, node: &Node<'_>, scope: &Scope) -> Command {
    let mut out = node.op.map_or_else(
        || Command::new(word.to_owned()).about(about_noun(path)),
        |op| leaf(word, op, scope.has(path).then(|| scope.detail())),
    );
    if !node.children.is_empty() {
        out = out
            .subcommand_required(node.op.is_none())
            .arg_required_else_help(node.op.is_none())
            .disable_help_subcommand(true);
    }
    for (word, child) in &node.children {
        out = out.subcommand(branch(word, &format!("{path} {word}"), child, scope));
    }
    out
}

/// One operation's command, with its flags if their detail is given.
fn leaf(word: &str, op: &Operation, detail: Option<Detail>) -> Command {
    let out = Command::new(word.to_owned()).about(op.summary.clone());
    let Some(detail) = detail else { return out };
    let out = out.args(flags::of(op, detail)).after_help(examples::of(op));
    if op.name == "gateway-rotate-secret" { out.args(many()) } else { out }
}

/// The flags that rotate many secrets with one command.
fn many() -> Vec<Arg> {
    let heading = "Many secrets";
    let number = |id: &'static str, default: &'static str, help: &'static str| {
        Arg::new(id)
            .long(id)
            .value_name("N")
            .default_value(default)
            .value_parser(clap::value_parser!(u16).range(1..=1000))
            .help(help)
            .help_heading(heading)
    };
    vec![
        Arg::new("rotate-path")
            .long("path")
            .short('p')
            .value_name("PATH")
            .help(
                "rotate everything below this path, such as '/prod/*'; one canary first, and nothing else if it fails",
            )
            .help_heading(heading)
            .conflicts_with("name")
            .required_unless_present("name"),
        number("at-once", "8", "rotations at a time"),
        number("max-failures", "3", "stop after this many failures"),
        Arg::new("yes")
            .long("yes")
            .short('y')
            .action(ArgAction::SetTrue)
            .help("do not ask before it begins")
            .help_heading(heading),
    ]
}

/// The words of the chosen command and its arguments.
pub fn chosen(matches: &ArgMatches) -> (String, &ArgMatches) {
    let (mut words, mut at) = (Vec::new(), matches);
    while let Some((word, next)) = at.subcommand() {
        words.push(word);
        at = next;
    }
    (words.join(" "), at)
}

/// Prints completions for a shell.
pub fn completions(ops: &[Operation], leaf: &ArgMatches) {
    if let Some(shell) = leaf.get_one::<clap_complete::Shell>("shell") {
        clap_complete::generate(*shell, &mut command(ops, &Scope::All), "volvelle", &mut std::io::stdout());
    }
}

/// Writes man pages into a folder.
pub fn man(ops: &[Operation], leaf: &ArgMatches) -> Result<(), Failed> {
    let dir = leaf.get_one::<String>("dir").map_or(".", String::as_str);
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command(ops, &Scope::All), Path::new(dir)))
        .map_err(|e| Failed::new(format!("cannot write man pages to {dir}: {}", crate::locate::plain(&e)), ""))
}

/// Prints a reference page.
///
/// # Errors
/// There is no such page.
pub fn page(ops: &[Operation], leaf: &ArgMatches) -> Result<(), Failed> {
    let text = match leaf.get_one::<String>("page").map_or("", String::as_str) {
        "api" => reference::api(ops),
        "cli" => reference::cli(&command(ops, &Scope::All), ops),
        kind => {
            let declarations = volvelle_gateway::declarations();
            let known = declarations.iter().find(|declaration| declaration.kind == kind);
            reference::kind(known.ok_or_else(|| {
                let kinds: Vec<&str> = declarations.iter().map(|declaration| declaration.kind).collect();
                Failed::new(format!("there is no page {kind:?}"), format!("take cli, api, {}", kinds.join(", ")))
            })?)
        }
    };
    crate::print::line(text.trim_end());
    Ok(())
}

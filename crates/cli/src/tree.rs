//! The command tree, built from the table of operations.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};
use volvelle_api::Operation;

use crate::Failed;

/// Parameters the session fills in.
pub const HIDDEN: &[&str] = &["token", "uid-token", "json"];

#[derive(Default)]
struct Node<'a> {
    op: Option<&'a Operation>,
    children: BTreeMap<String, Node<'a>>,
}

/// The whole program's command.
pub fn command(ops: &[Operation]) -> Command {
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
        .about("Rotates secrets and never loses one")
        .after_help("Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 denied, 5 unreachable, 6 rotation failed or partial.\nA secret parameter takes - (standard input), @FILE or ? (prompt).")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .args(globals());
    for op in ops {
        for name in std::iter::once(&op.name).chain(&op.aliases).filter(|n| !root.children.contains_key(*n)) {
            top = top.subcommand(leaf(name, op).hide(true));
        }
    }
    for (word, node) in &root.children {
        top = top.subcommand(branch(word, node));
    }
    top.subcommand(
        Command::new("configure")
            .about("Writes a profile")
            .arg(Arg::new("access-id").long("access-id").required(true))
            .arg(Arg::new("access-key").long("access-key").help("access key; -, @FILE or ? (default: prompt)")),
    )
    .subcommand(
        Command::new("completions")
            .about("Prints completions for a shell")
            .arg(Arg::new("shell").required(true).value_parser(clap::value_parser!(clap_complete::Shell))),
    )
    .subcommands(crate::serve::commands())
    .subcommand(Command::new("man").about("Writes man pages").arg(Arg::new("dir").required(true)))
}

fn globals() -> Vec<Arg> {
    let text = |id: &'static str, help: &'static str| {
        Arg::new(format!("g:{id}"))
            .long(id)
            .global(true)
            .value_name("TEXT")
            .help(help)
            .help_heading("Connection and output")
    };
    vec![
        text("gateway-url", "address of the gateway").short('u'),
        text("data-dir", "folder of a local `volvelle dev`").env("VOLVELLE_DATA_DIR"),
        text("profile", "profile to use"),
        text("ca-cert", "PEM file of an additional trusted root"),
        text("jsonpath", "print what this JSONPath selects"),
        Arg::new("g:json")
            .long("json")
            .global(true)
            .action(ArgAction::SetTrue)
            .help("print JSON")
            .help_heading("Connection and output"),
    ]
}

fn branch(word: &str, node: &Node<'_>) -> Command {
    let mut out =
        node.op.map_or_else(|| Command::new(word.to_owned()).about(format!("Commands on {word}")), |op| leaf(word, op));
    if !node.children.is_empty() {
        out = out.subcommand_required(node.op.is_none()).arg_required_else_help(node.op.is_none());
    }
    for (word, child) in &node.children {
        out = out.subcommand(branch(word, child));
    }
    out
}

fn leaf(word: &str, op: &Operation) -> Command {
    let mut out = Command::new(word.to_owned()).about(op.summary.clone());
    let empty = Map::new();
    let properties = op.params.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> =
        op.params.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let rotate = op.name == "gateway-rotate-secret";
    for (name, property) in properties.iter().filter(|(n, _)| !HIDDEN.contains(&n.as_str())) {
        let secret = property.get("x-secret").is_some();
        let mut arg = Arg::new(name.clone())
            .long(name.replace('_', "-"))
            .help(property["description"].as_str().unwrap_or_default().to_owned());
        arg = match property["type"].as_str() {
            Some("boolean") => arg.num_args(0..=1).default_missing_value("true").value_name("BOOL"),
            Some("array") => arg.action(ArgAction::Append).value_name("TEXT"),
            _ => arg.num_args(1).allow_hyphen_values(true).value_name("TEXT"),
        };
        if name == "name" {
            arg = arg.short('n');
        }
        out = out.arg(arg.required(required.contains(&name.as_str()) && !secret && !rotate));
    }
    if rotate {
        out = out.arg(
            Arg::new("rotate-path")
                .long("path")
                .help("rotate everything below, one canary first")
                .conflicts_with("name")
                .required_unless_present("name"),
        );
    }
    out
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
pub fn completions(ops: &[Operation], leaf: &ArgMatches) -> Result<(), Failed> {
    if let Some(shell) = leaf.get_one::<clap_complete::Shell>("shell") {
        clap_complete::generate(*shell, &mut command(ops), "volvelle", &mut std::io::stdout());
    }
    Ok(())
}

/// Writes man pages into a folder.
pub fn man(ops: &[Operation], leaf: &ArgMatches) -> Result<(), Failed> {
    let dir = leaf.get_one::<String>("dir").map_or(".", String::as_str);
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command(ops), Path::new(dir)))
        .map_err(|e| Failed::new(format!("cannot write man pages to {dir}: {e}"), ""))
}

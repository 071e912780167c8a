//! How parameters of operations are spelled as flags, with the vendor's short and older spellings.

use clap::{Arg, ArgAction, ValueHint};
use serde_json::Value;
use volvelle_api::{Group, Operation, group_of};

/// Parameters the session fills in.
pub const HIDDEN: &[&str] = &["token", "uid-token", "json"];

/// Characters of help that fit beside the longest flag on a line of 100.
const LONGEST_GIST: usize = 52;

/// Heading of the flags that every command has.
pub const GLOBAL: &str = "Connection and output";

/// How much help shows: both are laid out in two columns, which one help text of clap is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What most people need (`-h`).
    Usual,
    /// Everything (`--help`, man pages, documents).
    Full,
}

/// Flags every command has.
pub fn globals() -> Vec<Arg> {
    let text = |id: &'static str, value: &'static str, help: &'static str| {
        Arg::new(format!("g:{id}")).long(id).global(true).value_name(value).help(help).help_heading(GLOBAL)
    };
    let switch = |id: &'static str, help: &'static str| {
        Arg::new(format!("g:{id}")).long(id).global(true).action(ArgAction::SetTrue).help(help).help_heading(GLOBAL)
    };
    vec![
        text("gateway-url", "URL", "address of the gateway").short('u').value_hint(ValueHint::Url),
        // The variable is read by hand: to clap it would count as an argument that was given.
        text("data-dir", "DIR", "folder of a `volvelle dev` on this machine [env: VOLVELLE_DATA_DIR]")
            .value_hint(ValueHint::DirPath),
        text("profile", "NAME", "profile to use"),
        text("token", "SECRET", "a token got elsewhere; - reads standard input, @FILE a file"),
        text("ca-cert", "FILE", "PEM file of an additional trusted root").value_hint(ValueHint::FilePath),
        switch("json", "print the gateway's answer as JSON"),
        text("jsonpath", "PATH", "print what this JSONPath selects from the answer, a line each"),
        Arg::new("g:help")
            .short('h')
            .long("help")
            .global(true)
            .action(ArgAction::HelpShort)
            .help("tell the usual flags (-h) or all (--help)")
            .help_heading(GLOBAL),
        // Scripts written for the vendor's command line pass these; nothing here depends on them.
        switch("no-creds-cleanup", "accepted for compatibility").hide(true),
        switch("debug", "accepted for compatibility").hide(true),
    ]
}

/// The flags of an operation, required ones first.
pub fn of(op: &Operation, detail: Detail) -> Vec<Arg> {
    let Some(properties) = op.params.get("properties").and_then(Value::as_object) else { return Vec::new() };
    let needed: Vec<&str> =
        op.params.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let mut shown: Vec<(&String, &Value)> =
        properties.iter().filter(|(name, _)| !HIDDEN.contains(&name.as_str())).collect();
    shown.sort_by_key(|(name, _)| (!needed.contains(&name.as_str()), group_of(name) as u8));
    let many = op.name == "gateway-rotate-secret";
    shown
        .into_iter()
        .map(|(name, property)| {
            let secret = property.get("x-secret").is_some();
            flag(op, name, property, detail).required(needed.contains(&name.as_str()) && !secret && !many)
        })
        .collect()
}

fn flag(op: &Operation, name: &str, property: &Value, detail: Detail) -> Arg {
    let group = group_of(name);
    let mut arg = Arg::new(name.to_owned())
        .long(long(name))
        .help(if detail == Detail::Usual { gist(&help(name, property)) } else { help(name, property) })
        .help_heading(group.heading())
        .hide(detail == Detail::Usual && matches!(group, Group::SecureAccess | Group::Compatibility))
        .value_name(value_name(name, property));
    if let Some(short) = short(op, name) {
        arg = arg.short(short);
    }
    for alias in aliases(name) {
        arg = arg.alias(alias);
    }
    if property.get("x-secret").is_some() {
        // Given without a value, it is asked for.
        return arg.num_args(0..=1).default_missing_value("?");
    }
    match property["type"].as_str() {
        Some("boolean") => arg.num_args(0..=1).default_missing_value("true"),
        Some("array") => arg.action(ArgAction::Append).allow_hyphen_values(false),
        Some("object") => arg.action(ArgAction::Append),
        _ => arg.num_args(1).allow_hyphen_values(true),
    }
}

/// The flag's long spelling.
pub fn long(name: &str) -> String {
    name.replace('_', "-")
}

/// The flag's short spelling, as the vendor has it.
pub fn short(op: &Operation, name: &str) -> Option<char> {
    Some(match name {
        "name" | "names" => 'n',
        "key" => 'k',
        "customer-frg-id" => 'f',
        "alg" => 'a',
        "tag" | "tags" => 't',
        "role-name" => 'r',
        "am-name" | "assoc-id" => 'a',
        "sub-claims" => 's',
        "capability" => 'c',
        "case-sensitive" if op.name.contains("assoc") => 'c',
        "path" => 'p',
        _ => return None,
    })
}

fn aliases(name: &str) -> Vec<String> {
    let mut out: Vec<String> = match name {
        "names" => vec!["name".into()],
        "tags" => vec!["tag".into()],
        "metadata" => vec![],
        "use-capital-letters" | "use-lower-letters" | "use-numbers" | "use-special-characters" => {
            vec![name.replace("use-", "password-policy-contains-")]
        }
        _ => vec![],
    };
    if name.contains('_') {
        out.push(name.to_owned());
    }
    out
}

/// One line of help.
pub fn help(name: &str, property: &Value) -> String {
    let text = property["description"].as_str().unwrap_or_default().trim_end_matches('.');
    let mut text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(first) = text.chars().next().filter(|c| c.is_uppercase() && !text.starts_with("SSH")) {
        // Declarations write sentences; flags are told in phrases.
        text.replace_range(..first.len_utf8(), &first.to_lowercase().to_string());
    }
    let default = match &property["default"] {
        Value::String(d) if !d.is_empty() && !d.starts_with("default_") => d.clone(),
        Value::Number(d) => d.to_string(),
        _ => return text,
    };
    if name == "version" { text } else { format!("{text} [default: {default}]") }
}

/// The beginning of an explanation: a long one would push the help of every flag below its flag.
fn gist(text: &str) -> String {
    let mut text = text;
    for end in [". ", "; ", " (", ", "] {
        if text.chars().count() > LONGEST_GIST {
            text = text.split_once(end).map_or(text, |(first, _)| first);
        }
    }
    text.to_owned()
}

fn value_name(name: &str, property: &Value) -> &'static str {
    if property.get("x-secret").is_some() {
        return "SECRET";
    }
    match property["type"].as_str() {
        Some("boolean") => "BOOL",
        Some("integer") => "N",
        Some("object") => "NAME=TEXT",
        _ if name.ends_with("name") && !name.contains("username") && name != "company-name" => "PATH",
        _ => match name {
            "names" | "path" | "item" => "PATH",
            "port" => "PORT",
            "host" | "rm-hosts" => "HOST",
            "ssh-username" | "rotated-username" => "USER",
            _ => "TEXT",
        },
    }
}

/// Whether a parameter is an object that flags give as pairs.
pub fn is_pairs(property: &Value) -> bool {
    property["type"] == "object"
}

/// Lists of words without commas in them, which may be given with commas.
pub fn is_words(name: &str) -> bool {
    matches!(
        name,
        "capability"
            | "type"
            | "sub-types"
            | "rotation-event-in"
            | "allowed-client-type"
            | "bound-ips"
            | "gw-bound-ips"
    )
}

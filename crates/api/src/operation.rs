//! Operations: the fixed ones from the table and those of each kind from its declaration.

use schemars::Schema;
use serde_json::{Map, Value, json};
use volvelle_domain::connector::Declaration;

use crate::help::{Group, group_of, help_in, help_of};
use crate::table::{
    FIXED, LINKED_TARGET, ROTATED_COMMON, ROTATED_CREATE, ROTATED_UPDATE, TARGET_COMMON, TARGET_CREATE, TARGET_UPDATE,
};

/// One operation of the wire API.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Path without the leading slash.
    pub name: String,
    /// Other paths that mean the same.
    pub aliases: Vec<String>,
    /// Commands of the command line, such as `rotated-secret get-value`.
    pub cli: Vec<String>,
    /// One sentence of help.
    pub summary: String,
    /// JSON schema of the body.
    pub params: Schema,
    /// What the answer holds, in words.
    pub answer: &'static str,
    /// Status of success.
    pub status: u16,
}

/// Every operation of a server which knows the kinds `decls`.
#[must_use]
pub fn operations(decls: &[Declaration]) -> Vec<Operation> {
    let mut ops: Vec<Operation> = FIXED.iter().map(|line| fixed(line)).collect();
    let all: Vec<Map<String, Value>> = decls.iter().map(|d| properties(&d.secret)).collect();
    for (name, update) in
        [("create-rotated-secret", false), ("update-rotated-secret", true), ("gateway-update-item", true)]
    {
        let mut schema = parse(ROTATED_COMMON);
        merge(&mut schema, parse(if update { ROTATED_UPDATE } else { ROTATED_CREATE }));
        merge(
            &mut schema,
            parse(
                "ProviderType:str,rotator-creds-type:str,metadata:str,new-metadata:str,new-version:bool,type:str,ssh-username:str,ssh-password:str!",
            ),
        );
        for more in &all {
            merge(&mut schema, (more.clone(), Vec::new()));
        }
        let status = if name == "gateway-update-item" { 201 } else { 200 };
        let summary =
            if update { "Changes a rotated secret of any kind" } else { "Makes a rotated secret of any kind" };
        ops.push(op(name, &[], &[], summary.to_owned(), schema, "{name}", status));
    }
    for decl in decls {
        kind(&mut ops, decl);
    }
    target(&mut ops, "linked", parse(LINKED_TARGET), "a list of hosts sharing a parent target");
    ops
}

/// The operation called `name`, by its own name or an alias.
#[must_use]
pub fn find<'a>(ops: &'a [Operation], name: &str) -> Option<&'a Operation> {
    ops.iter().find(|o| o.name == name || o.aliases.iter().any(|a| a == name))
}

type Parts = (Map<String, Value>, Vec<String>);

fn kind(ops: &mut Vec<Operation>, decl: &Declaration) {
    target(ops, decl.kind, (properties(&decl.target), Vec::new()), decl.summary);
    for made in ops.iter_mut().rev().take(2) {
        // Forms are drawn from the schemas: this is how they find what a target of this kind is for.
        made.params.insert("x-secret-kind".to_owned(), Value::from(decl.secret_kind));
    }
    for (verb, own, does) in [("create", ROTATED_CREATE, "Makes"), ("update", ROTATED_UPDATE, "Changes")] {
        let mut schema = parse(ROTATED_COMMON);
        merge(&mut schema, parse(own));
        merge(&mut schema, (properties(&decl.secret), Vec::new()));
        choices(&mut schema.0, decl);
        if let [_] = decl.rotator_types {
            schema.1.retain(|required| required != "rotator-type");
        }
        let name = format!("rotated-secret-{verb}-{}", decl.secret_kind);
        let cli = format!("rotated-secret {verb} {}", decl.secret_kind);
        ops.push(op(
            &name,
            &[],
            &[&cli],
            format!("{does} a rotated secret of kind {}", decl.secret_kind),
            schema,
            "{name}",
            201,
        ));
    }
}

/// Says what a rotated secret of this kind may choose from, each choice with its meaning.
fn choices(properties: &mut Map<String, Value>, decl: &Declaration) {
    let types = decl.rotator_types.iter().map(|t| json!({"value": t.name, "meaning": t.summary})).collect();
    let acting = json!([
        {"value": "use-user-creds", "meaning": "the account changes its own credential"},
        {"value": "use-target-creds", "meaning": "the target's privileged account makes the change"},
    ]);
    for (name, choices) in [("rotator-type", types), ("authentication-credentials", acting)] {
        if let Some(property) = properties.get_mut(name) {
            property["x-choices"] = choices;
        }
    }
}

fn target(ops: &mut Vec<Operation>, kind: &str, own: Parts, what: &str) {
    for (verb, more, does) in [("create", TARGET_CREATE, "Makes"), ("update", TARGET_UPDATE, "Changes")] {
        let mut schema = parse(TARGET_COMMON);
        merge(&mut schema, own.clone());
        merge(&mut schema, parse(more));
        let name = format!("target-{verb}-{kind}");
        let alias = format!("{verb}-{kind}-target");
        ops.push(op(
            &name,
            &[&alias],
            &[&format!("target {verb} {kind}")],
            format!("{does} a target: {what}"),
            schema,
            "{target_id}",
            201,
        ));
    }
}

/// One line of the table: `names | commands | status | summary | answer | parameters`.
fn fixed(line: &'static str) -> Operation {
    let mut part = line.split('|').map(str::trim);
    let mut next = || part.next().unwrap_or_default();
    let names: Vec<&str> = next().split_whitespace().collect();
    let commands: Vec<&str> = next().split(',').map(str::trim).filter(|c| !c.is_empty()).collect();
    let status = next().parse().unwrap_or(200);
    let (summary, answer, params) = (next(), next(), next());
    let (first, aliases) = names.split_first().map_or(("", &[][..]), |(f, r)| (*f, r));
    op(first, aliases, &commands, summary.to_owned(), parse(params), answer, status)
}

fn op(
    name: &str,
    aliases: &[&str],
    cli: &[&str],
    summary: String,
    mut schema: Parts,
    answer: &'static str,
    status: u16,
) -> Operation {
    merge(&mut schema, parse("token:str!,uid-token:str!,json:bool"));
    for (param, property) in &mut schema.0 {
        if let Some(help) = help_in(name, param) {
            property["description"] = Value::from(help);
        }
        let group = group_of(param);
        if group != Group::Own {
            property["x-group"] = Value::from(group.word());
        }
    }
    let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    Operation {
        name: name.to_owned(),
        aliases: own(aliases),
        cli: own(cli),
        summary,
        params: object(schema),
        answer,
        status,
    }
}

/// Reads `name:type[*][!][=default]`, comma-separated; `*` is required and `!` is secret.
fn parse(text: &str) -> Parts {
    let (mut props, mut required) = (Map::new(), Vec::new());
    for entry in text.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        let (name, rest) = entry.split_once(':').unwrap_or((entry, "str"));
        let (kind, default) = rest.split_once('=').map_or((rest, None), |(k, d)| (k, Some(d)));
        let mut property = match kind.trim_end_matches(['*', '!']) {
            "int" => json!({"type": "integer"}),
            "bool" => json!({"type": "boolean"}),
            "list" => json!({"type": "array", "items": {"type": "string"}}),
            "map" => json!({"type": "object"}),
            _ => json!({"type": "string"}),
        };
        property["description"] = Value::from(help_of(name));
        if kind.contains('!') {
            property["x-secret"] = Value::Bool(true);
        }
        if let Some(d) = default {
            property["default"] = match property["type"].as_str() {
                Some("integer") => d.parse::<i64>().map_or(Value::Null, Value::from),
                Some("boolean") => Value::Bool(d == "true"),
                _ => Value::from(d),
            };
        }
        if kind.contains('*') {
            required.push(name.to_owned());
        }
        props.insert(name.to_owned(), property);
    }
    (props, required)
}

fn merge(into: &mut Parts, from: Parts) {
    for (name, property) in from.0 {
        into.0.entry(name).or_insert(property);
    }
    into.1.extend(from.1);
}

fn properties(schema: &Schema) -> Map<String, Value> {
    schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn object((props, mut required): Parts) -> Schema {
    required.sort();
    required.dedup();
    let mut map = Map::new();
    map.insert("type".to_owned(), Value::from("object"));
    map.insert("properties".to_owned(), Value::Object(props));
    map.insert("required".to_owned(), Value::from(required));
    Schema::from(map)
}

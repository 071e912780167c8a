//! The program volvelle: every operation of the gateway as a command.

mod bulk;
mod customer;
mod examples;
mod failure;
mod flags;
mod locate;
mod print;
mod profile;
mod progress;
mod prose;
mod reconcile;
mod reference;
mod secrets;
mod serve;
mod session;
mod table;
mod tree;
mod views;
mod when;

use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::{Map, Value, json};
use volvelle_api::{Operation, operations};

use crate::failure::Failed;
use crate::session::Session;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Most pages of a list that are put together for a person.
const MOST_PAGES: usize = 100;

fn main() -> ExitCode {
    let ops = operations(&volvelle_gateway::declarations());
    let mut command = tree::command(&ops, &tree::Scope::of_process());
    if std::env::args_os().len() < 2 {
        print::note(&command.render_help().to_string());
        return ExitCode::from(failure::USAGE);
    }
    let matches = command.get_matches();
    match serve::no_core_dumps().and_then(|()| run(&ops, &matches)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            print::error(&failed);
            ExitCode::from(failed.code)
        }
    }
}

fn run(ops: &[Operation], matches: &ArgMatches) -> Result<(), Failed> {
    let (path, leaf) = tree::chosen(matches);
    match path.as_str() {
        "completions" => tree::completions(ops, leaf),
        "man" => return tree::man(ops, leaf),
        "reference" => return tree::page(ops, leaf),
        "configure" => return profile::configure(leaf),
        "unconfigure" => return profile::unconfigure(leaf),
        "set-default-profile" => return profile::set_default(leaf),
        "get-default-profile" => profile::show_default(),
        "audit reconcile" => return reconcile::run(leaf),
        "gen-customer-fragment" => return customer::generate(leaf),
        "dev" => return serve::dev(leaf),
        "gateway" => return serve::gateway(leaf),
        _ => return operate(ops, &path, leaf),
    }
    Ok(())
}

/// What one thread needs to wait for answers.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|e| Failed::new(format!("the program cannot wait for answers: {e}"), ""))
}

fn operate(ops: &[Operation], path: &str, leaf: &ArgMatches) -> Result<(), Failed> {
    let op = ops
        .iter()
        .find(|o| o.cli.iter().any(|c| c == path))
        .or_else(|| volvelle_api::find(ops, path))
        .ok_or_else(|| Failed::usage(format!("there is no command {path}"), "volvelle --help lists them"))?;
    if op.name == "auth" {
        return sign_in(op, leaf);
    }
    if op.name == "gateway-rotate-secret"
        && let Some(pattern) = leaf.get_one::<String>("rotate-path")
    {
        return runtime()?.block_on(bulk::rotate(&Session::open(leaf)?, pattern, leaf));
    }
    let params = secrets::collect(op, leaf)?;
    let session = Session::open(leaf)?;
    let answer = runtime()?.block_on(call(&session, op, &params, leaf))?;
    if op.name == "revoke-token" {
        session::forget(&session.login().id);
    }
    print::answer(&op.name, &params, &answer, leaf)?;
    prose::verdict(&op.name, &answer)
}

async fn call(
    session: &Session,
    op: &Operation,
    params: &Map<String, Value>,
    leaf: &ArgMatches,
) -> Result<Value, Failed> {
    let raw = print::is_raw(leaf);
    if op.name == "gateway-rotate-secret" {
        return progress::rotate(session, params.clone(), raw).await;
    }
    // For people the list of items tells more than the vendor's short one.
    let name = if op.name == "rotated-secret-list" && !raw { "gateway-list-rotated-secrets" } else { &op.name };
    let mut answer = session.call(name, params.clone()).await?;
    let list = ["items", "targets", "roles", "auth_methods"].into_iter().find(|list| answer[*list].is_array());
    let one_page = raw || params.contains_key("pagination-token") || params.contains_key("limit");
    let Some(list) = list.filter(|_| !one_page) else { return Ok(answer) };
    for _ in 1..MOST_PAGES {
        let next = answer["next_page"].as_str().unwrap_or_default().to_owned();
        if next.is_empty() {
            break;
        }
        let mut more = params.clone();
        more.insert("pagination-token".to_owned(), Value::from(next));
        let mut page = session.call(name, more).await?;
        let rows = page[list].as_array_mut().map(std::mem::take).unwrap_or_default();
        if let Some(all) = answer[list].as_array_mut() {
            all.extend(rows);
        }
        answer["next_page"] = page["next_page"].take();
    }
    Ok(answer)
}

/// `volvelle auth`: with what is given, or with what is known.
fn sign_in(op: &Operation, leaf: &ArgMatches) -> Result<(), Failed> {
    let mut params = secrets::collect(op, leaf)?;
    let session = Session::open(leaf)?;
    if !params.contains_key("access-id") {
        let login = session.login();
        let own = json!({"access-id": login.id, "access-key": login.key});
        for (name, value) in own.as_object().into_iter().flatten() {
            params.entry(name.clone()).or_insert_with(|| value.clone());
        }
    } else if !params.contains_key("access-key") {
        params.insert("access-key".to_owned(), Value::from(secrets::read("access-key", "?")?));
    }
    let answer = runtime()?.block_on(session.call_unsigned("auth", params.clone()))?;
    print::answer("auth", &params, &answer, leaf)
}

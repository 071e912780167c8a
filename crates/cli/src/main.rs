//! The program volvelle: every operation of the gateway as a command.

mod bulk;
mod print;
mod secrets;
mod serve;
mod session;
mod tree;

use std::process::ExitCode;

use clap::ArgMatches;
use serde_json::{Map, Value};
use volvelle_api::{ClientError, Operation, operations};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why a command failed: exit code, sentence and hint.
pub struct Failed {
    code: u8,
    message: String,
    hint: String,
}

impl Failed {
    /// A failure with the general code 1.
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), hint: hint.into() }
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::Unreachable { .. } => Self {
                code: 5,
                message,
                hint: "is the gateway running? --gateway-url or --data-dir says which one is asked".to_owned(),
            },
            ClientError::Refused { status, body } => {
                let rotation = body.code.starts_with("rotation");
                let code = match status {
                    _ if rotation => 6,
                    404 => 3,
                    401 | 403 => 4,
                    _ => 1,
                };
                Self { code, message, hint: body.hint }
            }
            ClientError::Setup(_) => Self::new(message, ""),
        }
    }
}

fn main() -> ExitCode {
    let ops = operations(&volvelle_gateway::declarations());
    let matches = tree::command(&ops).get_matches();
    match run(&ops, &matches) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            print::error(&failed.message, &failed.hint);
            ExitCode::from(failed.code)
        }
    }
}

fn run(ops: &[Operation], matches: &ArgMatches) -> Result<(), Failed> {
    let (path, leaf) = tree::chosen(matches);
    match path.as_str() {
        "completions" => return tree::completions(ops, leaf),
        "man" => return tree::man(ops, leaf),
        "configure" => return session::configure(leaf),
        "dev" => return serve::dev(leaf),
        "gateway" => return serve::gateway(leaf),
        _ => {}
    }
    let Some(op) = ops.iter().find(|o| o.cli.contains(&path)).or_else(|| volvelle_api::find(ops, &path)) else {
        return Err(Failed {
            code: 2,
            message: format!("there is no command {path}"),
            hint: "volvelle --help lists them".to_owned(),
        });
    };
    let runtime = || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| Failed::new(e.to_string(), ""))
    };
    if op.name == "gateway-rotate-secret" {
        if let Some(pattern) = leaf.get_one::<String>("rotate-path") {
            return runtime()?.block_on(async { bulk::rotate(&session::open(leaf).await?, pattern).await });
        }
    }
    let params = secrets::collect(op, leaf)?;
    let answer = runtime()?.block_on(call(op, leaf, params))?;
    print::answer(&answer, leaf)
}

async fn call(op: &Operation, leaf: &ArgMatches, params: Map<String, Value>) -> Result<Value, Failed> {
    let client = if op.name == "auth" { session::connect(leaf)? } else { session::open(leaf).await? };
    Ok(client.call(&op.name, params).await?)
}

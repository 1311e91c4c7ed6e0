//! `pando`: the command. Reads the command line, runs one command, ends with its exit code.
//!
//! Every command but `up` and `demo` is a client of the running node's control socket (`control`). As a library this is
//! the whole command ([`main`]), and the asking end of the control socket for other programs ([`Remote`]).

use std::{path::PathBuf, process::ExitCode};

use clap::{CommandFactory as _, Parser as _};

use crate::{
    args::{Cli, Command, Globals},
    exit::Failure,
    output::{Output, StdoutClosed},
};

mod args;
mod commands;
mod control;
mod demo;
mod exit;
mod output;
mod signals;
mod units;

pub use crate::control::remote::{Keys, Network, Remote};

/// Reads the command line, runs one command, and says how it ended.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<StdoutClosed>() => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error);
            exit::kind_of(&error).into()
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    log_to_stderr(&cli);
    let mut out = Output::new(cli.globals.json);
    if let Command::Completions { shell } = cli.command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "pando", &mut script);
        out.text(&script)?;
        return out.flush();
    }
    let mut builder = match cli.command {
        Command::Up(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build()?;
    let done = runtime.block_on(command(cli, &mut out));
    // A thread may still wait for stdin.
    runtime.shutdown_background();
    done.and_then(|()| out.flush())
}

async fn command(cli: Cli, out: &mut Output) -> anyhow::Result<()> {
    if let Command::Demo(demo) = cli.command {
        return demo::run(demo, out).await;
    }
    let data = data_folder(&cli.globals)?;
    match cli.command {
        Command::Up(up) => commands::up::run(*up, data, out).await,
        Command::Invite(invite) => commands::invite::run(invite, &data, out).await,
        Command::Bucket(bucket) => commands::bucket::run(bucket, &data, out).await,
        Command::Key(key) => commands::key::run(key, &data, out).await,
        Command::Put(put) => commands::put::run(put, &data, out).await,
        Command::Get(get) => commands::get::run(get, &data, out).await,
        Command::Ls(ls) => commands::list::run(ls, &data, out).await,
        Command::Share(share) => commands::share::run(share, &data, out).await,
        Command::Stat(stat) => commands::stat::run(stat, &data, out).await,
        Command::Rm(rm) => commands::remove::run(rm, &data, out).await,
        Command::Status => commands::status::run(&data, out).await,
        Command::Drain(drain) => commands::drain::run(drain, &data, out).await,
        Command::Remove(remove) => commands::remove_node::run(remove, &data, out).await,
        Command::Plan(plan) => commands::plan::run(plan, &data, out).await,
        Command::Check(check) => commands::check::run(check, &data, out).await,
        Command::Scrub(scrub) => commands::scrub::run(scrub, &data, out).await,
        Command::Demo(_) | Command::Completions { .. } => unreachable!("done above"),
    }
}

/// The folder that was asked for, or the platform's, as an absolute path.
fn data_folder(globals: &Globals) -> anyhow::Result<PathBuf> {
    let folder = match &globals.data {
        Some(folder) if folder.as_os_str().is_empty() => {
            return Err(
                Failure::usage("the data folder has an empty name: check --data and PANDO_DATA").into()
            );
        }
        Some(folder) => folder.clone(),
        None => default_data_folder()
            .ok_or_else(|| Failure::usage("no home folder to keep data in: say where with --data"))?,
    };
    Ok(std::path::absolute(folder)?)
}

fn default_data_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if cfg!(target_os = "macos") {
        return Some(set("HOME")?.join("Library/Application Support/pando"));
    }
    // The specification says that a relative one is to be ignored.
    let data = set("XDG_DATA_HOME").filter(|folder| folder.is_absolute());
    Some(data.or_else(|| Some(set("HOME")?.join(".local/share")))?.join("pando"))
}

fn log_to_stderr(cli: &Cli) {
    use std::io::IsTerminal as _;

    use tracing_subscriber::EnvFilter;

    let level = match cli.globals.verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter =
        EnvFilter::try_from_env("PANDO_LOG").unwrap_or_else(|_| EnvFilter::new(format!("{level},s3s=off")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

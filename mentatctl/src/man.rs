//! `man`: the manual pages of every command, from the same text as `--help`.

use std::path::{Path, PathBuf};

use clap::{Args, Command};
use serde_json::json;

use crate::exit::{Exit, OrFail as _, Outcome};
use crate::home::{Secrecy, make_folder, write_file};
use crate::output::{Output, shown};

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// Folder for the pages, such as /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Writes `mentatctl.1`, `mentatctl-pki.1`, `mentatctl-pki-request-cert.1`, …
///
/// # Errors
/// Exit code 1 when the folder cannot be written.
pub fn run(man: &Man, program: Command, out: &Output) -> Outcome {
    make_folder(&man.dir, Secrecy::Public)?;
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut written = Vec::new();
    write_pages(&program, &man.dir, &mut written)?;
    out.line(format!("wrote {} pages to {}", written.len(), man.dir.display()));
    out.value(|| json!({ "ok": true, "files": written.iter().map(|page| shown(page)).collect::<Vec<_>>() }));
    Ok(Exit::Ok)
}

fn write_pages(command: &Command, dir: &Path, written: &mut Vec<PathBuf>) -> Outcome<()> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        write_pages(sub, dir, written)?;
    }
    let page = clap_mangen::Man::new(command.clone()).manual("Mentat");
    let mut text = Vec::new();
    page.render(&mut text).or_fail(Exit::Failure, "writing a manual page")?;
    let path = dir.join(page.get_filename());
    write_file(&path, &text, Secrecy::Public)?;
    written.push(path);
    Ok(())
}

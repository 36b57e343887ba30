//! `up`: create the stack at its first start, then run its three servers until told to stop.

use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use clap::Args;
use hsm::developer::DeveloperKey;
use http::StatusCode;
use serde_json::json;

use super::child::Server;
use super::file::{STACK_FILE, StackFile};
use super::issuer::Issuer;
use super::listener::{Answer, Listener, Request};
use super::ports::{Ports, Transport};
use super::raw_log::{self, RawLog};
use super::{config, config::Tempo, create, layout::Layout, published, repository, shards, trust_files};
use crate::clock;
use crate::exit::{Exit, Failure, OrFail as _, Outcome};
use crate::home::{Secrecy, make_folder, read_secret};
use crate::interruption::Interruption;
use crate::net::block_on;
use crate::output::{Output, Tone, shown};
use crate::tls::Pair;

/// `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// Folder of keys, databases, logs and configuration; made at the first start
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// First of five consecutive ports; only at the first start [default: free ports]
    #[arg(long, value_name = "N")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=i64::from(Ports::LARGEST_BASE)))]
    port_base: Option<u16>,
    /// Leave out the raw log, which takes any bytes and is trusted by nothing
    #[arg(long)]
    no_raw_log: bool,
    /// Speak TLS, with certificates by a private authority of the stack's own (DIR/tls/ca.crt); only at the first start
    #[arg(long)]
    tls: bool,
    /// Stop when standard input ends (for programs that start this one)
    #[arg(long)]
    exit_with_stdin: bool,
}

/// Runs `up` until Ctrl-C, SIGTERM, the end of its terminal (SIGHUP), or the end of standard input where that was asked for.
///
/// # Errors
/// Exit code 78 when the folder, a port or a server does not allow the start; 1 when a server ends by itself, or
/// when it is asked to end before it is ready.
pub fn up(up: &Up, out: &Output) -> Outcome {
    let raw_log = if up.no_raw_log { RawLog::LeftOut } else { RawLog::Wanted };
    let transport = if up.tls { Transport::Https } else { Transport::Http };
    let start = Start { port_base: up.port_base, tempo: Tempo::Normal, raw_log, transport };
    // Before anything is made, started or said: whoever reads that it is ready may ask it to end at once.
    let interruption = Interruption::listen()?;
    let stack = Running::start(&up.dir, &start, &interruption, out)?;
    out.line(stack.summary(out));
    out.value(|| json!({
        "ready": true, "stack": shown(&stack.layout.stack_file()), "dir": shown(stack.layout.root()), "pids": stack.pids(),
    }));
    out.delivered()?;
    stack.run_until_told(up.exit_with_stdin, interruption, out)
}

/// How a stack is started.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// First of five consecutive ports, for the first start alone; `None` takes free ones.
    pub port_base: Option<u16>,
    /// How eagerly status is published, for the first start alone.
    pub tempo: Tempo,
    /// Whether the stack gets a raw log.
    pub raw_log: RawLog,
    /// How the servers speak, for the first start alone.
    pub transport: Transport,
}

/// A running stack. Dropping it stops the servers, in reverse order of their start, and frees the folder.
#[derive(Debug)]
pub struct Running {
    servers: Vec<Server>,
    // Development issuer and trust files, where the stack has them.
    _listener: Option<Listener>,
    layout: Layout,
    file: StackFile,
    // Held for as long as the stack runs: two processes in one folder would sign two histories.
    _lock: File,
}

impl Running {
    /// Creates the stack if the folder holds none, then starts it.
    ///
    /// # Errors
    /// Exit code 78 when the folder, a port or a server does not allow the start; 1 when it was interrupted.
    pub fn start(dir: &Path, start: &Start, interruption: &Interruption, out: &Output) -> Outcome<Self> {
        nameable(dir)?;
        let ours = !dir.exists();
        make_folder(dir, Secrecy::Secret).map_err(refused)?;
        let dir = dir.canonicalize().or_fail(Exit::Refused, format!("cannot use {}", dir.display()))?;
        nameable(&dir)?;
        let layout = Layout::new(&dir);
        let lock = lock(&layout)?;
        let reservation = if layout.stack_file().is_file() {
            if start.port_base.is_some() {
                return Err(Failure::usage(
                    "--port-base is for the first start; the ports of this stack are fixed",
                )
                .hint("leave it out, or make a new stack in another folder"));
            }
            if start.transport == Transport::Https && !layout.tls_authority().is_file() {
                return Err(Failure::usage("--tls is for the first start; this stack speaks plain HTTP")
                    .hint("leave it out, or make a new stack in another folder"));
            }
            None
        } else {
            let created = create::create(&layout, start, interruption, out).inspect_err(|_| {
                // Only what this call made goes, and only where nothing else is in it.
                if ours && only_the_lock(&layout) {
                    let _ = std::fs::remove_dir_all(layout.root());
                }
            });
            Some(created?)
        };
        let mut file = StackFile::load(&dir).map_err(refused)?;
        file.check_place(&layout)?;
        layout.check()?;
        let ports = layout.ports()?;
        ports.wait_until_free(interruption)?;
        if ports.transport == Transport::Https {
            create::certify_servers(&layout).map_err(refused)?;
        }
        // An RSA key takes its time: it is made while the servers start.
        let issuer_key = ports.oidc.map(|_| std::thread::spawn(Issuer::make_key));
        if start.raw_log == RawLog::Wanted {
            raw_log::prepare(&layout, &file)?;
        }
        // Relying parties notice a repository that ages; that is no reason not to start.
        if let Err(failure) = repository::keep_fresh(&layout) {
            out.note(format!(
                "the trust metadata in {} is not kept fresh: {}",
                layout.trust("tuf").display(),
                failure.line()
            ));
        }
        let spinner = out.spinner("starting");
        let mut servers = Vec::new();
        for name in ["transparency-log", "ca-service", "executor"] {
            // Before the executor reads them.
            if name == "executor"
                && let Err(failure) = trust_files::follow(&layout, &ports, out)
            {
                out.note(format!("the trust files are as they were: {}", failure.line()));
            }
            // Before the authority reads them.
            if name == "ca-service"
                && let Err(failure) = shards::follow(&layout, &ports, &mut file, out)
            {
                out.note(format!("what is known of the logs is as it was: {}", failure.line()));
            }
            spinner.say(format!("starting {name}"));
            // An error drops the servers that run already, which stops them; the newest first.
            match Server::start(name, &layout.config(name), &layout.log_file(name), interruption) {
                Ok(server) => servers.push(server),
                Err(failure) => {
                    stop_all(&mut servers);
                    return Err(failure);
                }
            }
        }
        if start.raw_log == RawLog::Wanted
            && let Err(failure) = raw_log::announce(&layout, &mut file)
        {
            stop_all(&mut servers);
            return Err(failure);
        }
        let own =
            ports.oidc.zip(issuer_key).map(|(port, key)| listen(&layout, &ports, port, key)).transpose();
        let listener = match own {
            Ok(listener) => listener,
            Err(failure) => {
                stop_all(&mut servers);
                return Err(failure);
            }
        };
        drop(spinner);
        // Every port of a new stack has its server now.
        drop(reservation);
        Ok(Self { servers, _listener: listener, layout, file, _lock: lock })
    }

    /// Where everything is.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Process ids by server name.
    pub fn pids(&self) -> serde_json::Value {
        self.servers.iter().map(|server| (server.name.to_owned(), json!(server.id()))).collect()
    }

    /// Fails if a server has ended by itself.
    ///
    /// # Errors
    /// Exit code 1 with the server's name and the last error it wrote.
    pub fn check(&mut self) -> Outcome<()> {
        match self.servers.iter_mut().find_map(Server::ended) {
            Some(death) => Err(Failure { exit: Exit::Failure, ..death }),
            None => Ok(()),
        }
    }

    /// Stops the servers, the executor first and the log last.
    pub fn stop(mut self) {
        stop_all(&mut self.servers);
    }

    fn run_until_told(
        mut self,
        exit_with_stdin: bool,
        mut interruption: Interruption,
        out: &Output,
    ) -> Outcome {
        let outcome = block_on(async {
            let mut watch = tokio::time::interval(Duration::from_millis(200));
            // Four times a day: the timestamp is valid for a week.
            let mut fresh = tokio::time::interval(Duration::from_secs(6 * 3600));
            fresh.tick().await;
            let mut logs = tokio::time::interval(Duration::from_secs(10));
            let stdin_ended = stdin_end(exit_with_stdin);
            tokio::pin!(stdin_ended);
            loop {
                tokio::select! {
                    () = interruption.asked() => return Ok(()),
                    () = &mut stdin_ended => return Ok(()),
                    _ = watch.tick() => self.check()?,
                    _ = logs.tick() => self.servers.iter_mut().for_each(Server::bound_log),
                    _ = fresh.tick() => repository::keep_fresh(&self.layout)
                        .unwrap_or_else(|failure| out.note(failure.line())),
                }
            }
        });
        out.line("stopping");
        self.stop();
        outcome.map(|()| Exit::Ok)
    }

    fn summary(&self, out: &Output) -> String {
        let mut lines = vec![out.paint(Tone::Strong, format!("stack in {}", self.layout.root().display()))];
        let mut row = |name: &str, text: &str| lines.push(format!("  {name:<22} {text}"));
        if let Some(ca) = &self.file.ca {
            row("certificate authority", &ca.url);
        }
        for (kind, log) in &self.file.logs {
            row(&format!("{kind} log"), &format!("{}  {}", log.url, log.origin));
        }
        if let Some(tsa) = &self.file.tsa {
            row("timestamp authority", &tsa.url);
        }
        if let Some(executor) = &self.file.executor {
            row("executor", &format!("{}  gRPC {}", executor.url, executor.grpc));
        }
        if let Some(oidc) = &self.file.oidc {
            row("development issuer", &oidc.url);
            row("", "vouches for ANY address to whoever reads its secret; trust it nowhere else");
        }
        if let Some(tuf) = &self.file.tuf {
            row("trust metadata", &format!("{}  root {}", tuf.url, tuf.root.display()));
        }
        if let Some(authority) = &self.file.tls_ca {
            row("TLS authority", &authority.display().to_string());
        }
        row("for scripts", &self.layout.root().join(STACK_FILE).display().to_string());
        lines.push(format!("use it with: export MENTAT_STACK={}", self.layout.root().display()));
        lines.push("Ctrl-C stops it".to_owned());
        lines.join("\n")
    }
}

/// Begins to serve the development issuer and the trust files.
fn listen(
    layout: &Layout,
    ports: &Ports,
    port: u16,
    key: JoinHandle<Outcome<DeveloperKey>>,
) -> Outcome<Listener> {
    let key = key.join().map_err(|_| Failure::failed("making the issuer's key"))??;
    let issuer = Issuer::new(&ports.url(port), key, &read_secret(&layout.oidc_secret())?)?;
    let (layout, tls) = (layout.clone(), layout.tls());
    let answer = move |request: &Request| {
        published::answer(&layout, request)
            .or_else(|| issuer.answer(request, clock::now()))
            .unwrap_or_else(|| Answer::text(StatusCode::NOT_FOUND, "nothing is served at this path"))
    };
    let tls = match ports.transport {
        Transport::Http => None,
        Transport::Https => Some(super::acceptor::acceptor(&Pair::named(&tls, config::SERVER))?),
    };
    Listener::start(port, tls, Arc::new(answer))
}

/// Ends when standard input does; never, if that was not asked for. A thread of its own waits: a read through the
/// runtime could not be abandoned when something else ends the stack first.
async fn stdin_end(wanted: bool) {
    if !wanted {
        return std::future::pending().await;
    }
    let (send, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0_u8; 64];
        while matches!(std::io::stdin().read(&mut buffer), Ok(1..)) {}
        let _ = send.send(());
    });
    let _ = ended.await;
}

/// Configuration files hold text: a name that is none would come out of them as a path that does not exist.
fn nameable(dir: &Path) -> Outcome<()> {
    match dir.to_str() {
        Some(_) => Ok(()),
        None => Err(Failure::refused(format!("the name of {} is not UTF-8 text", dir.display()))
            .hint("choose another --dir: the servers' configuration files name it")),
    }
}

fn refused(failure: Failure) -> Failure {
    Failure { exit: Exit::Refused, ..failure }
}

fn only_the_lock(layout: &Layout) -> bool {
    let lock = layout.lock_file();
    std::fs::read_dir(layout.root())
        .is_ok_and(|mut entries| entries.all(|entry| entry.is_ok_and(|entry| entry.path() == lock)))
}

fn stop_all(servers: &mut Vec<Server>) {
    while let Some(mut server) = servers.pop() {
        server.stop();
    }
}

/// Holds the folder of a stack; one program at a time does.
///
/// # Errors
/// Exit code 78 when another holds it.
pub fn lock(layout: &Layout) -> Outcome<File> {
    let path = layout.lock_file();
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .or_fail(Exit::Refused, format!("cannot write {}", path.display()))?;
    let another = || {
        Failure::refused(format!("another `mentatctl up` runs in {}", layout.root().display()))
            .hint("stop it with Ctrl-C, or choose another --dir")
    };
    file.try_lock().map_err(|_| another())?;
    // An interrupted first start takes its folder away: a lock on a file that is gone keeps nobody out.
    let there = std::fs::metadata(&path).ok().zip(file.metadata().ok());
    match there {
        Some((there, held)) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => Ok(file),
        _ => Err(another()),
    }
}

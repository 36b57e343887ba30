//! `trust rotate`: new keys for every role, without making less good what the old ones signed.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hsm::PassphraseSource;
use trust_store_files::tuf::Role;

use super::distribution;
use crate::exit::{Exit, Failure, Outcome};
use crate::home::Home;
use crate::output::Output;
use crate::stack::{self, LogRole};

/// `trust rotate`.
#[derive(Debug, Args)]
pub struct Rotate {
    /// Folder of the repository [default: that of the stack]
    #[arg(long, value_name = "DIR", requires_all = ["keystore", "passphrase"])]
    repository: Option<PathBuf>,
    /// Folder of the keystore with its keys
    #[arg(long, value_name = "DIR", requires = "repository")]
    keystore: Option<PathBuf>,
    /// Where the keystore's passphrase is: file:PATH, env:NAME or credential:NAME
    #[arg(long, value_name = "SOURCE", requires = "repository")]
    passphrase: Option<PassphraseSource>,
    /// Roles of the repository that get new keys; may be repeated. Without any role, authority or log its root is renewed
    /// with the same keys
    #[arg(long = "role", value_enum, value_name = "ROLE")]
    roles: Vec<RoleName>,
    /// Authority of the stopped stack that gets a new key; may be repeated
    #[arg(long = "authority", value_enum, value_name = "NAME")]
    authorities: Vec<AuthorityName>,
    /// Log of the stopped stack of which a new shard begins, with new keys; may be repeated
    #[arg(long = "log", value_enum, value_name = "KIND")]
    logs: Vec<LogRole>,
}

/// A role on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Names the keys of every role
    Root,
    /// Names the list of targets
    Snapshot,
    /// Names the targets
    Targets,
    /// Names the newest snapshot
    Timestamp,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Root => Self::Root,
            RoleName::Snapshot => Self::Snapshot,
            RoleName::Targets => Self::Targets,
            RoleName::Timestamp => Self::Timestamp,
        }
    }
}

/// An authority on the command line. Where `[approvals]` names approvers, the root and the CAs below it are a matter of a ceremony.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AuthorityName {
    /// Issues to people and pipelines; its successor gets a responder of its own
    CodeSigning,
    /// Answers for the status of certificates
    OcspResponder,
    /// Certifies the CAs that are made from then on; give those new keys after the next start
    Root,
    /// Signs statements about revocations for the event log
    Statement,
    /// Issues to the time-stamp authority, which gets a new key too
    TimeStamping,
    /// Signs time stamps
    TimestampAuthority,
}

impl AuthorityName {
    /// As the authority's own program calls it.
    fn as_str(self) -> &'static str {
        match self {
            Self::CodeSigning => "code-signing",
            Self::OcspResponder => "ocsp-responder",
            Self::Root => "root",
            Self::Statement => "statement",
            Self::TimeStamping => "time-stamping",
            Self::TimestampAuthority => "timestamp-authority",
        }
    }
}

/// Runs `trust rotate`.
///
/// # Errors
/// Exit code 1 when keys are not the repository's, 2 when no stack is named where one is needed, 78 when the stack runs or a
/// server refuses.
pub fn run(rotate: &Rotate, home: &Home, out: &Output) -> Outcome {
    let of_stack = !rotate.authorities.is_empty() || !rotate.logs.is_empty();
    if of_stack {
        let authorities: Vec<_> = rotate.authorities.iter().map(|name| name.as_str()).collect();
        stack::rotate(stack_of(home)?, &authorities, &rotate.logs, out)?;
    }
    if of_stack && rotate.roles.is_empty() && rotate.repository.is_none() {
        return Ok(Exit::Ok);
    }
    let roles: Vec<Role> = rotate.roles.iter().copied().map(Role::from).collect();
    match (&rotate.repository, &rotate.keystore, &rotate.passphrase) {
        (Some(folder), Some(keystore), Some(passphrase)) => {
            let keys = distribution::open_keys(keystore, passphrase)?;
            distribution::rotate(folder, &keys, &roles, out)?;
        }
        _ => {
            let (folder, keys) = stack::repository_keys(stack_of(home)?)?;
            distribution::rotate(&folder, &keys, &roles, out)?;
        }
    }
    Ok(Exit::Ok)
}

fn stack_of(home: &Home) -> Outcome<&std::path::Path> {
    home.stack_dir().ok_or_else(|| {
        Failure::usage("neither a repository nor a stack is named")
            .hint("give --stack DIR, or --repository, --keystore and --passphrase")
    })
}

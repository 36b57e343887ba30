//! `pki incident` for a certificate of the authority's own: what descends from it. Nothing is ordered here. Whoever checks whole chains
//! refuses all of it once that one certificate is revoked, and `pki revoke` does that; but for a root, of which nobody asks whether it is
//! revoked: it is trusted for as long as a trusted root names it.

use std::collections::BTreeSet;
use std::path::Path;

use ca_api::client::{CaClient, ClientError};
use ca_api::{
    Authority, AuthorityRole, CertificateRecord, CertificateState, ListQuery, Revocation, RevocationSelection,
};
use serde::Serialize;
use serde_json::{Value, json};
use trust_store::{Certificate, UnixTime};

use super::incident::{MOST_PAGES, MOST_SHOWN, PAGE, show_certificates};
use super::{ca_failure, time_text};
use crate::clock;
use crate::exit::{Failure, OrFail as _, Outcome};
use crate::net::block_on;
use crate::output::Output;

/// What ends the trust in a root.
const ANCHOR_ENDS: &str = "verifiers trust a root until it is taken out of their trusted root; make its successor \
                                      (ca-service renew --authority root) and publish a trusted root without it";

/// What ends the trust in everything below a CA's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Its revocation: it is below a root.
    Revocation,
    /// Another trusted root: it is a root's own certificate, and an anchor.
    TrustedRoot,
    /// Both: another CA certified a root's key. Who trusts that one alone asks whether it revoked this; who trusts the root asks nothing.
    Both,
}

impl Ends {
    fn of(is_self_issued: bool, is_of_a_root: bool) -> Self {
        match (is_self_issued, is_of_a_root) {
            (true, _) => Self::TrustedRoot,
            (false, true) => Self::Both,
            (false, false) => Self::Revocation,
        }
    }

    /// What to do; before a command that revokes, and before what is to be done about an anchor, stands what the caller says of it.
    fn said(self, path: &Path, revoke: &str, anchor: &str) -> String {
        match self {
            Self::Revocation => {
                format!("{revoke}: mentatctl pki revoke --cert {} --reason ca-compromise", path.display())
            }
            Self::TrustedRoot => format!("{anchor}{ANCHOR_ENDS}"),
            Self::Both => format!(
                "for who trusts the CA that issued this certificate, all of it ends once that one revokes it; of the root itself, \
                 {ANCHOR_ENDS}"
            ),
        }
    }
}

/// An authority, and what is below it.
struct Authorities {
    /// Its name.
    name: String,
    /// Names of all whose certificates descend from it, itself among them.
    issuers: BTreeSet<String>,
}

/// How many certificates descend, and how they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    /// All that are recorded.
    certificates: u64,
    /// Good by themselves: what the revocation of the authority ends.
    standing: u64,
    revoked: u64,
    /// Past their ends, and not revoked before.
    expired: u64,
    /// Ended before a signature, or not there yet.
    unsigned: u64,
}

/// What descends, newest first.
#[derive(Debug, Default)]
struct Descent {
    counts: Counts,
    certificates: Vec<CertificateRecord>,
    not_shown: u64,
}

impl Descent {
    fn take(&mut self, record: CertificateRecord, now: UnixTime) {
        use CertificateState::{Abandoned, Intent, Signing};
        let counts = &mut self.counts;
        counts.certificates += 1;
        match record.state {
            _ if record.revocation.is_some() => counts.revoked += 1,
            Intent | Signing | Abandoned => counts.unsigned += 1,
            _ if record.not_after < now.0 => counts.expired += 1,
            _ => counts.standing += 1,
        }
        if self.certificates.len() < MOST_SHOWN {
            self.certificates.push(record);
        } else {
            self.not_shown += 1;
        }
    }
}

/// Shows what descends from a CA's certificate; the report. `orders` is whether it is to be ordered, too: the CA's own are in no order, and
/// what descends from them ends with them, or with the trust in a root.
///
/// # Errors
/// Exit code 2 where the certificate is none of this authority's, and where something is to be ordered; what the authority refuses.
pub(super) fn run(
    path: &Path,
    certificate: &Certificate,
    orders: bool,
    wanted: &RevocationSelection,
    client: &CaClient,
    out: &Output,
) -> Outcome<Value> {
    let began = clock::now();
    let known = block_on(async { client.authorities().await.map_err(ca_failure) })?;
    let Authorities { name, issuers } = named(certificate, &known.authorities)?.ok_or_else(|| {
        Failure::usage(format!("{} is no CA of this authority", path.display()))
            .hint("give one of its certificates, such as chains/code-signing.pem, or that of a developer")
    })?;
    // A root by another CA's certificate is the same key, and an anchor all the same.
    let is_of_a_root =
        known.authorities.iter().any(|one| one.name == name && one.role == AuthorityRole::Root);
    let ends = Ends::of(certificate.is_self_issued(), is_of_a_root);
    if orders {
        let what = format!("{} is a CA's: what descends from it is shown, and not ordered", path.display());
        return Err(Failure::usage(what).hint(ends.said(path, "revoke the CA itself", "")));
    }
    let serial = hex::encode(certificate.serial());
    let (descent, revocation) = {
        let _spinner = out.spinner("looking for certificates");
        let descent = block_on(descending(client, &issuers, &serial, wanted, began))?;
        (descent, block_on(revocation_of(client, &serial))?)
    };
    match &revocation {
        Some(revoked) => out.line(format!("{name} is revoked as of {}", time_text(revoked.revoked_at))),
        None => out.line(format!("{name} is not revoked")),
    }
    let below: Vec<&String> = issuers.iter().filter(|issuer| **issuer != name).collect();
    for authority in &below {
        out.line(format!("below it: {authority}"));
    }
    let Counts { certificates, standing, revoked, expired, unsigned } = descent.counts;
    out.line(format!(
        "{certificates} certificates descend from it: {standing} standing, {revoked} revoked, {expired} expired, \
         {unsigned} never signed"
    ));
    show_certificates(&descent.certificates, descent.not_shown, out)?;
    if let Some(oldest) = descent.certificates.last().filter(|_| descent.not_shown > 0) {
        // The bound is not in it: of the oldest one's second there may be more.
        let before = time_text(oldest.created_at.saturating_add(1));
        out.line(format!("older ones: the same with --issued-before {before}"));
    }
    if ends != Ends::Revocation || revocation.is_none() {
        out.line(ends.said(path, "all of it ends with the CA", "revoking it ends nothing below it: "));
    }
    Ok(json!({
        "ok": true,
        "began_at": began.0,
        "ended_at": clock::now().0,
        "authority": name,
        "serial": serial,
        "revocation": revocation,
        "ends_with_revocation": ends != Ends::TrustedRoot,
        "below": below,
        "counts": descent.counts,
        "certificates": descent.certificates,
        "not_shown": descent.not_shown,
    }))
}

/// Which authority a certificate is of, by itself or by its key, and what descends from that.
fn named(certificate: &Certificate, known: &[Authority]) -> Outcome<Option<Authorities>> {
    let read = |pem: &String| {
        Certificate::from_pem(pem).or_fail(crate::exit::Exit::Failure, "the authority's answer")
    };
    let has_key = |pem: &String| Ok(read(pem)?.spki_der() == certificate.spki_der());
    let mut name = None;
    let mut issuers = BTreeSet::new();
    for authority in known {
        let Some(own) = &authority.certificate else { continue };
        if has_key(own)? {
            name = Some(authority.name.clone());
            issuers.insert(authority.name.clone());
        }
        for above in &authority.chain {
            if has_key(above)? {
                issuers.insert(authority.name.clone());
            }
        }
    }
    Ok(name.map(|name| Authorities { name, issuers }))
}

async fn descending(
    client: &CaClient,
    issuers: &BTreeSet<String>,
    own: &str,
    wanted: &RevocationSelection,
    now: UnixTime,
) -> Outcome<Descent> {
    let mut descent = Descent::default();
    let mut after = None;
    for _ in 0..MOST_PAGES {
        let query = ListQuery {
            identity: wanted.identity.clone(),
            created_from: wanted.issued_from,
            created_before: wanted.issued_before,
            limit: Some(PAGE),
            after,
            ..ListQuery::default()
        };
        let page = client.list(&query).await.map_err(ca_failure)?;
        for record in page.certificates {
            let meant = issuers.contains(&record.issuer)
                && record.serial != own
                && wanted.issuer.as_ref().is_none_or(|issuer| *issuer == record.issuer)
                && wanted.profile.as_ref().is_none_or(|profile| *profile == record.profile);
            if meant {
                descent.take(record, now);
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(descent);
        }
    }
    Err(Failure::failed("the authority lists more certificates than can be looked at")
        .hint("name a shorter time: --issued-from and --issued-before"))
}

/// How the certificate itself stands; none also where the authority has no record of it, as of one that another root made.
async fn revocation_of(client: &CaClient, serial: &str) -> Outcome<Option<Revocation>> {
    match client.show(serial).await {
        Ok(record) => Ok(record.revocation),
        Err(ClientError::Problem(problem)) if problem.status == 404 => Ok(None),
        Err(error) => Err(ca_failure(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(number: usize, state: CertificateState, not_after: i64) -> CertificateRecord {
        CertificateRecord {
            serial: format!("{number:04x}"),
            issuer: "code-signing".to_owned(),
            profile: "developer".to_owned(),
            identity: None,
            state,
            not_before: 0,
            not_after,
            crl_shard: 0,
            created_at: 0,
            spki_sha256: String::new(),
            certificate: None,
            log_index: None,
            revocation: None,
        }
    }

    #[test]
    fn a_cross_certificate_of_a_root_ends_by_its_issuers_revocation_and_a_root_by_another_trusted_root() {
        let said = |is_self_issued: bool, is_of_a_root: bool| {
            let ends = Ends::of(is_self_issued, is_of_a_root);
            ends.said(Path::new("a.pem"), "ends with the CA", "revoking it ends nothing: ")
        };
        let (below, root, cross) = (said(false, false), said(true, true), said(false, true));
        assert_eq!(below, "ends with the CA: mentatctl pki revoke --cert a.pem --reason ca-compromise");
        assert_eq!(root, format!("revoking it ends nothing: {ANCHOR_ENDS}"));
        assert_eq!(said(true, false), root);
        assert!(cross.contains("once that one revokes it") && cross.contains(ANCHOR_ENDS), "{cross}");
        assert!(!cross.contains("ends nothing") && !cross.contains("pki revoke"), "{cross}");
    }

    #[test]
    fn everything_is_counted_by_how_it_stands_and_the_newest_thousand_are_shown() {
        let mut descent = Descent::default();
        let now = UnixTime(100);
        for number in 0..MOST_SHOWN {
            descent.take(record(number, CertificateState::Delivered, 100), now);
        }
        descent.take(record(5_000, CertificateState::Delivered, 99), now);
        descent.take(record(5_001, CertificateState::Abandoned, 99), now);
        // What may have been signed counts as if it was.
        descent.take(record(5_002, CertificateState::MaybeIssued, 100), now);
        let counts = Counts { certificates: 1_003, standing: 1_001, revoked: 0, expired: 1, unsigned: 1 };
        assert_eq!(descent.counts, counts);
        assert_eq!((descent.certificates.len(), descent.not_shown), (MOST_SHOWN, 3));
        assert_eq!(descent.certificates[0].serial, "0000");
    }
}

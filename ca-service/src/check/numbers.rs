//! Numbers of lists: each one up to the highest was allotted, or a restore skipped it, and each list that was published is the one that the
//! audit trail announces by its number.

use std::collections::HashSet;

use super::trail::Trail;
use super::{NOW, PAGE, Report};
use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{CrlPart, ListNumber, StoredCrl};

/// How records name a list among those of its issuer.
pub(super) fn of_part(part: CrlPart) -> i64 {
    match part {
        CrlPart::Complete => -1,
        CrlPart::Delta => -2,
        CrlPart::Shard(shard) => i64::from(shard.0),
    }
}

/// Judges the numbers of every list, of authorities that this process does not know, too.
pub(super) async fn judge(
    authority: &CertificateAuthority,
    trail: &Trail,
    report: &mut Report,
) -> Result<(), CaError> {
    let published = authority.store().published_crls().await?;
    let lists = authority.store().allotted_numbers().await?;
    let mut walks = Vec::new();
    // The numbers of a delta are those of the complete list that it came with.
    for (issuer, part, allotted) in lists.iter().filter(|(_, part, _)| *part != CrlPart::Delta) {
        let newest = published.iter().find(|crl| crl.issuer == *issuer && crl.part == *part);
        let mut walk = Walk::of(trail, issuer, *part, newest);
        loop {
            let page = authority.store().list_numbers(issuer, *part, walk.last, PAGE).await?;
            if page.is_empty() {
                break;
            }
            page.iter().for_each(|number| walk.step(number));
        }
        // Of the highest number there is a row, or a restore skipped what was after the last one.
        walk.skip_to(allotted.saturating_add(1));
        walks.push((issuer, *part, *allotted, walk));
    }
    // A number that was allotted while they were read may be among them: none is above the highest of now.
    let highest = authority.store().allotted_numbers().await?;
    for (issuer, part, allotted, walk) in walks {
        let now = highest.iter().find(|(name, of, _)| name == issuer && *of == part);
        let findings = walk.end(now.map_or(allotted, |(.., highest)| *highest));
        report
            .findings
            .extend(findings.into_iter().map(|finding| format!("list {issuer} {part:?}: {finding}")));
    }
    Ok(())
}

/// The numbers of one list, from the first to the last.
struct Walk<'a> {
    trail: &'a Trail,
    issuer: &'a str,
    part: i64,
    newest: Option<&'a StoredCrl>,
    last: u64,
    /// Restores whose skip was not met yet.
    restores: &'a [u64],
    /// What the trail announces and was not met.
    announced: HashSet<u64>,
    findings: Vec<String>,
}

impl<'a> Walk<'a> {
    fn of(trail: &'a Trail, issuer: &'a str, part: CrlPart, newest: Option<&'a StoredCrl>) -> Self {
        let part = of_part(part);
        Self {
            trail,
            issuer,
            part,
            newest,
            last: 0,
            restores: trail.skipped(),
            announced: trail.numbers(issuer, part).collect(),
            findings: Vec::new(),
        }
    }

    fn step(&mut self, found: &ListNumber) {
        self.skip_to(found.number);
        self.last = found.number;
        let announced = self.trail.sha256(self.issuer, self.part, found.number);
        self.announced.remove(&found.number);
        let recorded = found.sha256.map(hex::encode);
        if recorded.as_deref() != announced {
            let number = found.number;
            self.findings.push(format!("of number {number} the audit trail announces another list, or none"));
        }
        let is_newest = self.newest.is_some_and(|newest| newest.number == found.number);
        if is_newest && found.sha256 != self.newest.map(|newest| newest.sha256) {
            self.findings.push("what is published is not what was recorded by its number".to_owned());
        }
    }

    /// What lies between the last number and the next one was skipped by restores, one after the other, or is missing.
    fn skip_to(&mut self, next: u64) {
        let mut missing = next.saturating_sub(self.last).saturating_sub(1);
        while missing > 0
            && let Some((skipped, others)) = self.restores.split_first()
            && *skipped <= missing
        {
            missing -= skipped;
            self.restores = others;
        }
        if missing > 0 {
            self.findings.push(format!(
                "between its numbers {} and {next}, {missing} were neither allotted nor skipped by a restore",
                self.last
            ));
        }
    }

    fn end(mut self, highest: u64) -> Vec<String> {
        if self.last > highest {
            self.findings
                .push(format!("a number above its highest was used{NOW}{} above {highest})", self.last));
        }
        if let Some(newest) = self.newest
            && newest.number > self.last
        {
            self.findings.push(format!("what is published was never allotted{NOW}number {})", newest.number));
        }
        let mut lost: Vec<u64> = self.announced.into_iter().collect();
        lost.sort_unstable();
        self.findings.extend(
            lost.into_iter()
                .map(|number| format!("the audit trail announces its number {number}, which has no record")),
        );
        self.findings
    }
}

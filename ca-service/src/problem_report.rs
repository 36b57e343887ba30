//! Reports of problems with certificates (R1; CSBR §4.9.1): each has a time by which it must be decided, and is seen until it is.

use ca_api::{ProblemGround, ProblemReport, ReportProblem};
use ca_pki::SerialNumber;

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::storage::{NewProblem, StoreError};

/// Characters of what is said of a problem, and of a decision.
pub const MAX_TEXT: usize = 2_000;
/// Most reports that may be open: each is written by somebody with a role, and seen by people.
const MOST_OPEN: u32 = 1_000;
/// Most of one who reports: a quarter is left to others, whatever one of them does.
const MOST_OPEN_OF_ONE: u32 = MOST_OPEN / 4 * 3;
const DAY: i64 = 86_400;

/// Why nothing comes of a report, or of a decision about one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReportRefusal {
    /// Somebody decided before.
    #[error("the report is decided")]
    Closed,
    /// As many are open as may, or as may be of whoever reports.
    #[error("as many reports are open as may, or as may be of one who reports; decide some of them")]
    Full,
    /// There is no such report.
    #[error("there is no such report")]
    Unknown,
}

impl ReportRefusal {
    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Closed => "report_closed",
            Self::Full => "reports_full",
            Self::Unknown => "report_unknown",
        }
    }
}

/// How long there is to decide, in seconds.
fn time_to_decide(ground: ProblemGround, of_authority: bool) -> i64 {
    let days = match ground {
        // The certificate of a CA below the root has a week, whatever the ground.
        _ if of_authority => 7,
        ProblemGround::SubscriberRequest | ProblemGround::KeyCompromise | ProblemGround::SuspectCode => 1,
        ProblemGround::Other => 5,
    };
    days * DAY
}

impl CertificateAuthority {
    /// Records a report; its number, and until when it must be decided.
    ///
    /// # Errors
    /// [`CaError::OutOfRange`] for the texts, [`CaError::CertificateUnknown`], [`ReportRefusal::Full`], [`CaError::Store`].
    pub async fn report_problem(&self, asked: &ReportProblem, actor: &str) -> Result<ProblemReport, CaError> {
        let detail = text("detail", &asked.detail)?;
        let serial = SerialNumber::from_hex(&asked.serial).map_err(|_| CaError::CertificateUnknown)?;
        let received_at = self.clock.now()?;
        let record = self.store.certificate(&serial).await?.ok_or(CaError::CertificateUnknown)?;
        // The authority's own carry no identity. Of others the profile may be gone from the configuration.
        let of_authority = record.identity.is_none();
        let due_at = received_at.plus(time_to_decide(asked.ground, of_authority));
        let new = NewProblem {
            serial,
            ground: asked.ground,
            detail: detail.to_owned(),
            actor: actor.to_owned(),
            received_at,
            due_at,
            most_open: MOST_OPEN,
            most_open_of_actor: MOST_OPEN_OF_ONE,
        };
        let id = self.store.report_problem(new).await.map_err(|error| match error {
            StoreError::QueueFull(_) => CaError::Report(ReportRefusal::Full),
            error => error.into(),
        })?;
        self.tend_after().await;
        self.problem(id).await
    }

    /// One report.
    ///
    /// # Errors
    /// [`ReportRefusal::Unknown`], [`CaError::Store`].
    pub async fn problem(&self, id: i64) -> Result<ProblemReport, CaError> {
        self.store.problem(id).await?.ok_or(CaError::Report(ReportRefusal::Unknown))
    }

    /// Decides that a certificate stands, whatever was reported.
    ///
    /// # Errors
    /// [`CaError::OutOfRange`] for the text, [`ReportRefusal`], [`CaError::Store`].
    pub async fn close_problem(&self, id: i64, decision: &str, actor: &str) -> Result<(), CaError> {
        let decision = text("decision", decision)?;
        let closed = self.store.close_problem(id, decision, actor, self.clock.now()?).await;
        closed.map_err(|error| match error {
            StoreError::NotFound => CaError::Report(ReportRefusal::Unknown),
            StoreError::StateConflict => CaError::Report(ReportRefusal::Closed),
            error => error.into(),
        })?;
        self.tend_after().await;
        Ok(())
    }

    /// Tends the reports after a change that is recorded, and reported as such whatever comes of this: the reconciler does it again.
    async fn tend_after(&self) {
        if let Err(error) = self.tend_problems().await {
            tracing::warn!(%error, "reports of problems could not be looked at");
        }
    }

    /// Closes the reports that a revocation decides, and says which wait too long. The reconciler's part.
    ///
    /// # Errors
    /// [`CaError::Store`].
    pub async fn tend_problems(&self) -> Result<(), CaError> {
        let found = self.store.tend_problems(self.clock.for_records()).await?;
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.problems_open.set(gauge(found.open));
        let overdue_before = self.metrics.problems_overdue.set(gauge(found.overdue));
        self.metrics.problems_first_due.set(found.first_due.map_or(0, |due| due.0));
        if found.overdue > 0 && gauge(found.overdue) > overdue_before {
            tracing::error!(overdue = found.overdue, "reported problems should have been decided");
        }
        Ok(())
    }
}

fn text<'a>(field: &'static str, text: &'a str) -> Result<&'a str, CaError> {
    let text = text.trim();
    if text.is_empty() || text.chars().count() > MAX_TEXT {
        return Err(CaError::OutOfRange { field, reason: "it has 1 to 2000 characters" });
    }
    Ok(text)
}

//! Waiting for a certificate: for a moment while the authority works on it, and for as long as people need who must approve it.
//!
//! While it waits for people, only the request's id is asked about. The enrolment is repeated once they have decided: with the same
//! token, request id and key, so that whoever was interrupted goes on where they were.

use std::time::Duration;

use ca_api::client::{CaClient, ClientError};
use ca_api::possession::Renew;
use ca_api::{Enrol, IssuedCertificate, RequestState, RequestStatus};

use super::time_text;
use crate::clock::Stopwatch;
use crate::output::Output;

/// How long one call keeps asking while the authority says that the certificate is on its way.
const PATIENCE: Duration = Duration::from_secs(15);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(500);
/// First pause while people decide; it grows to [`LONGEST`], for they may need days.
const SHORTEST: Duration = Duration::from_secs(1);
/// Longest pause while people decide.
const LONGEST: Duration = Duration::from_secs(15);

/// What to do about a certificate that people must approve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approval {
    /// Ask for it and end.
    Ask,
    /// Wait until they have decided.
    Await,
}

/// Enrols, and waits as far as it is wanted.
///
/// # Errors
/// [`ClientError::AwaitsApproval`] when people have to approve it and nobody waits; as enrolment otherwise.
pub async fn enrol(
    client: &CaClient,
    enrol: &Enrol,
    approval: Approval,
    out: &Output,
) -> Result<IssuedCertificate, ClientError> {
    loop {
        let spinner = out.spinner("waiting for the certificate authority");
        let answer = patiently(async || client.enrol(enrol).await).await;
        drop(spinner);
        match answer {
            Err(ClientError::AwaitsApproval(status)) if approval == Approval::Await => {
                decided(client, *status, out).await?;
            }
            answer => return answer,
        }
    }
}

/// Renews; for people who must approve it nobody waits.
///
/// # Errors
/// [`ClientError::AwaitsApproval`] when people have to approve it; as enrolment otherwise.
pub async fn renew(client: &CaClient, renew: &Renew, out: &Output) -> Result<IssuedCertificate, ClientError> {
    let _spinner = out.spinner("waiting for the certificate authority");
    patiently(async || client.renew(renew).await).await
}

/// Asks again while the authority says that the answer will come.
async fn patiently(
    ask: impl AsyncFn() -> Result<IssuedCertificate, ClientError>,
) -> Result<IssuedCertificate, ClientError> {
    let watch = Stopwatch::start();
    loop {
        match ask().await {
            Err(error) if is_on_its_way(&error) && watch.elapsed() < PATIENCE => {
                tokio::time::sleep(PAUSE).await;
            }
            answer => return answer,
        }
    }
}

fn is_on_its_way(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some("issuance_pending" | "log_unavailable" | "store_unavailable" | "signing_unavailable")
    )
}

/// Waits until a request does not wait any more, whatever came of it: the enrolment says that.
async fn decided(client: &CaClient, first: RequestStatus, out: &Output) -> Result<(), ClientError> {
    out.note(format!(
        "request {} waits for {} approvals until {}; Ctrl-C leaves it standing, and the same command with the same token goes on",
        first.id,
        first.approvals_needed,
        time_text(first.expires_at)
    ));
    let spinner = out.spinner(said(&first));
    let (mut pause, mut given) = (SHORTEST, first.approvals_given);
    loop {
        tokio::time::sleep(pause).await;
        pause = LONGEST.min(pause * 2);
        let status = match client.request_status(&first.id).await {
            Ok(status) => status,
            // Whoever waits for days outlives restarts and networks.
            Err(ClientError::Transport { .. }) => continue,
            Err(ClientError::Problem(problem)) if problem.status >= 500 || problem.status == 429 => continue,
            Err(error) => return Err(error),
        };
        if status.state != RequestState::Waiting {
            return Ok(());
        }
        spinner.say(said(&status));
        if status.approvals_given != given {
            given = status.approvals_given;
            out.note(said(&status));
        }
    }
}

fn said(status: &RequestStatus) -> String {
    format!("{} of {} people approved the request", status.approvals_given, status.approvals_needed)
}

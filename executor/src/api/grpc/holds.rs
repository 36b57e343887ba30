//! Holds over gRPC: the orders of `executor_api::hold` in the messages of the service.

use executor_api::hold::{Calls, HeldAgent, Hold, HoldReport, HoldRequest, Releases};
use executor_api::v1;
use tonic::Status;

use super::invalid;

pub(super) fn request(request: v1::HoldReleasesRequest) -> Result<HoldRequest, Status> {
    let calls = match request.calls() {
        v1::Calls::Drain => Calls::Drain,
        v1::Calls::Stop => Calls::Stop,
        v1::Calls::Unspecified => return Err(invalid("`calls` is CALLS_DRAIN or CALLS_STOP")),
    };
    let named = request.releases.unwrap_or_default();
    let releases = Releases {
        agent: named.agent,
        certificate: named.certificate,
        digest: named.digest,
        from_log_index: named.from_log_index,
        issuer: named.issuer,
        log_index: named.log_index,
        serial: named.serial,
        signer: named.signer,
    };
    let (drain_seconds, dry_run) = (request.drain_seconds, request.dry_run);
    Ok(HoldRequest { releases, calls, drain_seconds, reason: request.reason, dry_run })
}

pub(super) fn report(report: HoldReport) -> v1::HoldReport {
    v1::HoldReport {
        hold: Some(hold(report.hold)),
        dry_run: report.dry_run,
        agents: report.agents.into_iter().map(held).collect(),
    }
}

pub(super) fn hold(hold: Hold) -> v1::Hold {
    let Hold { id, releases, calls, drain_seconds, reason, since } = hold;
    let calls = match calls {
        Calls::Drain => v1::Calls::Drain,
        Calls::Stop => v1::Calls::Stop,
    };
    let releases = v1::Releases {
        agent: releases.agent,
        certificate: releases.certificate,
        digest: releases.digest,
        from_log_index: releases.from_log_index,
        issuer: releases.issuer,
        log_index: releases.log_index,
        serial: releases.serial,
        signer: releases.signer,
    };
    v1::Hold { id, releases: Some(releases), calls: calls.into(), drain_seconds, reason, since }
}

fn held(agent: HeldAgent) -> v1::HeldAgent {
    let HeldAgent { agent_id, digest, signer, certificate, log_index, instances } = agent;
    v1::HeldAgent { agent_id, digest, signer, certificate, log_index, instances }
}

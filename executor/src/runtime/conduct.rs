//! What a guest did that outlives it, whatever its end: what it asked for, and what it was refused.

use trust_store::capability::CapabilityKind;

use super::rates::Refused;

/// Most different refusals of capabilities of one call that are kept as text.
const MAX_NOTES: usize = 32;

/// As many different refusals of requests over the network fit beside them: a call has that many requests, and one more text
/// for all that go beyond.
const MAX_NETWORK_NOTES: usize = 40;

/// How a request for a capability ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The text is no capability.
    Malformed,
    /// It has it now.
    Granted,
    /// Its manifest or the policy does not give it.
    Refused,
}

impl Asked {
    /// The stable text.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Granted => "granted",
            Self::Refused => "denied",
        }
    }
}

/// The conduct of one call. Most calls have none, so none is made for them.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    requests: Vec<(Option<CapabilityKind>, Asked, u64)>,
    refusals: Vec<(&'static str, u64)>,
    notes: Vec<Note>,
    more_notes: u64,
    /// Requests sent to other hosts, and bytes each way.
    pub(crate) network: NetworkUse,
    /// Host calls that came too fast.
    pub(crate) too_fast: Refused,
}

/// A refusal, and how often it came.
#[derive(Debug)]
struct Note {
    reason: &'static str,
    text: String,
    times: u64,
}

/// Whether a refusal is one of a request over the network.
pub(crate) fn is_of_network(reason: &str) -> bool {
    reason.starts_with("egress_")
}

/// Whether a refusal is one of an extension that was invoked.
pub(crate) fn is_of_extension(reason: &str) -> bool {
    reason.starts_with("extension_")
}

/// What a call used of the network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct NetworkUse {
    /// Requests begun.
    pub(crate) requests: u32,
    /// Bytes of bodies sent.
    pub(crate) sent: u64,
    /// Bytes of bodies received.
    pub(crate) received: u64,
}

impl Conduct {
    /// Counts a request for a capability.
    pub(crate) fn asked(&mut self, kind: Option<CapabilityKind>, asked: Asked) {
        match self.requests.iter_mut().find(|(known, how, _)| (*known, *how) == (kind, asked)) {
            Some((_, _, count)) => *count += 1,
            None => self.requests.push((kind, asked, 1)),
        }
    }

    /// Counts a refusal, and keeps it for the audit record. Refused capabilities cost a guest nothing, so they take no room from
    /// refused requests.
    pub(crate) fn refused(&mut self, reason: &'static str, text: String) {
        match self.refusals.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, count)) => *count += 1,
            None => self.refusals.push((reason, 1)),
        }
        if let Some(note) = self.notes.iter_mut().find(|note| note.reason == reason && note.text == text) {
            note.times += 1;
            return;
        }
        let network = is_of_network(reason);
        let kept = self.notes.iter().filter(|note| is_of_network(note.reason) == network).count();
        if kept < if network { MAX_NETWORK_NOTES } else { MAX_NOTES } {
            self.notes.push(Note { reason, text, times: 1 });
        } else {
            self.more_notes += 1;
        }
    }

    /// Requests for capabilities by kind and end.
    pub(crate) fn requests(&self) -> &[(Option<CapabilityKind>, Asked, u64)] {
        &self.requests
    }

    /// Every refusal, by its reason.
    pub(crate) fn refusals(&self) -> &[(&'static str, u64)] {
        &self.refusals
    }

    /// The lines of the audit record.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |Note { reason, text, times }: &Note| match times {
            1 => format!("{reason}: {text}"),
            times => format!("{reason}: {text} ({times} times)"),
        };
        let mut lines: Vec<String> = self.notes.iter().map(line).collect();
        if self.more_notes > 0 {
            lines.push(format!("{} more", self.more_notes));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_counted_and_not_kept() {
        let mut conduct = Conduct::default();
        for n in 0..1000 {
            conduct.refused("capability_denied", format!("env:E{n}"));
            conduct.asked(Some(CapabilityKind::Network), Asked::Granted);
            conduct.asked(None, Asked::Malformed);
        }
        assert_eq!(conduct.lines().len(), MAX_NOTES + 1);
        assert_eq!(conduct.lines().last().unwrap(), "968 more");
        assert_eq!(
            conduct.requests(),
            [(Some(CapabilityKind::Network), Asked::Granted, 1000), (None, Asked::Malformed, 1000)]
        );
        assert_eq!(conduct.refusals(), [("capability_denied", 1000)]);
    }

    #[test]
    fn what_costs_a_guest_nothing_hides_no_request_that_was_refused() {
        let mut conduct = Conduct::default();
        for n in 0..1000 {
            conduct.refused("capability_denied", format!("env:E{}", n % 40));
        }
        for n in 0..32 {
            conduct.refused("egress_denied_address", format!("10.0.0.{n}"));
        }
        for _ in 0..500 {
            conduct.refused("egress_quota", "the call has used its share of the network".into());
        }
        let lines = conduct.lines();
        assert!(lines.contains(&"capability_denied: env:E0 (25 times)".to_owned()), "{lines:?}");
        for n in 0..32 {
            assert!(lines.contains(&format!("egress_denied_address: 10.0.0.{n}")), "{n}: {lines:?}");
        }
        assert!(lines.iter().any(|line| line.starts_with("egress_quota") && line.ends_with("(500 times)")));
        assert_eq!(
            conduct.refusals(),
            [("capability_denied", 1000), ("egress_denied_address", 32), ("egress_quota", 500)]
        );
    }
}

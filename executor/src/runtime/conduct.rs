//! What a guest did that outlives it, whatever its end: what it asked for, and what it was refused.

use trust_store::capability::CapabilityKind;

/// Most refusals of one call that are kept as text.
const MAX_NOTES: usize = 32;

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
    notes: Vec<(&'static str, String)>,
    more_notes: u64,
    /// Requests sent to other hosts, and bytes each way.
    pub(crate) network: NetworkUse,
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

    /// Keeps a refusal for the audit record.
    pub(crate) fn refused(&mut self, reason: &'static str, text: String) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push((reason, text));
        } else {
            self.more_notes += 1;
        }
    }

    /// Requests for capabilities by kind and end.
    pub(crate) fn requests(&self) -> &[(Option<CapabilityKind>, Asked, u64)] {
        &self.requests
    }

    /// Refusals that were kept.
    pub(crate) fn refusals(&self) -> &[(&'static str, String)] {
        &self.notes
    }

    /// The lines of the audit record.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            self.notes.iter().map(|(reason, text)| format!("{reason}: {text}")).collect();
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
        for _ in 0..1000 {
            conduct.refused("egress_denied_address", "10.0.0.1".into());
            conduct.asked(Some(CapabilityKind::Network), Asked::Granted);
            conduct.asked(None, Asked::Malformed);
        }
        assert_eq!(conduct.lines().len(), MAX_NOTES + 1);
        assert_eq!(conduct.lines().last().unwrap(), "968 more");
        assert_eq!(
            conduct.requests(),
            [(Some(CapabilityKind::Network), Asked::Granted, 1000), (None, Asked::Malformed, 1000)]
        );
    }
}

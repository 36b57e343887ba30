//! How much work one verification may cost, however hostile its input (architecture rule 8).

use crate::reason::{Denial, ReasonCode};

/// The work that is left. Shared by everything one verification does.
///
/// The defaults let every honest case through with an order of magnitude to spare and end the worst hostile one
/// within 100 ms: 100 signature checks cost at most 40 ms (P-384 0.18 ms, P-521 0.4 ms natively), 400,000 steps at
/// most 40 ms (a step is at most one short comparison; long ones are charged by their length). A whole verification has one
/// such budget for all its paths and all evidence, and a meter of signature checks: with the most further bundles 40 ms of
/// steps and 57 ms of checks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Budget {
    /// Signature checks that may still be made.
    pub signature_checks: u32,
    /// Comparisons, candidates and policy nodes that may still be looked at.
    pub steps: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { signature_checks: 100, steps: 400_000 }
    }
}

impl Budget {
    /// For an attestation with this many further bundles, each of which may be an honest one with a chain of its own: that
    /// takes checks of it, whose sum a meter bounds, and not a hundredth of the steps.
    pub(crate) fn for_bundles(further: usize) -> Self {
        let further = u32::try_from(further).unwrap_or(u32::MAX);
        let Self { signature_checks, steps } = Self::default();
        Self { signature_checks: signature_checks.saturating_add(further.saturating_mul(14)), steps }
    }

    /// Takes one signature check over a message of `length` octets off: reading a long message costs steps.
    ///
    /// # Errors
    /// `budget_exceeded` when none is left.
    pub fn spend_signature_check(&mut self, length: usize) -> Result<(), Denial> {
        self.spend_steps(length / 64)?;
        self.signature_checks = self.signature_checks.checked_sub(1).ok_or(exceeded("signature checks"))?;
        Ok(())
    }

    /// Takes `steps` off.
    ///
    /// # Errors
    /// `budget_exceeded` when fewer are left.
    pub fn spend_steps(&mut self, steps: usize) -> Result<(), Denial> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps = self.steps.checked_sub(steps).ok_or(exceeded("steps"))?;
        Ok(())
    }

    /// Takes the cost of comparing two texts or names of these lengths off.
    pub(crate) fn spend_comparison(&mut self, length: usize) -> Result<(), Denial> {
        self.spend_steps(1 + length / 64)
    }
}

fn exceeded(what: &'static str) -> Denial {
    match what {
        "steps" => Denial::new(ReasonCode::BudgetExceeded, "the budget of steps is used up"),
        _ => Denial::new(ReasonCode::BudgetExceeded, "the budget of signature checks is used up"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_with_its_reason() {
        let mut budget = Budget { signature_checks: 1, steps: 3 };
        assert!(budget.spend_signature_check(63).is_ok());
        assert_eq!(budget.spend_signature_check(0).unwrap_err().code, ReasonCode::BudgetExceeded);
        let mut long = Budget { signature_checks: 2, steps: 3 };
        assert!(long.spend_signature_check(255).is_ok());
        assert_eq!(long.spend_signature_check(64).unwrap_err().code, ReasonCode::BudgetExceeded);
        assert!(budget.spend_comparison(127).is_ok());
        assert_eq!(budget.spend_steps(2).unwrap_err().code, ReasonCode::BudgetExceeded);
        assert!(budget.spend_steps(1).is_ok());
    }
}

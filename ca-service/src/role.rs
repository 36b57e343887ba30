//! Roles: who may do what through the interface, however somebody was recognised.
//!
//! | role | may |
//! |---|---|
//! | auditor | list and show certificates, and report problems with them |
//! | approver | that, approve and deny requests, and see what an order to revoke many would do, before they sign it |
//! | issuer | what auditors may, and make one-time tokens |
//! | administrator | everything |
//!
//! Approver and issuer are beside each other: neither may do what the other may. What only a quorum may do (the root's key, the
//! revocation of many) is decided by signatures over the exact intent (`approval`), which no role replaces.

use crate::authority::CertificateAuthority;
use crate::error::CaError;
use crate::oidc::OidcError;
use crate::oidc::claims::EmailProof;
use crate::storage::{StoreError, UsedIdentityToken};
use crate::token_refusal::Purpose;

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Auditor,
    /// Approves and denies requests, sees what orders would do.
    Approver,
    /// Lets others enrol.
    Issuer,
    /// Everything.
    Administrator,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Everything that only roles may do and that is nothing else.
    Administer,
    /// Make a one-time token.
    CreateToken,
    /// Approve or deny requests that wait for people.
    DecideRequests,
    /// See what an order to revoke many would do.
    PlanRevocations,
    /// List and show.
    Read,
    /// Write down what is said to be wrong with a certificate.
    ReportProblem,
}

impl Role {
    /// As audit records begin an actor's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auditor => "auditor",
            Self::Approver => "approver",
            Self::Issuer => "issuer",
            // What records of before roles existed have.
            Self::Administrator => "admin",
        }
    }

    /// Whether the role reaches so far.
    #[must_use]
    pub fn may(self, action: Action) -> bool {
        match action {
            Action::Read | Action::ReportProblem => true,
            Action::DecideRequests | Action::PlanRevocations => {
                matches!(self, Self::Approver | Self::Administrator)
            }
            Action::CreateToken => matches!(self, Self::Issuer | Self::Administrator),
            Action::Administer => self == Self::Administrator,
        }
    }
}

impl Action {
    /// The least role that may.
    #[must_use]
    pub fn least_role(self) -> Role {
        match self {
            Self::Read | Self::ReportProblem => Role::Auditor,
            Self::DecideRequests | Self::PlanRevocations => Role::Approver,
            Self::CreateToken => Role::Issuer,
            Self::Administer => Role::Administrator,
        }
    }

    /// Whether an identity token serves for it once only: who overhears one must not be able to change anything with it.
    #[must_use]
    pub fn uses_up(self) -> bool {
        matches!(self, Self::Administer | Self::CreateToken | Self::DecideRequests | Self::ReportProblem)
    }
}

/// Somebody whom an identity token named, in the role that reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleHolder {
    /// The role.
    pub role: Role,
    /// The name that audit records carry: `oidc:ISSUER#SUBJECT`.
    pub name: String,
    /// The e-mail address that the token says.
    pub email: Option<(String, EmailProof)>,
}

impl CertificateAuthority {
    /// Recognises the bearer of an identity token as somebody who may do this now. For what changes something the token is used
    /// up, durably, before this returns.
    ///
    /// # Errors
    /// [`CaError::Oidc`] for the token, [`CaError::RoleInsufficient`], [`CaError::Store`].
    pub async fn role_holder(&self, token: &str, action: Action) -> Result<RoleHolder, CaError> {
        let now = self.clock.now()?;
        let token = self.verified_token(token, Purpose::Role).await?;
        let holder = match self.issuers.recognise(&token, now) {
            Ok(holder) => holder,
            Err(refusal) => return Err(self.refuse_token(&token, Purpose::Role, refusal).await),
        };
        // The lowest that reaches: what is done is done in that role.
        let role = holder.roles.iter().filter(|role| role.may(action)).min().copied();
        let Some(role) = role else {
            return Err(self.refuse_token(&token, Purpose::Role, CaError::RoleInsufficient(action)).await);
        };
        if action.uses_up() {
            let used = UsedIdentityToken {
                hash: holder.replay_key,
                made_at: holder.made_at,
                forgotten_at: holder.serves_until,
            };
            match self.store.use_identity_token(used, now).await {
                Ok(()) => {}
                Err(StoreError::TokenUsed) => {
                    return Err(self.refuse_token(&token, Purpose::Role, OidcError::Used).await);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(RoleHolder { role, name: holder.name, email: holder.email })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Action; 6] = [
        Action::Read,
        Action::ReportProblem,
        Action::PlanRevocations,
        Action::DecideRequests,
        Action::CreateToken,
        Action::Administer,
    ];

    #[test]
    fn each_role_may_its_own_and_no_more() {
        let may = |role: Role| ALL.map(|action| role.may(action));
        assert_eq!(may(Role::Auditor), [true, true, false, false, false, false]);
        assert_eq!(may(Role::Approver), [true, true, true, true, false, false]);
        assert_eq!(may(Role::Issuer), [true, true, false, false, true, false]);
        assert_eq!(may(Role::Administrator), [true; 6]);
        for action in ALL {
            assert!(action.least_role().may(action), "{action:?}");
        }
    }
}

//! In which order steps may stand, and which authority each makes: on a new authority, and on one in use.
//!
//! On one in use, a CA that issues gets a successor beside it, with everything that belongs to it: its OCSP responder, or a
//! new certificate of the time-stamp authority. The root and the key of statements are never made anew.

use super::description::Make;
use crate::authority::names;

/// Which authority a step makes, and who signs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Name of the authority; none for cross-certificates and lists.
    pub(super) name: Option<String>,
    /// Name of the authority that signs; none for what signs itself or is no certificate.
    pub(super) issuer: Option<String>,
}

/// The steps so far.
pub(super) struct Order {
    founds: bool,
    there: Vec<String>,
    /// Those of `there` that this ceremony made.
    made: Vec<String>,
    /// Whether a cross-certificate or a list was signed, by the authorities of that moment.
    extended: bool,
}

impl Order {
    /// Over the authorities that are there; none when the ceremony founds one.
    pub(super) fn over<'a>(there: impl Iterator<Item = &'a String>) -> Self {
        let there: Vec<String> = there.cloned().collect();
        Self { founds: there.is_empty(), there, made: Vec::new(), extended: false }
    }

    /// Places the next step.
    ///
    /// # Errors
    /// Why it cannot stand here.
    pub(super) fn next(&mut self, make: Make) -> Result<Place, &'static str> {
        let place = if self.founds { first(make) } else { self.later(make)? };
        if place.issuer.as_ref().is_some_and(|issuer| !self.there.contains(issuer)) {
            return Err("its issuer is not there yet");
        }
        match &place.name {
            None => self.extended = true,
            Some(name) if self.made.contains(name) => return Err("it is made twice"),
            Some(_) if self.extended && !self.founds => {
                return Err("new authorities come before cross-certificates and lists");
            }
            Some(name) => {
                self.made.push(name.clone());
                self.there.push(name.clone());
            }
        }
        Ok(place)
    }

    /// Whether nothing is missing after the last step.
    ///
    /// # Errors
    /// What is.
    pub(super) fn finish(&self) -> Result<(), String> {
        let without = |missing: &str| Err(format!("after the last step there is no {missing}"));
        if let Some(missing) = names::ALL.iter().find(|name| !self.there.iter().any(|there| there == *name)) {
            return without(missing);
        }
        for name in self.made.iter().filter(|_| !self.founds) {
            match names::split(name) {
                Some((names::CODE_SIGNING, number)) => {
                    let responder = names::generation(names::OCSP_RESPONDER, number);
                    if !self.made.contains(&responder) {
                        return without(&responder);
                    }
                }
                Some((names::TIME_STAMPING, _))
                    if !self.made.iter().any(|made| made == names::TIMESTAMP_AUTHORITY) =>
                {
                    return without("new certificate of the time-stamp authority");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// What a step makes where there is an authority already.
    fn later(&self, make: Make) -> Result<Place, &'static str> {
        let newest = |kind| names::generation(kind, self.newest(kind));
        let place = match make {
            Make::Root | Make::StatementKey => {
                return Err("the authority exists; its root and the key of its statements are not made anew");
            }
            Make::CodeSigningIssuer | Make::TimeStampingIssuer => {
                let kind = make.authority().unwrap_or_default();
                if self.made.iter().any(|made| names::split(made).is_some_and(|(made, _)| made == kind)) {
                    return Err("it is made twice");
                }
                let name = names::generation(kind, self.newest(kind).saturating_add(1));
                Place { name: Some(name), issuer: Some(newest(names::ROOT)) }
            }
            Make::OcspResponder => {
                let name = names::generation(names::OCSP_RESPONDER, self.newest(names::CODE_SIGNING));
                if self.there.contains(&name) {
                    return Err(
                        "the newest CA for code signing has a responder; `renew` gives that a new key",
                    );
                }
                Place { name: Some(name), issuer: Some(newest(names::CODE_SIGNING)) }
            }
            Make::TimestampAuthority => {
                let issuer = newest(names::TIME_STAMPING);
                if !self.made.contains(&issuer) {
                    return Err("without a new CA for time stamps, `renew` gives their authority a new key");
                }
                Place { name: Some(names::TIMESTAMP_AUTHORITY.to_owned()), issuer: Some(issuer) }
            }
            Make::CrossCertificate => Place { name: None, issuer: Some(newest(names::ROOT)) },
            Make::RevocationLists => first(make),
        };
        Ok(place)
    }

    /// The number of the newest authority of a kind.
    fn newest(&self, kind: &str) -> u32 {
        let numbers = self.there.iter().filter_map(|name| names::split(name));
        numbers.filter(|(found, _)| *found == kind).map(|(_, number)| number).max().unwrap_or(1)
    }
}

/// What a step makes at the founding.
fn first(make: Make) -> Place {
    Place { name: make.authority().map(str::to_owned), issuer: make.issuer().map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_use(more: &[&str]) -> Order {
        let there: Vec<String> = names::ALL.iter().chain(more).map(|name| (*name).to_owned()).collect();
        Order::over(there.iter())
    }

    fn place(name: &str, issuer: &str) -> Place {
        Place { name: Some(name.to_owned()), issuer: Some(issuer.to_owned()) }
    }

    #[test]
    fn a_successor_is_made_with_what_belongs_to_it() {
        let mut order = in_use(&["code-signing-2", "ocsp-responder-2"]);
        assert_eq!(order.next(Make::CodeSigningIssuer), Ok(place("code-signing-3", "root")));
        assert_eq!(order.finish(), Err("after the last step there is no ocsp-responder-3".to_owned()));
        assert_eq!(order.next(Make::OcspResponder), Ok(place("ocsp-responder-3", "code-signing-3")));
        assert_eq!(order.finish(), Ok(()));
        assert_eq!(order.next(Make::TimeStampingIssuer), Ok(place("time-stamping-2", "root")));
        assert!(order.finish().unwrap_err().contains("time-stamp authority"));
        let anew = place("timestamp-authority", "time-stamping-2");
        assert_eq!(order.next(Make::TimestampAuthority), Ok(anew));
        assert_eq!(order.next(Make::RevocationLists), Ok(Place { name: None, issuer: None }));
        assert_eq!(order.finish(), Ok(()));
    }

    #[test]
    fn after_a_rotation_the_newest_root_certifies() {
        let mut order = in_use(&["root-2"]);
        assert_eq!(order.next(Make::CodeSigningIssuer), Ok(place("code-signing-2", "root-2")));
        let by_the_newest = Place { name: None, issuer: Some("root-2".to_owned()) };
        assert_eq!(order.next(Make::CrossCertificate), Ok(by_the_newest));
    }

    #[test]
    fn an_interrupted_succession_is_finished_or_made_again() {
        let mut order = in_use(&["code-signing-2"]);
        assert_eq!(order.next(Make::OcspResponder), Ok(place("ocsp-responder-2", "code-signing-2")));
        let mut order = in_use(&["code-signing-2"]);
        assert_eq!(order.next(Make::CodeSigningIssuer), Ok(place("code-signing-3", "root")));
    }

    #[test]
    fn what_cannot_stand_on_an_authority_in_use_is_refused() {
        for (steps, reason) in [
            (&[Make::Root][..], "the authority exists"),
            (&[Make::StatementKey], "the authority exists"),
            (&[Make::OcspResponder], "`renew`"),
            (&[Make::TimestampAuthority], "`renew`"),
            (&[Make::CodeSigningIssuer, Make::CodeSigningIssuer], "made twice"),
            (&[Make::CodeSigningIssuer, Make::OcspResponder, Make::CodeSigningIssuer], "made twice"),
            (&[Make::CodeSigningIssuer, Make::OcspResponder, Make::OcspResponder], "`renew`"),
            (&[Make::TimeStampingIssuer, Make::TimestampAuthority, Make::TimestampAuthority], "made twice"),
            (&[Make::RevocationLists, Make::CodeSigningIssuer], "come before"),
        ] {
            let mut order = in_use(&[]);
            let (last, before) = steps.split_last().unwrap();
            before.iter().for_each(|make| drop(order.next(*make).unwrap()));
            let refused = order.next(*last).unwrap_err();
            assert!(refused.contains(reason), "{steps:?}: {refused}");
        }
    }
}

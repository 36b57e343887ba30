//! The authority's status as relying parties get it (ca-requirements §4, self-checks): lists, certificates and an OCSP answer are fetched
//! by their public addresses, verified as a verifier does, and compared with what this process publishes.
//!
//! What is wrong there is seen nowhere else: the authority publishes and signs, and a cache, a proxy or a name that leads elsewhere
//! shows something older, somebody else's, or nothing. Until the addresses were reached once nothing is said: not every authority
//! reaches its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ca_pki::UnixTime;
use ca_pki::ocsp::{CertId, CertIdHash, CertStatus, OcspRequest};
use service::StartRefusal;
use trust_store::Certificate;
use trust_store::crl::{Crl, CrlNumber};
use trust_store::ocsp::{CertificateStatus, OcspResponse};
use trust_store::provider::AwsLc;

use crate::authority::{CertificateAuthority, LoadedAuthority, names};
use crate::config::Settings;
use crate::error::CaError;
use crate::publisher::PublishedCrl;
use crate::responder::status;
use crate::storage::{CrlPart, Search, StoredCertificate};

/// Longest time for one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// An answer that has more than this, and than twice what is published here, is not read.
const LARGEST: usize = 256 * 1024;
/// Newest certificates among which one is looked for to ask about.
const NEWEST: u32 = 50;
/// The complete list of an issuer with shards is large: it is fetched in one of so many rounds.
const COMPLETE_EACH: u64 = 12;
/// Shards of an issuer that are fetched in a round: of 128 each is seen in less than three hours, at five minutes a round.
const SHARDS_EACH: u16 = 4;
/// Lists that were wrong and are fetched again in a round. Of more, those behind wait until some of them are right.
const WRONG_EACH: usize = 16;

/// What is wrong with something that was fetched. The words stand in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// Nobody answered.
    #[error("it cannot be fetched: {0}")]
    Unreached(String),
    /// Somebody answered otherwise than with it.
    #[error("the answer is {0}")]
    Refused(u16),
    /// It is too large to be it.
    #[error("it is much larger than what is published")]
    TooLarge,
    /// It cannot be read or does not verify, or is over.
    #[error("a verifier refuses it: {0}")]
    Unusable(String),
    /// It is not what is published, or another part of it.
    #[error("{0}")]
    Differs(&'static str),
}

/// One object, and what is wrong with it.
pub type Seen = (String, Result<(), Wrong>);

/// Where to look, and what was seen.
pub struct OutsideView {
    http: reqwest::Client,
    base: String,
    round: u64,
    reached: bool,
    /// Numbers of the lists that were published here when they were fetched last.
    published: BTreeMap<(String, CrlPart), u64>,
    /// Lists that were wrong when they were fetched last. They are fetched in every round, and are not right before they were seen to be.
    wrong: BTreeMap<(String, CrlPart), Wrong>,
}

impl OutsideView {
    /// The view of what is below `status_url`, where one is wanted.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn configured(settings: &Settings) -> Result<Option<Self>, StartRefusal> {
        let wanted = settings.config.status.outside_view_seconds > 0;
        wanted.then(|| Self::of(&settings.config.status_url)).transpose()
    }

    /// A view of what is below a base, as it stands in certificates.
    ///
    /// # Errors
    /// [`StartRefusal`] when no HTTP client can be made.
    pub fn of(base: &str) -> Result<Self, StartRefusal> {
        let http = service::ClientTls::default().client_for(base, PATIENCE)?;
        let (published, wrong) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { http, base: base.to_owned(), round: 0, reached: false, published, wrong })
    }

    async fn fetch(&mut self, path: &str, limit: usize) -> Result<Vec<u8>, Wrong> {
        let failed = |error: reqwest::Error| Wrong::Unreached(service::exit::one_line(&error));
        let mut answer = self.http.get(format!("{}{path}", self.base)).send().await.map_err(failed)?;
        self.reached = true;
        if answer.status() != http::StatusCode::OK {
            return Err(Wrong::Refused(answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(failed)? {
            if chunk.len() > limit.saturating_sub(body.len()) {
                return Err(Wrong::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

impl CertificateAuthority {
    /// Looks once at some lists of each issuer, others in each round, at the certificates, and at the answer about a certificate of the CA
    /// that issues. Nothing where the addresses have never been reached.
    ///
    /// # Errors
    /// [`CaError`] of store or clock, and where another server took the records over: then nothing is known.
    pub async fn look_from_outside(&self, view: &mut OutsideView) -> Result<Vec<Seen>, CaError> {
        self.still_serves()?;
        let mut seen = Vec::new();
        for authority in self.authorities.values() {
            let Some(issuer) = &authority.issuer else { continue };
            let certificate = readable(&authority.certificate)?;
            let path = issuer.status.certificate();
            let found = view.fetch(below(&path, &issuer.status.base), LARGEST).await;
            let found = found.and_then(|found| {
                if found == authority.certificate {
                    Ok(())
                } else {
                    Err(Wrong::Differs("it is another certificate"))
                }
            });
            seen.push((format!("certificate/{}", authority.name), found));
            seen.extend(self.look_at_lists(view, authority, &certificate).await?);
        }
        if let Some(found) = self.look_at_answer(view).await? {
            seen.push(found);
        }
        view.round += 1;
        if !view.reached {
            view.wrong.clear();
            seen.clear();
        }
        Ok(seen)
    }

    /// The lists of an issuer whose turn it is, and those that were wrong: one outcome for the complete list, and one for its shards.
    async fn look_at_lists(
        &self,
        view: &mut OutsideView,
        authority: &LoadedAuthority,
        certificate: &Certificate,
    ) -> Result<Vec<Seen>, CaError> {
        let Some(issuer) = &authority.issuer else { return Ok(Vec::new()) };
        let is_of = |(name, _): &&(String, CrlPart)| *name == authority.name;
        let mut parts = parts_of_round(authority, view.round);
        let again = view.wrong.keys().filter(is_of).map(|(_, part)| *part).take(WRONG_EACH);
        let again: Vec<CrlPart> = again.filter(|part| !parts.contains(part)).collect();
        parts.extend(again);
        let mut looked_at = Vec::new();
        for part in parts {
            let url = match part {
                CrlPart::Shard(shard) => issuer.status.crl(shard),
                _ => issuer.status.full_crl(),
            };
            let place = (authority.name.clone(), part);
            match self.look_at_list(view, authority, certificate, part, &url).await? {
                None => {
                    view.wrong.remove(&place);
                    continue;
                }
                Some(Ok(())) => {
                    view.wrong.remove(&place);
                }
                Some(Err(wrong)) => {
                    tracing::debug!(url = url.as_str(), %wrong, "a list is not served as it is published");
                    view.wrong.insert(place, wrong);
                }
            }
            looked_at.push(kind(part));
        }
        let outcome = |of: &str| {
            let wrong =
                view.wrong.iter().find(|((name, part), _)| *name == authority.name && kind(*part) == of);
            wrong.map_or(Ok(()), |(_, wrong)| Err(wrong.clone()))
        };
        let kinds = [COMPLETE, SHARD].into_iter().filter(|kind| looked_at.contains(kind));
        Ok(kinds.map(|kind| (format!("{kind}/{}", authority.name), outcome(kind))).collect())
    }

    async fn look_at_list(
        &self,
        view: &mut OutsideView,
        authority: &LoadedAuthority,
        certificate: &Certificate,
        part: CrlPart,
        url: &str,
    ) -> Result<Option<Result<(), Wrong>>, CaError> {
        let base = authority.issuer.as_ref().map_or("", |issuer| &issuer.status.base);
        let Some(before) = self.published_crl(&authority.name, part) else { return Ok(None) };
        let limit = before.der.len().saturating_mul(2).max(LARGEST);
        let fetched = view.fetch(below(url, base), limit).await;
        // What was published while it was fetched may be there already.
        let Some(own) = self.published_crl(&authority.name, part) else { return Ok(None) };
        let earlier = view.published.insert((authority.name.clone(), part), before.number);
        let now = self.clock.now()?;
        let every_cache_saw =
            now.plus(-i64::try_from(self.time_between_looks().as_secs()).unwrap_or(i64::MAX));
        let certificate = certificate.clone();
        let expected = Expected { own, earlier, every_cache_saw };
        let judged = tokio::task::spawn_blocking(move || judge_list(&fetched?, &certificate, &expected, now));
        let judged = judged.await.map_err(|_| CaError::Inconsistent("a look from outside ended early"))?;
        Ok(Some(judged))
    }

    /// The answer about the newest certificate that is good.
    async fn look_at_answer(&self, view: &mut OutsideView) -> Result<Option<Seen>, CaError> {
        let now = self.clock.now()?;
        let newest = self.store.search(Search { limit: NEWEST, ..Search::default() }).await?;
        let mut asked = None;
        for stored in &newest {
            let of_a_signer =
                names::split(&stored.issuer).is_some_and(|(kind, _)| kind == names::CODE_SIGNING);
            if of_a_signer && stored.identity.is_some() && self.says_good(stored, now).await? {
                asked = Some(stored);
                break;
            }
        }
        let Some(stored) = asked else { return Ok(None) };
        let (authority, issuer) = self.issuer(&stored.issuer)?;
        let id = CertId::new(CertIdHash::Sha256, &issuer.name, &issuer.public_key, stored.serial.clone());
        let request = STANDARD.encode(OcspRequest::for_certificate(id).to_der());
        let request = request.replace('/', "%2F").replace('+', "%2B");
        let path = issuer.status.ocsp();
        let fetched = view.fetch(&format!("{}/{request}", below(&path, &issuer.status.base)), LARGEST).await;
        let now = self.clock.now()?;
        let (certificate, issuer) = (self.assembled(stored)?, readable(&authority.certificate)?);
        let judged = fetched.and_then(|der| judge_answer(&der, &certificate, &issuer, now));
        // A revocation between says what it says.
        let judged = if self.says_good(stored, now).await? { judged } else { Ok(()) };
        Ok(Some((format!("ocsp/{}", authority.name), judged)))
    }

    async fn says_good(&self, stored: &StoredCertificate, now: UnixTime) -> Result<bool, CaError> {
        let recorded = self.store.status(&stored.issuer, &stored.serial).await?;
        Ok(recorded.is_some_and(|recorded| status(&recorded, now.0) == CertStatus::Good))
    }

    /// How long there is between two looks: caches keep a list for the publish interval.
    fn time_between_looks(&self) -> Duration {
        let every = Duration::from_secs(self.settings.config.status.outside_view_seconds.into());
        every.max(self.settings.publish_interval.saturating_mul(2))
    }

    /// Looks for ever, every so often.
    pub async fn run_outside_view(self: Arc<Self>, mut view: OutsideView) {
        let every = self.time_between_looks();
        let mut told = false;
        loop {
            // The first look is not at what the start has only just published.
            tokio::time::sleep(every).await;
            let seen = match self.look_from_outside(&mut view).await {
                Ok(seen) => seen,
                Err(error) => {
                    tracing::warn!(%error, "no look from outside");
                    continue;
                }
            };
            if seen.is_empty() && !told {
                let url = view.base.as_str();
                tracing::info!(
                    url,
                    "status_url is not reached from here: nothing is said of what is served there"
                );
                told = true;
            }
            for (object, outcome) in seen {
                self.metrics.saw_outside(&object, outcome.is_ok());
                if let Err(error) = outcome {
                    tracing::error!(object, %error, "relying parties are not served what is published");
                }
            }
        }
    }
}

/// What lists are called in the log and in metrics.
const COMPLETE: &str = "list";
const SHARD: &str = "shard";

fn kind(part: CrlPart) -> &'static str {
    if part == CrlPart::Complete { COMPLETE } else { SHARD }
}

/// The lists of an issuer that are fetched in a round: some shards in turn, and the complete list now and then.
fn parts_of_round(authority: &LoadedAuthority, round: u64) -> Vec<CrlPart> {
    if authority.shards <= 1 {
        return vec![CrlPart::Complete];
    }
    let first = round.wrapping_mul(SHARDS_EACH.into());
    let turns = (0..SHARDS_EACH.min(authority.shards)).map(|turn| {
        let shard = first.wrapping_add(turn.into()) % u64::from(authority.shards);
        CrlPart::Shard(ca_pki::serial::Shard(u16::try_from(shard).unwrap_or_default()))
    });
    let complete = round.is_multiple_of(COMPLETE_EACH).then_some(CrlPart::Complete);
    complete.into_iter().chain(turns).collect()
}

/// The part of an address after its base: a view may be of another one.
fn below<'a>(url: &'a str, base: &str) -> &'a str {
    url.strip_prefix(base).unwrap_or(url)
}

fn readable(der: &[u8]) -> Result<Certificate, CaError> {
    Certificate::from_der(der).map_err(|_| CaError::Inconsistent("a certificate of the CA cannot be read"))
}

fn unusable(denial: trust_store::Denial) -> Wrong {
    Wrong::Unusable(denial.to_string())
}

/// What a list is held against.
struct Expected {
    /// The list that is published.
    own: Arc<PublishedCrl>,
    /// The number of the one that was when it was fetched before: since then every cache had time to see it.
    earlier: Option<u64>,
    /// What was published before then every cache had time to see, too.
    every_cache_saw: UnixTime,
}

fn judge_list(der: &[u8], issuer: &Certificate, expected: &Expected, now: UnixTime) -> Result<(), Wrong> {
    let own = &expected.own;
    let list = Crl::from_der(der).map_err(unusable)?;
    if list.issuer_name() != issuer.subject_name() {
        return Err(Wrong::Differs("it is the list of another issuer"));
    }
    list.verify_signature(issuer, &AwsLc).map_err(unusable)?;
    if let Some(reason) = list.unusable() {
        return Err(Wrong::Unusable(reason.to_owned()));
    }
    if !list.is_current(now) {
        return Err(Wrong::Unusable("it is over, or of the future".to_owned()));
    }
    // Each part has numbers of its own, which say nothing of another's.
    let mine = Crl::from_der(&own.der).map_err(unusable)?;
    if list.distribution_point_der() != mine.distribution_point_der()
        || list.base_number() != mine.base_number()
    {
        return Err(Wrong::Differs("it is another part of the list"));
    }
    let octets = list.number().map_or(&[][..], CrlNumber::octets);
    let number = octets
        .iter()
        .try_fold(0_u64, |number, octet| number.checked_mul(256).map(|number| number | u64::from(*octet)));
    match number {
        Some(number) if number == own.number && own.der != der => {
            Err(Wrong::Differs("it is another list of the same number"))
        }
        Some(number) if number > own.number => Err(Wrong::Differs("it is newer than what is published")),
        Some(number) if expected.earlier.is_some_and(|earlier| number < earlier) => {
            Err(Wrong::Differs("it is older than what was published at the look before"))
        }
        Some(number) if number < own.number && own.this_update < expected.every_cache_saw.0 => {
            Err(Wrong::Differs("it is older than what was published long ago"))
        }
        Some(_) => Ok(()),
        None => Err(Wrong::Differs("it has a number that was never given")),
    }
}

/// Holds an answer against the record of a certificate that is good.
fn judge_answer(der: &[u8], certificate: &[u8], issuer: &Certificate, now: UnixTime) -> Result<(), Wrong> {
    let answer = OcspResponse::from_der(der).map_err(unusable)?;
    if let Some(reason) = answer.unusable() {
        return Err(Wrong::Unusable(reason.to_owned()));
    }
    answer.find_responder(issuer, now, &AwsLc).map_err(unusable)?;
    let certificate = Certificate::from_der(certificate).map_err(unusable)?;
    let said = answer.responses_for(&certificate, issuer).next();
    match said {
        None => Err(Wrong::Differs("it is about another certificate")),
        Some(said) if !said.is_current(now) => {
            Err(Wrong::Unusable("it is over, or of the future".to_owned()))
        }
        Some(said) if said.status() != CertificateStatus::Good => {
            Err(Wrong::Differs("it does not call a certificate good that is"))
        }
        Some(_) => Ok(()),
    }
}

//! A request in the words of the schema.

use std::collections::{HashMap, HashSet};
use std::str::FromStr as _;

use cedar_policy::{Entity, EntityId, EntityTypeName, EntityUid, RestrictedExpression};
use trust_store::capability::{Capability, FileAccess, Protocol};
use trust_store::capability_rules::CapabilityRequest;

type Attributes = HashMap<String, RestrictedExpression>;

/// Who asks, the action, and what is asked for.
pub(crate) fn of(request: &CapabilityRequest<'_>) -> Result<(Entity, EntityUid, Entity), String> {
    let agent = entity(
        "Agent",
        request.agent,
        [
            ("id", text(request.agent)),
            ("version", text(request.version)),
            ("signer", text(request.signer)),
            ("issuer", text(request.issuer.unwrap_or_default())),
            ("level", text(request.level.as_str())),
        ],
    )?;
    let (kind, attributes) = attributes(request.capability);
    let resource = entity(kind, &request.capability.to_string(), attributes)?;
    let action = uid("Action", request.capability.kind().as_str())?;
    Ok((agent, action, resource))
}

fn attributes(capability: &Capability) -> (&'static str, Vec<(&'static str, RestrictedExpression)>) {
    match capability {
        Capability::Compute(limits) => {
            let named = |name, limit: Option<u64>| {
                // From 2^53 on no manifest names a limit.
                limit.map(|limit| {
                    (name, RestrictedExpression::new_long(i64::try_from(limit).unwrap_or(i64::MAX)))
                })
            };
            let limits = [
                named("memory", limits.memory_bytes),
                named("cpu_ms", limits.cpu_ms),
                named("wall_ms", limits.wall_ms),
            ];
            ("Compute", limits.into_iter().flatten().collect())
        }
        Capability::Env(name) => ("Env", vec![("name", text(name.as_str()))]),
        Capability::Extension { name, argument } => {
            let argument = argument.as_deref().map(|argument| ("argument", text(argument)));
            ("Extension", [("name", text(name))].into_iter().chain(argument).collect())
        }
        Capability::Filesystem { access, path } => {
            let access = match access {
                FileAccess::Read => "read",
                FileAccess::Write => "write",
            };
            ("Filesystem", vec![("access", text(access)), ("path", text(path.as_str()))])
        }
        Capability::Network { protocol, host, port } => {
            let protocol = match protocol {
                Protocol::Http => "http",
                Protocol::Https => "https",
                Protocol::Tcp => "tcp",
            };
            let attributes = [
                ("protocol", text(protocol)),
                ("host", text(&host.to_string())),
                ("wildcard", RestrictedExpression::new_bool(host.is_wildcard())),
            ];
            let port = port.map(|port| ("port", RestrictedExpression::new_long(i64::from(port))));
            ("Network", attributes.into_iter().chain(port).collect())
        }
    }
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn entity(
    kind: &str,
    name: &str,
    attributes: impl IntoIterator<Item = (&'static str, RestrictedExpression)>,
) -> Result<Entity, String> {
    let attributes: Attributes =
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Entity::new(uid(kind, name)?, attributes, HashSet::new()).map_err(|error| error.to_string())
}

fn uid(kind: &str, name: &str) -> Result<EntityUid, String> {
    let kind = EntityTypeName::from_str(&format!("Mentat::{kind}")).map_err(|error| error.to_string())?;
    Ok(EntityUid::from_type_name_and_id(kind, EntityId::new(name)))
}

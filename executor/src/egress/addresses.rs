//! Which addresses guests may reach: public ones, and what the operator opens by name.
//!
//! A grant names hosts, and whoever answers for a name chooses its addresses. So the address decides a second time, and no
//! manifest widens this list: loopback, link-local (where clouds keep their metadata), private and carrier networks,
//! unique-local, multicast, reserved, and every IPv6 form that carries one of those inside.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// The text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is an address, or an address, a slash and the number of bits that count")]
pub struct NoNetwork;

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) => {
                (address, Some(bits.parse().map_err(|_| NoNetwork)?))
            }
            Some(_) => return Err(NoNetwork),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(NoNetwork);
        }
        Ok(Self { address, bits })
    }
}

impl Network {
    /// The network of the addresses that begin like this one; of one address, where it has not so many bits.
    pub(crate) fn new(address: IpAddr, bits: u8) -> Self {
        Self { address, bits: bits.min(if address.is_ipv4() { 32 } else { 128 }) }
    }

    /// One address.
    pub(crate) fn host(address: IpAddr) -> Self {
        Self::new(address, 128)
    }

    /// Whether an address lies in this network. Addresses of the other family never do.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                same_front(u128::from(own.to_bits()) << 96, u128::from(other.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => same_front(own.to_bits(), other.to_bits(), self.bits),
            _ => false,
        }
    }
}

fn same_front(one: u128, other: u128, bits: u8) -> bool {
    let difference = one ^ other;
    // A shift by the whole width is none in Rust.
    bits == 0 || difference.checked_shr(128 - u32::from(bits)) == Some(0)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// What the operator says about addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressRules {
    /// Networks that are reachable although they are not public.
    pub open: Vec<Network>,
    /// Networks that are not reachable although they are public or open.
    pub deny: Vec<Network>,
}

impl AddressRules {
    /// Whether guests may reach an address.
    pub fn allow(&self, address: IpAddr) -> bool {
        let reached = unwrapped(address);
        let among = |networks: &[Network], address| networks.iter().any(|network| network.contains(address));
        // Denied by the form that was found as well: whoever wants no translated addresses names the translator's prefix.
        !among(&self.deny, address)
            && !among(&self.deny, reached)
            && (among(&self.open, reached) || is_public(reached))
    }
}

/// The IPv4 address that an IPv6 address stands for where the system connects to that one: a mapped address, or one that a
/// translator of this network (RFC 6052, well-known prefix) takes apart.
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let low = Ipv4Addr::from_bits((v6.to_bits() & 0xffff_ffff) as u32);
    let translated = v6.to_bits() >> 32 == 0x0064_ff9b_0000_0000_0000_0000;
    if v6.to_ipv4_mapped().is_some() || translated { IpAddr::V4(low) } else { address }
}

/// Whether an address is one of the public internet, by the registries of special-purpose addresses (RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(v4: Ipv4Addr) -> bool {
    let [a, b, c, _] = v4.octets();
    let reserved = a == 0                            // this network
        || v4.is_private()
        || (a == 100 && (b & 0xc0) == 64)            // carriers, RFC 6598
        || v4.is_loopback()
        || v4.is_link_local()
        || (a, b, c) == (192, 0, 0)                  // protocol assignments
        || v4.is_documentation()
        || (a, b, c) == (192, 88, 99)                // 6to4 relays, RFC 7526
        || (a == 198 && (b & 0xfe) == 18)            // benchmarks, RFC 2544
        || a >= 224; // multicast, reserved, broadcast
    !reserved
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    let segments = v6.segments();
    let [first, second, ..] = segments;
    // Only global unicast; the special ranges inside it lead elsewhere, some of them to an IPv4 address of choice.
    let global = first & 0xe000 == 0x2000;
    // Protocols, Teredo among them, and documentation.
    let special = (first == 0x2001 && (second < 0x0200 || second == 0x0db8))
        || first == 0x2002                              // 6to4
        || (first == 0x3fff && second < 0x1000)         // documentation, RFC 9637
        || first == 0x3ffe; // the abandoned test network
    global && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rules: &AddressRules, text: &str) -> bool {
        rules.allow(text.parse().unwrap())
    }

    #[test]
    fn what_is_denied_in_either_form_of_an_address_is_not_reached() {
        let denying = |network: &str| AddressRules {
            deny: vec![network.parse().unwrap()],
            open: vec!["10.0.0.0/8".parse().unwrap()],
        };
        assert!(!allowed(&denying("64:ff9b::/96"), "64:ff9b::101:101"));
        assert!(allowed(&denying("64:ff9b::/96"), "1.1.1.1"));
        assert!(!allowed(&denying("::ffff:0:0/96"), "::ffff:10.0.0.1"));
        assert!(!allowed(&denying("1.1.1.0/24"), "64:ff9b::101:101"));
        assert!(!allowed(&denying("10.1.0.0/16"), "::ffff:10.1.0.1"));
    }

    #[test]
    fn only_public_addresses_are_reachable_by_default() {
        let rules = AddressRules::default();
        for public in
            ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::200e", "64:ff9b::101:101"]
        {
            assert!(allowed(&rules, public), "{public}");
        }
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "3ffe::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "4000::1",
        ] {
            assert!(!allowed(&rules, refused), "{refused}");
        }
    }

    #[test]
    fn the_operator_opens_networks_and_denies_more() {
        let rules = AddressRules {
            open: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            deny: vec!["10.1.2.3".parse().unwrap(), "93.184.0.0/16".parse().unwrap()],
        };
        for open in ["10.1.0.1", "10.1.2.4", "::ffff:10.1.0.1", "64:ff9b::a01:1", "fdab::1", "1.1.1.1"] {
            assert!(allowed(&rules, open), "{open}");
        }
        for denied in ["10.2.0.1", "10.1.2.3", "::ffff:10.1.2.3", "93.184.215.14", "127.0.0.1", "fc00::1"] {
            assert!(!allowed(&rules, denied), "{denied}");
        }
    }

    #[test]
    fn networks_are_read_strictly() {
        for text in ["10.0.0.0/8", "1.2.3.4", "::/0", "0.0.0.0/0", "2001:db8::/32"] {
            assert!(text.parse::<Network>().is_ok(), "{text}");
        }
        for text in ["", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0/8", "10.0.0.0/+8", "::/129", "host/8", "1/8"]
        {
            assert_eq!(text.parse::<Network>(), Err(NoNetwork), "{text}");
        }
        let everything: Network = "0.0.0.0/0".parse().unwrap();
        assert!(everything.contains("9.9.9.9".parse().unwrap()));
        assert!(!everything.contains("::1".parse().unwrap()));
    }
}

//! Name constraints against as many names as fit.

use trust_store::ReasonCode;

use super::{Attack, path};
use crate::forge::{Ca, name, name_constraints, san};

pub(crate) fn all() -> Vec<Attack> {
    vec![same_kind(), other_kind(), directories()]
}

const DNS: u8 = 0x82;
const IP: u8 = 0x87;
const DIRECTORY: u8 = 0xa4;

fn attack(
    title: &'static str,
    code: ReasonCode,
    subtrees: &[(u8, Vec<u8>)],
    names: &[(u8, Vec<u8>)],
) -> Attack {
    let borrowed = |list: &[(u8, Vec<u8>)]| -> Vec<(u8, Vec<u8>)> { list.to_vec() };
    let (subtrees, names) = (borrowed(subtrees), borrowed(names));
    let subtrees: Vec<(u8, &[u8])> = subtrees.iter().map(|(tag, value)| (*tag, value.as_slice())).collect();
    let names: Vec<(u8, &[u8])> = names.iter().map(|(tag, value)| (*tag, value.as_slice())).collect();
    let mut above = Ca::root("root");
    let anchor = above.certificate.clone();
    let mut others = Vec::new();
    for floor in 0..14 {
        let next = above.subordinate(&format!("ca {floor}"), |body| {
            body.extensions.push(name_constraints(&[], &subtrees));
        });
        others.push(next.certificate.clone());
        above = next;
    }
    let leaf = above.leaf(|body| body.extensions.push(san(&names)));
    path(title, code, leaf, others, vec![anchor])
}

fn host(n: usize) -> Vec<u8> {
    format!("{n}.{}.example", "h".repeat(20)).into_bytes()
}

/// Every name is compared with every subtree.
fn same_kind() -> Attack {
    let subtrees: Vec<(u8, Vec<u8>)> = (0..2_000).map(|n| (DNS, host(n))).collect();
    let names: Vec<(u8, Vec<u8>)> = (0..1_000).map(|n| (DNS, host(100_000 + n))).collect();
    attack("1,000 names under 28,000 subtrees", ReasonCode::BudgetExceeded, &subtrees, &names)
}

/// No name is of the kind of any subtree, so that only passing over them costs.
fn other_kind() -> Attack {
    let subtrees: Vec<(u8, Vec<u8>)> =
        (0..2_000_u16).map(|n| (IP, [[10, 0].as_slice(), &n.to_be_bytes(), &[255; 4]].concat())).collect();
    let names: Vec<(u8, Vec<u8>)> = (0..1_000).map(|n| (DNS, host(n))).collect();
    attack("1,000 names beside 28,000 subtrees", ReasonCode::BudgetExceeded, &subtrees, &names)
}

/// Directory names, which are compared in a form that must be computed first.
fn directories() -> Attack {
    let directory = |text: String| (DIRECTORY, name(&text));
    let long = "d".repeat(40);
    let subtrees: Vec<(u8, Vec<u8>)> = (0..1_500).map(|n| directory(format!("{long}{n}"))).collect();
    let names: Vec<(u8, Vec<u8>)> = (0..1_000).map(|n| directory(format!("{long}x{n}"))).collect();
    attack("1,000 directory names under 21,000 subtrees", ReasonCode::BudgetExceeded, &subtrees, &names)
}

//! Values between scripts and the engine.

use wasmtime::Val;
use wast::core::{AbstractHeapType, HeapType, NanPattern, V128Pattern, WastArgCore, WastRetCore};
use wast::{WastArg, WastRet};

/// An argument of a call; `None` for values of types that are off.
pub(crate) fn argument(argument: &WastArg<'_>) -> Option<Val> {
    let WastArg::Core(argument) = argument else { return None };
    Some(match argument {
        WastArgCore::I32(value) => Val::I32(*value),
        WastArgCore::I64(value) => Val::I64(*value),
        WastArgCore::F32(value) => Val::F32(value.bits),
        WastArgCore::F64(value) => Val::F64(value.bits),
        WastArgCore::V128(value) => Val::V128(u128::from_le_bytes(value.to_le_bytes()).into()),
        WastArgCore::RefNull(HeapType::Abstract { ty: AbstractHeapType::Func, .. }) => Val::FuncRef(None),
        WastArgCore::RefNull(_) | WastArgCore::RefExtern(_) | WastArgCore::RefHost(_) => return None,
    })
}

/// Whether a result is what the script expects.
pub(crate) fn matches(value: &Val, expected: &WastRet<'_>) -> bool {
    let WastRet::Core(expected) = expected else { return false };
    matches_core(value, expected)
}

fn matches_core(value: &Val, expected: &WastRetCore<'_>) -> bool {
    match (value, expected) {
        (Val::I32(value), WastRetCore::I32(expected)) => value == expected,
        (Val::I64(value), WastRetCore::I64(expected)) => value == expected,
        (Val::F32(bits), WastRetCore::F32(expected)) => float32(*bits, expected),
        (Val::F64(bits), WastRetCore::F64(expected)) => float64(*bits, expected),
        (Val::V128(value), WastRetCore::V128(expected)) => vector(value.as_u128(), expected),
        (Val::FuncRef(value), WastRetCore::RefNull(_)) => value.is_none(),
        (Val::FuncRef(value), WastRetCore::RefFunc(_)) => value.is_some(),
        (Val::AnyRef(None) | Val::ExternRef(None), WastRetCore::RefNull(_)) => true,
        (value, WastRetCore::Either(any)) => any.iter().any(|expected| matches_core(value, expected)),
        _ => false,
    }
}

fn float32(bits: u32, expected: &NanPattern<wast::token::F32>) -> bool {
    match expected {
        NanPattern::CanonicalNan => bits & 0x7fff_ffff == 0x7fc0_0000,
        NanPattern::ArithmeticNan => bits & 0x7fc0_0000 == 0x7fc0_0000,
        NanPattern::Value(value) => bits == value.bits,
    }
}

fn float64(bits: u64, expected: &NanPattern<wast::token::F64>) -> bool {
    match expected {
        NanPattern::CanonicalNan => bits & 0x7fff_ffff_ffff_ffff == 0x7ff8_0000_0000_0000,
        NanPattern::ArithmeticNan => bits & 0x7ff8_0000_0000_0000 == 0x7ff8_0000_0000_0000,
        NanPattern::Value(value) => bits == value.bits,
    }
}

fn vector(value: u128, expected: &V128Pattern) -> bool {
    let bytes = value.to_le_bytes();
    match expected {
        V128Pattern::I8x16(lanes) => bytes == lanes.map(|lane| lane as u8),
        V128Pattern::I16x8(lanes) => bytes[..] == lanes.map(i16::to_le_bytes).concat()[..],
        V128Pattern::I32x4(lanes) => bytes[..] == lanes.map(i32::to_le_bytes).concat()[..],
        V128Pattern::I64x2(lanes) => bytes[..] == lanes.map(i64::to_le_bytes).concat()[..],
        V128Pattern::F32x4(lanes) => {
            let bits = bytes.chunks_exact(4).map(|lane| u32::from_le_bytes(lane.try_into().unwrap()));
            bits.zip(lanes).all(|(bits, expected)| float32(bits, expected))
        }
        V128Pattern::F64x2(lanes) => {
            let bits = bytes.chunks_exact(8).map(|lane| u64::from_le_bytes(lane.try_into().unwrap()));
            bits.zip(lanes).all(|(bits, expected)| float64(bits, expected))
        }
    }
}

//! What must hold for any bytes whatsoever that a worker process says to the executor, or the executor to it: the readers do
//! not panic, and what they accept they write back unchanged.
//!
//! Each function says whether the bytes were accepted. Seeds are kept as text: `hex ` and digits, white space between them as
//! one likes.
#![allow(dead_code, reason = "every fuzz target uses one function")]

use executor_engine::FormatError;
use executor_engine::frames::{
    FromWorker, MAX_FRAME, Order, Report, ToWorker, body_length, put_pairs, take_pairs,
};

/// What a target runs; says whether the bytes were accepted.
pub(crate) type Property = fn(&[u8]) -> bool;

/// The name and function of every target.
pub(crate) const TARGETS: &[(&str, Property)] =
    &[("executor_engine_orders", orders), ("executor_engine_reports", reports)];

/// The bytes of a seed: hexadecimal after `hex `, else the data itself.
pub(crate) fn decode(data: &[u8]) -> Vec<u8> {
    let Some(text) = data.strip_prefix(b"hex ") else { return data.to_vec() };
    let digits: Vec<u8> =
        text.iter().filter_map(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The body of a frame whose head is as long as it says.
fn body(data: &[u8]) -> Option<&[u8]> {
    let (head, body) = data.split_first_chunk()?;
    let length = body_length(*head, MAX_FRAME).ok()?;
    (length == body.len()).then_some(body)
}

/// Whether a message is read, and written as it was.
fn same<'a, T>(
    body: &'a [u8],
    read: impl Fn(&'a [u8]) -> Result<T, FormatError>,
    write: impl Fn(&T) -> Vec<u8>,
) -> bool {
    let Ok(message) = read(body) else { return false };
    assert_eq!(write(&message), body);
    true
}

/// From the executor.
pub(crate) fn orders(data: &[u8]) -> bool {
    let data = &decode(data);
    let Some(body) = body(data) else { return false };
    if let Ok(pairs) = take_pairs(body) {
        let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        assert_eq!(put_pairs(pairs), body);
    }
    same(body, Order::decode, Order::encode) | same(body, ToWorker::decode, ToWorker::encode)
}

/// From a worker, which may be anybody by then.
pub(crate) fn reports(data: &[u8]) -> bool {
    let data = &decode(data);
    let Some(body) = body(data) else { return false };
    same(body, Report::decode, Report::encode) | same(body, FromWorker::decode, FromWorker::encode)
}

//! The two conversions between counts and floating point that figures need, and no arithmetic.

use std::time::Duration;

/// A count as floating point. Above 2^53 it is rounded, which no figure here can show.
#[inline]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// The whole part of `number`; below zero and NaN give 0, what is too large gives the greatest.
#[inline]
pub fn whole(number: f64) -> u64 {
    // A cast from floating point saturates and never wraps.
    number as u64
}

/// Nanoseconds of `duration`, capped at the greatest number (584 years).
#[inline]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

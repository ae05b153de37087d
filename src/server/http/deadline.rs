//! How long a client waits, as it says so itself: `grpc-timeout` of gRPC, and `Grpc-Timeout` of the JSON gateway. Each
//! is read as etcd's libraries read it, and they differ: gRPC takes eight digits and answers 0 at once, the gateway
//! takes a sign and has 0 for no limit.

use std::future::Future;
use std::str;
use std::time::{Duration, Instant};

use etcd::{Code, Failure};
use hyper::HeaderMap;
use hyper::header::HeaderName;

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Eight digits and a unit.
const GRPC_SIZE_MAX: usize = 9;

/// Nanoseconds of a unit.
fn unit(letter: u8) -> Option<u64> {
    match letter {
        b'H' => Some(3_600_000_000_000),
        b'M' => Some(60_000_000_000),
        b'S' => Some(1_000_000_000),
        b'm' => Some(1_000_000),
        b'u' => Some(1_000),
        b'n' => Some(1),
        _ => None,
    }
}

/// How long a client of gRPC waits; none: it does not say.
///
/// # Errors
/// What it says is no time.
pub fn of_grpc(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let mut told = None;
    for value in headers.get_all(TIMEOUT) {
        told = Some(read_grpc(value.as_bytes()).map_err(|why| {
            Failure::new(Code::Internal, format!("malformed grpc-timeout: {why}"))
        })?);
    }
    Ok(told)
}

fn read_grpc(bytes: &[u8]) -> Result<Duration, String> {
    let wrong = |how| {
        let text = String::from_utf8_lossy(bytes);
        Err(format!("transport: timeout {how}: {text:?}"))
    };
    let [digits @ .., letter] = bytes else { return wrong("string is too short") };
    if digits.is_empty() {
        return wrong("string is too short");
    }
    if bytes.len() > GRPC_SIZE_MAX {
        return wrong("string is too long");
    }
    let Some(one) = unit(*letter) else { return wrong("unit is not recognized") };
    let text = str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_digit));
    match text.and_then(|text| text.parse().ok()) {
        Some(count) => Ok(Duration::from_nanos(one).saturating_mul(count)),
        None => {
            let digits = String::from_utf8_lossy(digits);
            Err(format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"))
        }
    }
}

/// How long a client of the gateway waits; none: it does not say, or for ever.
///
/// # Errors
/// What it says is no time.
pub fn of_gateway(headers: &HeaderMap) -> Result<Option<Duration>, Failure> {
    let Some(value) = headers.get(TIMEOUT).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let read = |bytes: &[u8]| {
        let (letter, digits) = bytes.split_last()?;
        let (one, count) = (unit(*letter)?, str::from_utf8(digits).ok()?.parse::<i64>().ok()?);
        // What is too large for that library comes round.
        Some(one.cast_signed().wrapping_mul(count))
    };
    match read(value.as_bytes()) {
        Some(0) => Ok(None),
        Some(ns) => Ok(Some(Duration::from_nanos(u64::try_from(ns).unwrap_or(0)))),
        None => {
            let text = String::from_utf8_lossy(value.as_bytes());
            Err(Failure::new(Code::InvalidArgument, format!("invalid grpc-timeout: {text}")))
        }
    }
}

/// What comes of a call whose client waits so long. It is told how many milliseconds the member has for it, which are
/// `longest_ms` at most.
///
/// # Errors
/// [`Failure::DEADLINE_EXCEEDED`], or what comes of it.
pub async fn within<T, W: Future<Output = Result<T, Failure>>>(
    timeout: Option<Duration>,
    longest_ms: u32,
    work: impl FnOnce(u32) -> W,
) -> Result<T, Failure> {
    let Some(timeout) = timeout else { return work(longest_ms).await };
    let ms = timeout.as_nanos().div_ceil(1_000_000);
    let ms = u32::try_from(ms).unwrap_or(u32::MAX).clamp(1, longest_ms.max(1));
    let begun = Instant::now();
    let late = async {
        glommio::timer::sleep(timeout).await;
        Err(Failure::DEADLINE_EXCEEDED)
    };
    match futures_lite::future::or(work(ms), late).await {
        // The member was told the same deadline.
        Err(failure) if failure == Failure::TIMEOUT && begun.elapsed() >= timeout => {
            Err(Failure::DEADLINE_EXCEEDED)
        }
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hyper::header::HeaderValue;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(TIMEOUT, HeaderValue::from_str(value).unwrap())])
    }

    /// What a real etcd 3.7.3 answers to each.
    #[test]
    fn what_is_no_time_is_refused_in_the_words_of_grpc() {
        let told = |value: &str| of_grpc(&headers(value)).map_err(|failure| failure.message);
        assert_eq!(of_grpc(&HeaderMap::new()), Ok(None));
        for (value, ms) in [
            ("0m", 0),
            ("00000250m", 250),
            ("3S", 3_000),
            ("1u", 0),
            ("2M", 120_000),
            ("99999999H", 359_999_996_400_000),
        ] {
            assert_eq!(told(value).unwrap().unwrap().as_millis(), ms, "{value}");
        }
        for (value, why) in [
            ("", "transport: timeout string is too short: \"\""),
            ("m", "transport: timeout string is too short: \"m\""),
            ("123456789m", "transport: timeout string is too long: \"123456789m\""),
            ("10", "transport: timeout unit is not recognized: \"10\""),
            ("10s", "transport: timeout unit is not recognized: \"10s\""),
            ("1.5S", "strconv.ParseUint: parsing \"1.5\": invalid syntax"),
            ("-1S", "strconv.ParseUint: parsing \"-1\": invalid syntax"),
            ("+1S", "strconv.ParseUint: parsing \"+1\": invalid syntax"),
        ] {
            assert_eq!(
                told(value),
                Err(format!("malformed grpc-timeout: {why}").into()),
                "{value}"
            );
        }
    }

    #[test]
    fn the_gateway_takes_a_sign_and_has_0_for_no_limit() {
        let told = |value: &str| of_gateway(&headers(value)).map_err(|failure| failure.code);
        let ms = |ms| Ok(Some(Duration::from_millis(ms)));
        for (value, expected) in [
            ("", Ok(None)),
            ("0m", Ok(None)),
            ("-5S", ms(0)),
            ("+5S", ms(5_000)),
            ("123456789m", ms(123_456_789)),
            ("10", Err(Code::InvalidArgument)),
            ("S", Err(Code::InvalidArgument)),
            ("1.5S", Err(Code::InvalidArgument)),
            ("99999999999999999999S", Err(Code::InvalidArgument)),
        ] {
            assert_eq!(told(value), expected, "{value}");
        }
    }
}

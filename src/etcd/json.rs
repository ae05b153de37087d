//! etcd's messages as JSON, as its gateway writes them: the bytes of a message to JSON and back, after its
//! [`Shape`].
//!
//! Names are those of the fields; bytes are base64; numbers of 64 bits are strings, and may be numbers when
//! they are read; what has its default value is left out. Fields and names of enums that nobody knows are passed over.
//! <https://protobuf.dev/programming-guides/json/>

use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::failure::{Code, Failure};
use crate::json_value::Parsed;
use crate::shapes::{Field, Kind, Shape};

/// Messages inside messages.
const DEPTH_MAX: usize = 100;

const fn base64_of(alphabet: &alphabet::Alphabet, padding: DecodePaddingMode) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(padding)
        .with_decode_allow_trailing_bits(true);
    GeneralPurpose::new(alphabet, config)
}

/// Padded and not.
const STANDARD: [GeneralPurpose; 2] = [
    base64_of(&alphabet::STANDARD, DecodePaddingMode::RequireCanonical),
    base64_of(&alphabet::STANDARD, DecodePaddingMode::RequireNone),
];
/// See [`STANDARD`].
const URL_SAFE: [GeneralPurpose; 2] = [
    base64_of(&alphabet::URL_SAFE, DecodePaddingMode::RequireCanonical),
    base64_of(&alphabet::URL_SAFE, DecodePaddingMode::RequireNone),
];

/// The message that a JSON text says.
///
/// # Errors
/// It is no JSON, or a field has no value of its kind or stands twice. Fields that the message does not have are
/// ignored.
pub fn read(text: &[u8], shape: &Shape) -> Result<Vec<u8>, Failure> {
    let value = if text.iter().all(u8::is_ascii_whitespace) {
        Parsed::Object(Vec::new())
    } else {
        serde_json::from_slice(text)
            .map_err(|error| Failure::new(Code::InvalidArgument, format!("{error}")))?
    };
    let mut out = Vec::new();
    message(&mut out, &value, shape, 0)?;
    Ok(out)
}

/// Bytes of the first JSON value of a stream of them; none: it has not come whole yet. `is_over`: nothing more
/// comes.
///
/// # Errors
/// What has come is no JSON.
pub fn first(text: &[u8], is_over: bool) -> Result<Option<usize>, Failure> {
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<IgnoredAny>();
    match values.next() {
        None => Ok(None),
        Some(Ok(_)) => Ok(Some(values.byte_offset())),
        Some(Err(error)) if error.is_eof() && !is_over => Ok(None),
        Some(Err(error)) => Err(Failure::new(Code::InvalidArgument, format!("{error}"))),
    }
}

/// A failure as the gateway writes it.
pub fn failure(failure: &Failure) -> String {
    let text = Value::String(failure.message.clone().into_owned());
    format!("{{\"code\":{},\"message\":{text}}}", failure.code.number())
}

/// The status of HTTP that goes with a code, as the gateway has it.
pub fn http_status(code: Code) -> u16 {
    match code {
        Code::Ok => 200,
        Code::Canceled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::Unauthenticated => 401,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    }
}

fn refuse(what: &str, name: &str, value: &Parsed) -> Failure {
    let shown: String = format!("{value}").chars().take(80).collect();
    invalid(format!("invalid value for {what} field {name}: {shown}"))
}

fn invalid(text: String) -> Failure {
    Failure::new(Code::InvalidArgument, text)
}

fn message(out: &mut Vec<u8>, value: &Parsed, shape: &Shape, depth: usize) -> Result<(), Failure> {
    let Parsed::Object(fields) = value else {
        return Err(refuse("message", "of the request", value));
    };
    if depth > DEPTH_MAX {
        return Err(invalid(format!("messages are nested deeper than {DEPTH_MAX}")));
    }
    let mut seen: Vec<u32> = Vec::new();
    let mut chosen = None;
    for (name, value) in fields {
        let Some(field) = shape.0.iter().find(|field| is_named(field, name)) else { continue };
        // A message has few fields.
        if seen.contains(&field.number) {
            return Err(invalid(format!("duplicate field {name:?}")));
        }
        seen.push(field.number);
        match (value, field.is_list) {
            (Parsed::Null, _) => {}
            (Parsed::List(members), true) => {
                for member in members {
                    write_field(out, field, member, depth)?;
                }
            }
            (value, true) => return Err(refuse("repeated", name, value)),
            (value, false) => {
                if field.is_choice
                    && let Some(other) = chosen.replace(field.name)
                {
                    return Err(invalid(format!("{other} and {name}: there can be only one")));
                }
                write_field(out, field, value, depth)?;
            }
        }
    }
    Ok(())
}

/// By its own name, or by that in camel case.
fn is_named(field: &Field, name: &str) -> bool {
    if field.name == name {
        return true;
    }
    let mut camel = String::with_capacity(field.name.len());
    let mut is_next_upper = false;
    for letter in field.name.chars() {
        if letter == '_' {
            is_next_upper = true;
        } else if core::mem::take(&mut is_next_upper) {
            camel.push(letter.to_ascii_uppercase());
        } else {
            camel.push(letter);
        }
    }
    camel == name
}

fn write_field(
    out: &mut Vec<u8>,
    field: &Field,
    value: &Parsed,
    depth: usize,
) -> Result<(), Failure> {
    let name = field.name;
    let number = match field.kind {
        Kind::Int64 => {
            value.integer::<i64>().ok_or_else(|| refuse("int64", name, value))?.cast_unsigned()
        }
        Kind::Uint64 => value.integer::<u64>().ok_or_else(|| refuse("uint64", name, value))?,
        Kind::Uint32 => {
            u64::from(value.integer::<u32>().ok_or_else(|| refuse("uint32", name, value))?)
        }
        Kind::Bool => match value {
            Parsed::Bool(is_true) => u64::from(*is_true),
            _ => return Err(refuse("bool", name, value)),
        },
        Kind::Enum(names) => {
            let number = match value.text() {
                Some(text) => match names.iter().position(|name| *name == text) {
                    Some(place) => i32::try_from(place).ok(),
                    None => return Ok(()),
                },
                None => value.integer::<i32>(),
            };
            i64::from(number.ok_or_else(|| refuse("enum", name, value))?).cast_unsigned()
        }
        Kind::Bytes => {
            let text = value.text().ok_or_else(|| refuse("bytes", name, value))?;
            let bytes = base64(text).ok_or_else(|| refuse("bytes", name, value))?;
            return write_bytes(out, field.number, &bytes);
        }
        Kind::Text => {
            let text = value.text().ok_or_else(|| refuse("string", name, value))?;
            return write_bytes(out, field.number, text.as_bytes());
        }
        Kind::Message(shape) => {
            let mut inner = Vec::new();
            message(&mut inner, value, shape, depth + 1)?;
            return write_bytes(out, field.number, &inner);
        }
    };
    encode_key(field.number, WireType::Varint, out);
    encode_varint(number, out);
    Ok(())
}

fn write_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) -> Result<(), Failure> {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(u64::try_from(bytes.len()).expect("usize has at most 64 bits"), out);
    out.extend_from_slice(bytes);
    Ok(())
}

/// As Go reads it: with padding where the text is long enough for it, breaks between lines left out.
fn base64(text: &str) -> Option<Vec<u8>> {
    let engines = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    let engine = &engines[usize::from(!text.len().is_multiple_of(4))];
    let text = if text.contains(['\r', '\n']) {
        Cow::Owned(text.replace(['\r', '\n'], ""))
    } else {
        Cow::Borrowed(text)
    };
    engine.decode(text.as_bytes()).ok()
}

/// A message as JSON.
///
/// # Errors
/// The bytes are no message of this shape: a defect of this process.
pub fn write(bytes: &[u8], shape: &Shape) -> Result<String, Failure> {
    let mut out = String::new();
    object(&mut out, bytes, shape, 0)?;
    Ok(out)
}

fn broken(what: &str) -> Failure {
    Failure::new(Code::Internal, format!("a message cannot be written as JSON: {what}"))
}

/// What stands behind a field number: a number, or bytes.
enum Found<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn object(out: &mut String, mut bytes: &[u8], shape: &Shape, depth: usize) -> Result<(), Failure> {
    if depth > DEPTH_MAX {
        return Err(broken("it is nested too deep"));
    }
    let mut found: Vec<(u32, Found<'_>)> = Vec::new();
    while !bytes.is_empty() {
        let (number, wire_type) = decode_key(&mut bytes).map_err(|_| broken("a key"))?;
        match wire_type {
            WireType::Varint => {
                let value = decode_varint(&mut bytes).map_err(|_| broken("a number"))?;
                found.push((number, Found::Number(value)));
            }
            WireType::LengthDelimited => {
                let size = decode_varint(&mut bytes).map_err(|_| broken("a size"))?;
                let size = usize::try_from(size).map_err(|_| broken("a size"))?;
                let (taken, rest) = bytes.split_at_checked(size).ok_or_else(|| broken("a size"))?;
                bytes = rest;
                found.push((number, Found::Bytes(taken)));
            }
            _ => return Err(broken("a field of another kind")),
        }
    }
    out.push('{');
    let mut is_first = true;
    for field in shape.0 {
        let mut own = found.iter().filter(|(number, _)| *number == field.number).peekable();
        if own.peek().is_none() {
            continue;
        }
        if !core::mem::take(&mut is_first) {
            out.push(',');
        }
        out.push('"');
        out.push_str(field.name);
        out.push_str("\":");
        if field.is_list {
            out.push('[');
            for (place, (_, value)) in own.enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_value(out, field, value, depth)?;
            }
            out.push(']');
        } else if let Some((_, value)) = own.last() {
            write_value(out, field, value, depth)?;
        }
    }
    out.push('}');
    Ok(())
}

fn write_value(
    out: &mut String,
    field: &Field,
    value: &Found<'_>,
    depth: usize,
) -> Result<(), Failure> {
    match (field.kind, value) {
        (Kind::Int64, Found::Number(number)) => {
            out.push_str(&format!("\"{}\"", number.cast_signed()));
        }
        (Kind::Uint64, Found::Number(number)) => out.push_str(&format!("\"{number}\"")),
        (Kind::Uint32, Found::Number(number)) => out.push_str(&format!("{number}")),
        (Kind::Bool, Found::Number(number)) => {
            out.push_str(if *number == 0 { "false" } else { "true" });
        }
        (Kind::Enum(names), Found::Number(number)) => {
            let name = usize::try_from(*number).ok().and_then(|place| names.get(place));
            match name {
                Some(name) => out.push_str(&format!("\"{name}\"")),
                None => out.push_str(&format!("{}", number.cast_signed())),
            }
        }
        (Kind::Bytes, Found::Bytes(bytes)) => {
            out.push('"');
            general_purpose::STANDARD.encode_string(bytes, out);
            out.push('"');
        }
        (Kind::Text, Found::Bytes(bytes)) => {
            let text = core::str::from_utf8(bytes).map_err(|_| broken("a text"))?;
            out.push_str(&Value::String(text.to_owned()).to_string());
        }
        (Kind::Message(shape), Found::Bytes(bytes)) => object(out, bytes, shape, depth + 1)?,
        _ => return Err(broken(field.name)),
    }
    Ok(())
}

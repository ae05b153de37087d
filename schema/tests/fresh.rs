//! The committed output of flatc belongs to the committed schema. Needs no flatc: the command that
//! writes `generated.rs` records the CRC-32 of the schema in its first line.

const SCHEMA: &[u8] = include_bytes!("../client.fbs");
const GENERATED: &str = include_str!("../generated.rs");

#[test]
fn generated_code_was_made_from_this_schema() {
    let recorded = GENERATED.lines().next().unwrap_or_default();
    let expected = format!("// client.fbs {:08x}", base::crc32(SCHEMA));
    assert_eq!(
        recorded, expected,
        "schema/client.fbs has changed; run \
         cargo run --release --manifest-path schema/regenerate/Cargo.toml"
    );
}

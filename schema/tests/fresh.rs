//! The committed output of flatc belongs to the committed schemas. Needs no flatc: the command that
//! writes the generated files records the CRC-32 of the schema in their first lines.

const SCHEMAS: [(&str, &[u8], &str); 2] = [
    ("client.fbs", include_bytes!("../client.fbs"), include_str!("../generated.rs")),
    ("peer.fbs", include_bytes!("../peer.fbs"), include_str!("../generated_peer.rs")),
];

#[test]
fn generated_code_was_made_from_these_schemas() {
    for (name, schema, generated) in SCHEMAS {
        let recorded = generated.lines().next().unwrap_or_default();
        let expected = format!("// {name} {:08x}", base::crc32(schema));
        assert_eq!(
            recorded, expected,
            "schema/{name} has changed; run \
             cargo run --release --manifest-path schema/regenerate/Cargo.toml"
        );
    }
}

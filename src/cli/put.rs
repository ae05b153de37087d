//! `put`: writes one key.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use clap::Args;
use client::Put;

use super::failure::Failure;
use super::output::Output;
use super::range::parse_lease;
use super::session::Global;
use super::time_span;

/// Flags of `put`.
#[derive(Clone, Debug, Args)]
pub struct PutArguments {
    /// Key
    pub key: OsString,
    /// Value; read from standard input if absent
    #[arg(allow_negative_numbers = true, conflicts_with = "ignore_value")]
    pub value: Option<OsString>,
    /// Lease to attach the key to, a hexadecimal id
    #[arg(long, default_value = "0", value_parser = parse_lease)]
    pub lease: i64,
    /// Time after which the key goes, 10s or 500ms: the server makes a lease for this key alone, whose id
    /// -w json shows, and which lease keep-alive prolongs
    #[arg(long, value_parser = time_span::parse, conflicts_with_all = ["lease", "ignore_lease"])]
    pub ttl: Option<Duration>,
    /// Print the key as it was before
    #[arg(long)]
    pub prev_kv: bool,
    /// Keep the value the key has
    #[arg(long)]
    pub ignore_value: bool,
    /// Keep the lease the key has
    #[arg(long)]
    pub ignore_lease: bool,
}

impl PutArguments {
    /// The request with `value`.
    ///
    /// # Errors
    /// The key is empty.
    pub fn request<'a>(&'a self, value: &'a [u8]) -> Result<Put<'a>, Failure> {
        if self.key.is_empty() {
            return Err(Failure::Arguments("the key is empty".into()));
        }
        let ttl_ms = self.ttl.map_or(Ok(0), time_span::milliseconds)?;
        Ok(Put {
            key: self.key.as_bytes(),
            value,
            lease: self.lease,
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
            ttl_ms,
        })
    }

    /// The value on the command line; empty if there is none.
    pub fn given_value(&self) -> &[u8] {
        self.value.as_ref().map_or(&[], |value| value.as_bytes())
    }
}

/// Writes the key.
///
/// # Errors
/// The arguments, standard input, the server, or standard output.
pub fn run(global: &Global, arguments: &PutArguments) -> Result<(), Failure> {
    arguments.request(&[])?;
    let mut read = Vec::new();
    let value = if arguments.value.is_some() || arguments.ignore_value {
        arguments.given_value()
    } else {
        std::io::stdin()
            .lock()
            .read_to_end(&mut read)
            .map_err(|error| Failure::Io("standard input".into(), error))?;
        &read
    };
    let mut client = global.connect()?;
    let result = client.put(&arguments.request(value)?)?;
    Output::new(global.write_out, &client).put(&result)
}

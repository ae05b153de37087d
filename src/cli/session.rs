//! The flags that every command has, and the client that they describe.

use std::time::Duration;

use clap::{Args, ValueEnum};
use client::{Client, Options};

use super::failure::Failure;
use super::time_span;

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines, for people and shell scripts.
    Simple,
    /// One JSON object, keys and values in base64.
    Json,
}

/// The flags that every command has.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Member to talk to, host:port; of several, separated by commas or given one by one, the first that
    /// answers is taken. status asks each, bench spreads its connections over them
    #[arg(
        long,
        global = true,
        env = "QUORATE_ENDPOINT",
        default_value = "127.0.0.1:2400",
        value_delimiter = ',',
        value_parser = endpoint
    )]
    pub endpoint: Vec<String>,
    /// How results are written
    #[arg(short = 'w', long = "write-out", global = true, default_value = "simple")]
    pub write_out: Format,
    /// Time in which one command must be answered, connecting apart
    #[arg(long, global = true, default_value = "5s", value_parser = time_span::parse)]
    pub command_timeout: Duration,
    /// Time in which a connection must be made
    #[arg(long, global = true, default_value = "2s", value_parser = time_span::parse)]
    pub dial_timeout: Duration,
}

/// `host:port`, as it is; whether the host exists turns out when it is dialled.
///
/// # Errors
/// It is not of that form.
pub fn endpoint(text: &str) -> Result<String, String> {
    let refused = "write it as host:port, for example 127.0.0.1:2400";
    match text.rsplit_once(':') {
        Some((host, port))
            if !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(refused.to_owned()),
    }
}

impl Global {
    /// A client with these flags, connected.
    ///
    /// # Errors
    /// No server can be reached.
    pub fn connect(&self) -> Result<Client, Failure> {
        self.connect_with(self.command_timeout)
    }

    /// As [`Global::connect`], with another time for each call.
    ///
    /// # Errors
    /// No server can be reached.
    pub fn connect_with(&self, request_timeout: Duration) -> Result<Client, Failure> {
        self.connect_to(&self.endpoint, request_timeout)
    }

    /// As [`Global::connect_with`], with other endpoints.
    ///
    /// # Errors
    /// No server can be reached.
    pub fn connect_to<'a>(
        &self,
        endpoints: impl IntoIterator<Item = &'a String>,
        request_timeout: Duration,
    ) -> Result<Client, Failure> {
        if request_timeout.is_zero() || self.dial_timeout.is_zero() {
            return Err(Failure::Arguments("a time-out must be more than 0".into()));
        }
        let options = Options {
            connect_timeout: self.dial_timeout,
            request_timeout,
            client_name: format!("quorate {}", env!("CARGO_PKG_VERSION")),
            cluster: 0,
        };
        Ok(Client::connect(endpoints.into_iter().cloned(), options)?)
    }
}

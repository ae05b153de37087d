//! `limits`: what bounds a member, how much of it is in use, and how often it was met.
//!
//! ```text
//! simple   NAME  IN USE  HIGHEST  LIMIT  HITS, a table for each endpoint
//! json     [{"endpoint":"h:1","limits":[{"name":"watches","unit":"count","limit":1000000,..},..]},..]
//! ```

use client::{LimitUnit, MemberLimit};
use serde_json::{Value, json};

use super::failure::Failure;
use super::output;
use super::session::{Format, Global};
use super::{size, table};

/// What `--help` says.
pub const LONG_ABOUT: &str = "\
Show what bounds a member, how much of it is in use, and how often it was met, of each endpoint.

HIGHEST and HITS count since the start of the server. A hit is a request that was refused, or something
that had to wait, because of the limit; - as a limit: other limits bound this. What other cores have in use
is half a second old.

  connections           of clients; beyond the limit they are closed at once
  requests              taken in and not answered; request-bytes: their bytes
  connection-requests   of one connection; with as many it is not read from
  connection-bytes      of one connection; with half of it it is not read from
  partial-frames        frames that have not come in whole; beyond it they come in one after the other
  unsent-replies        that clients do not take; who adds to them beyond the limit is closed
  http-unsent           answers that clients of HTTP leave unread; beyond it one that takes nothing is cut off
  watches               and connection-watches, of one connection; one more is refused
  proposals             writes that are not applied; one more is refused, with a pause to keep
  log-memory            entries that other members may lack; the oldest go
  log-files             files of the log
  log-reserve           kept free for deletes and compaction on a full disk, and what is taken of it
  reads                 memory of reads in progress; they wait for each other
  answers               memory of answers of writes; they wait for each other
  answers-waiting       answers of writes to be read; beyond it nothing is applied
  dirty-pages           changed pages that no checkpoint has; beyond it nothing is applied for a while
  page-cache            pages in memory; a hit is a read from the disk
  clients               that are remembered; one more takes the place of another
  leases                one more is refused
  disk-reserve          as log-reserve, of the page file";

/// Asks every endpoint and prints what it answers.
///
/// # Errors
/// An endpoint that does not answer, or standard output.
pub fn run(global: &Global) -> Result<(), Failure> {
    let mut failure = None;
    let mut answers = Vec::new();
    for endpoint in &global.endpoint {
        let limits = || -> Result<Vec<MemberLimit>, Failure> {
            let mut client = global.connect_to([endpoint], global.command_timeout)?;
            Ok(client.limits()?)
        };
        match limits() {
            Ok(limits) => answers.push((endpoint, limits)),
            Err(error) => {
                failure.get_or_insert(error);
            }
        }
    }
    let text = match global.write_out {
        Format::Json => format!("{}\n", answers.iter().map(object).collect::<Value>()),
        Format::Simple => {
            let several = global.endpoint.len() > 1;
            let text = |(endpoint, limits): &(&String, Vec<MemberLimit>)| {
                let head = if several { format!("{endpoint}\n") } else { String::new() };
                head + &lines(limits)
            };
            answers.iter().map(text).collect::<Vec<_>>().join("\n")
        }
    };
    if !answers.is_empty() {
        output::text(&text)?;
    }
    failure.map_or(Ok(()), Err)
}

fn lines(limits: &[MemberLimit]) -> String {
    let row = |limit: &MemberLimit| {
        let number = |number: u64| match limit.unit {
            LimitUnit::Count => number.to_string(),
            LimitUnit::Bytes => size::display(number),
        };
        let of = if limit.limit == 0 { "-".to_string() } else { number(limit.limit) };
        let (used, highest) = (number(limit.used), number(limit.highest));
        [limit.name.clone(), used, highest, of, limit.hits.to_string()]
    };
    let rows: Vec<_> = limits.iter().map(row).collect();
    table::lines(["NAME", "IN USE", "HIGHEST", "LIMIT", "HITS"], &rows)
}

fn object((endpoint, limits): &(&String, Vec<MemberLimit>)) -> Value {
    let limit = |limit: &MemberLimit| {
        let MemberLimit { name, limit, used, highest, hits, unit } = limit;
        let unit = match unit {
            LimitUnit::Count => "count",
            LimitUnit::Bytes => "bytes",
        };
        json!({ "name": name, "unit": unit, "limit": limit, "used": used, "highest": highest, "hits": hits })
    };
    json!({ "endpoint": endpoint, "limits": limits.iter().map(limit).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use client::{LimitUnit, MemberLimit};

    use super::{LONG_ABOUT, lines};

    #[test]
    fn a_limit_is_a_line_and_what_others_bound_has_none() {
        let limit = |name: &str, unit, limit| MemberLimit {
            name: name.into(),
            limit,
            used: 3,
            highest: 2_048,
            hits: 1,
            unit,
        };
        let limits = [
            limit("watches", LimitUnit::Count, 1_000_000),
            limit("request-bytes", LimitUnit::Bytes, 0),
        ];
        let expected = "NAME           IN USE  HIGHEST  LIMIT    HITS\n\
                        watches        3       2048     1000000  1\n\
                        request-bytes  3 B     2.0 KiB  -        1\n";
        assert_eq!(lines(&limits), expected);
    }

    #[test]
    fn the_help_fits_a_terminal() {
        assert!(LONG_ABOUT.lines().all(|line| line.len() <= 110));
    }
}

//! The URLs of etcd's command line.

use std::net::{SocketAddr, ToSocketAddrs as _};

use server::{Address, Entrance, Serves};

use super::etcd::refuse;
use super::etcd_flags::Given;
use super::failure::Failure;

/// Characters of the addresses where clients find a member.
const ADVERTISED_SIZE_MAX: usize = server::ADVERTISED_SIZE_MAX;

/// What a URL of a network looks like.
const EXAMPLE: &str =
    "write it like http://10.0.0.1:2379 or, for other members, http://10.0.0.1:2380";

/// The addresses of a flag, and what is served there.
///
/// # Errors
/// One of them is of another form.
pub fn entrances(given: &Given, flag: &str, serves: Serves) -> Result<Vec<Entrance>, Failure> {
    let entrance = |url: &str| {
        let address = match url.trim().strip_prefix("unix://") {
            Some("") => return refuse(format!("--{flag}={url} names no path")),
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(addresses(flag, url)?.remove(0)),
        };
        Ok(Entrance { address, serves })
    };
    given.get(flag).split(',').map(entrance).collect()
}

/// The URLs of a list as a member tells them: HOST:PORT, and URLs of paths, with `;` between them. As many as
/// there is room for.
///
/// # Errors
/// One of them is of another form.
pub fn advertised(flag: &str, urls: &str) -> Result<String, Failure> {
    let mut told = String::new();
    for url in urls.split(',') {
        let url = url.trim();
        let one =
            if url.starts_with("unix://") { url.to_owned() } else { hosts(flag, url)?.remove(0) };
        let longer = if told.is_empty() { one } else { format!("{told};{one}") };
        if longer.len() > ADVERTISED_SIZE_MAX && !told.is_empty() {
            server::log::warn(format!(
                "--{flag}: {url} is not told to clients: a member's addresses may have \
                 {ADVERTISED_SIZE_MAX} characters in all"
            ));
            continue;
        }
        told = longer;
    }
    Ok(told)
}

/// HOST:PORT of each URL of a list.
///
/// # Errors
/// One of them is of another form.
pub fn hosts(flag: &str, urls: &str) -> Result<Vec<String>, Failure> {
    let host = |url: &str| {
        let url = url.trim();
        let rest = url.strip_prefix("http://").ok_or_else(|| {
            let why = if url.starts_with("https://") || url.starts_with("unixs://") {
                "TLS is not there yet"
            } else {
                EXAMPLE
            };
            Failure::Arguments(format!("--{flag}={url}: {why}"))
        })?;
        let host = rest.trim_end_matches('/');
        if host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            Ok(host.to_owned())
        } else {
            refuse(format!("--{flag}={url} names no port"))
        }
    };
    urls.split(',').map(host).collect()
}

/// The addresses to listen on.
///
/// # Errors
/// One of them is of another form, or a name that means nothing.
pub fn addresses(flag: &str, urls: &str) -> Result<Vec<SocketAddr>, Failure> {
    let address = |host: &String| {
        let found = host.to_socket_addrs().map_err(|error| {
            Failure::Arguments(format!("--{flag}: {host} cannot be looked up: {error}"))
        })?;
        let all: Vec<SocketAddr> = found.collect();
        // localhost has two, and clients without IPv6 are many.
        let best = all.iter().find(|address| address.is_ipv4()).or_else(|| all.first());
        best.copied().ok_or_else(|| Failure::Arguments(format!("--{flag}: {host} has no address")))
    };
    hosts(flag, urls)?.iter().map(address).collect()
}

/// Refuses founders among whom this member is not, or is with other URLs than those that it tells of itself. Of a
/// cluster that exists the member's name is enough: the others know its address.
///
/// # Errors
/// See there, in etcd's words.
pub fn check_founders(given: &Given, founders: &str) -> Result<(), Failure> {
    let name = given.get("name");
    let parts = founders.split(',').filter_map(|part| part.trim().split_once('='));
    let mut listed: Vec<&str> =
        parts.filter(|(one, _)| *one == name).map(|(_, url)| url.trim()).collect();
    if listed.is_empty() {
        return refuse(format!(
            "couldn't find local name \"{name}\" in the initial cluster configuration: \
             --initial-cluster={founders}; one of its members must be this one"
        ));
    }
    if given.get("initial-cluster-state") == "existing" {
        return Ok(());
    }
    let text = given.get("initial-advertise-peer-urls");
    let mut told: Vec<&str> = text.split(',').map(str::trim).collect();
    listed.sort_unstable();
    told.sort_unstable();
    if listed == told {
        return Ok(());
    }
    let resolve = |urls: &[&str]| urls.iter().map(|url| resolved(url)).collect::<Vec<String>>();
    let (listed_at, told_at) = (resolve(&listed), resolve(&told));
    let missing = |of: &[String], from: &[String]| of.iter().position(|url| !from.contains(url));
    if let Some(place) = missing(&listed_at, &told_at) {
        return refuse(format!(
            "--initial-cluster has {name}={} but missing from --initial-advertise-peer-urls={text}; \
             give this member the same URLs in both",
            listed[place]
        ));
    }
    if let Some(place) = missing(&told_at, &listed_at) {
        return refuse(format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster={founders}; \
             give this member the same URLs in both",
            told[place]
        ));
    }
    Ok(())
}

/// A URL with the address of its host, where that is a name. `localhost` stays what it is, as in etcd.
fn resolved(url: &str) -> String {
    let Some(host) = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/')) else {
        return url.to_owned();
    };
    if host.starts_with("localhost:") {
        return host.to_owned();
    }
    let first = host.to_socket_addrs().ok().and_then(|mut found| found.next());
    first.map_or_else(|| host.to_owned(), |address| address.to_string())
}

/// `name=url,...`; of a name with several URLs the first counts.
///
/// # Errors
/// It has another form.
pub fn founders(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let mut founders: Vec<(String, String)> = Vec::new();
    for part in text.split(',') {
        let Some((name, url)) = part.trim().split_once('=') else {
            return refuse(format!("--initial-cluster: {part:?} is not of the form NAME=URL"));
        };
        let host = hosts("initial-cluster", url)?.remove(0);
        if founders.iter().all(|(other, _)| other != name) {
            founders.push((name.to_owned(), host));
        }
    }
    Ok(founders)
}

//! How a member comes to be: alone, as one of the founders of a cluster, or by joining one that exists.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use base::{FileId, NodeId};
use bytes::BytesMut;
use wire::{Member, MemberList, MemberRole, PeerEncoder, PeerFrame, PeerJoin, Splitter};

use crate::Error;
use crate::config::ClusterConfig;

/// A member that joins asks for this long.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// One answer is waited for this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between rounds of asking.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// What a new member is.
pub struct Founding {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: NodeId,
    /// The members that it knows of, encoded.
    pub members: Vec<u8>,
}

/// Who a member with an empty data directory is.
pub fn found(config: &ClusterConfig, random_cluster: u64) -> Result<Founding, Error> {
    if config.alone {
        return Err(Error::Config(
            "--force-new-cluster is for the data directory of a member whose cluster has lost its \
             majority, and there is none here; check --data-dir"
                .into(),
        ));
    }
    if config.initial_cluster.is_empty() {
        let member = NodeId::new(1);
        let peer_address = config.advertised_peer().unwrap_or_default();
        let list = list(&[(config.name.clone(), peer_address)])?;
        return Ok(Founding { cluster: random_cluster, member, members: encode(&list)? });
    }
    if config.existing {
        return join(config);
    }
    let list = list(&config.initial_cluster)?;
    let members = encode(&list)?;
    let mut seed = config.token.clone().into_bytes();
    seed.push(0);
    seed.extend_from_slice(&members);
    let hash = base::hash128(&seed).to_bytes();
    let (first, _) = hash.split_at(8);
    let cluster = u64::from_le_bytes(first.try_into().expect("half of 16 bytes")).max(1);
    Ok(Founding { cluster, member: own_id(&list, config)?, members })
}

fn own_id(list: &MemberList, config: &ClusterConfig) -> Result<NodeId, Error> {
    list.by_name(&config.name).map(|member| member.id).ok_or_else(|| {
        let names: Vec<&str> = list.members.iter().map(|member| member.name.as_str()).collect();
        Error::Config(format!(
            "--name is {} and --initial-cluster names {}; one of them must be this member",
            config.name,
            names.join(", ")
        ))
    })
}

/// Founders: in the order of their names, so that every one of them numbers all alike.
fn list(founders: &[(String, String)]) -> Result<MemberList, Error> {
    let mut founders = founders.to_vec();
    founders.sort();
    let members: Vec<Member> = (1..)
        .zip(founders)
        .map(|(id, (name, peer_address))| Member {
            id: NodeId::new(id),
            name,
            peer_address,
            client_address: String::new(),
            data_id: FileId::new(0),
            role: MemberRole::Voter,
        })
        .collect();
    let next_member = members.last().map_or(1, |last| last.id.get() + 1);
    Ok(MemberList { next_member, members })
}

fn encode(list: &MemberList) -> Result<Vec<u8>, Error> {
    list.encode().map_err(|error| Error::Config(format!("--initial-cluster: {error}")))
}

/// Asks the members of a cluster that exists who this one is.
fn join(config: &ClusterConfig) -> Result<Founding, Error> {
    let begin = Instant::now();
    let mut told = false;
    loop {
        let mut reasons = Vec::new();
        for (name, address) in &config.initial_cluster {
            if *name == config.name {
                continue;
            }
            match ask(config, address) {
                Ok(Some(founding)) => return Ok(founding),
                Ok(None) => {}
                Err(reason) => reasons.push(format!("{name} at {address}: {reason}")),
            }
        }
        let text = if reasons.is_empty() {
            "--initial-cluster names no other member to ask".to_string()
        } else {
            reasons.join("; ")
        };
        if begin.elapsed() > JOIN_TIMEOUT || reasons.is_empty() {
            return Err(Error::Config(format!("this member cannot join the cluster: {text}")));
        }
        if !told {
            told = true;
            crate::log::info(format!("waiting to join: {text}"));
        }
        thread::sleep(ASK_INTERVAL);
    }
}

fn ask(config: &ClusterConfig, address: &str) -> Result<Option<Founding>, String> {
    let own = config
        .initial_cluster
        .iter()
        .find(|(name, _)| *name == config.name)
        .map(|(_, address)| address.clone())
        .or_else(|| config.advertised_peer())
        .unwrap_or_default();
    let text = |error: io::Error| error.to_string();
    let target = address.to_socket_addrs().map_err(text)?.next().ok_or("no such host")?;
    let mut stream = TcpStream::connect_timeout(&target, ANSWER_TIMEOUT).map_err(text)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(text)?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(text)?;
    let mut bytes = Vec::new();
    let question = PeerFrame::Join(PeerJoin { name: &config.name, address: &own });
    PeerEncoder::new().encode(&mut bytes, &question).map_err(|error| error.to_string())?;
    stream.write_all(&bytes).map_err(text)?;
    let (mut splitter, mut received) = (Splitter::between_members(), BytesMut::new());
    let mut chunk = [0; 4096];
    let (header, body) = loop {
        if let Some(frame) = splitter.next(&mut received).map_err(|error| error.to_string())? {
            break frame;
        }
        match stream.read(&mut chunk).map_err(text)? {
            0 => return Err("it closed the connection without an answer".into()),
            count => received.extend_from_slice(&chunk[..count]),
        }
    };
    match PeerFrame::verify(&header, &body).map_err(|error| error.to_string())? {
        PeerFrame::JoinReply(reply) if reply.member.get() != 0 => Ok(Some(Founding {
            cluster: reply.cluster,
            member: reply.member,
            members: reply.members.to_vec(),
        })),
        PeerFrame::JoinReply(reply) => Err(reply.message.to_string()),
        PeerFrame::Refused(refused) => Err(refused.message.to_string()),
        _ => Err("it answered with something else".into()),
    }
}

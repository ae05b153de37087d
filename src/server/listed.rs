//! What the newest list of members in a data directory says of the member whose directory it is.

use std::net::SocketAddr;

use base::NodeId;
use node::Booted;
use wire::MemberList;

use crate::Error;
use crate::config::ClusterConfig;

/// The own place in the newest list of members.
pub struct Listed {
    name: String,
    /// Where the others find this member; empty if none is listed.
    address: String,
    /// Whether there are others.
    pub has_others: bool,
}

impl Listed {
    /// As recovery found it. A list that cannot be read is refused elsewhere.
    pub fn of(booted: &Booted, member: NodeId) -> Self {
        let newest = booted.members.last().and_then(|(_, bytes)| MemberList::decode(bytes).ok());
        let members = newest.map_or_else(Vec::new, |list| list.members);
        let own = members.iter().find(|listed| listed.id == member);
        Self {
            name: own.map_or_else(String::new, |own| own.name.clone()),
            address: own.map_or_else(String::new, |own| own.peer_address.clone()),
            has_others: members.iter().any(|listed| listed.id != member),
        }
    }

    /// Where to listen for others when no flag says it: at the listed address, if there are others, else
    /// at that among the founders.
    ///
    /// # Errors
    /// The address is a name, which cannot be listened on, and no founders are named.
    pub fn address_to_listen_on(
        &self,
        config: &ClusterConfig,
    ) -> Result<Option<SocketAddr>, Error> {
        if !self.has_others || self.address.is_empty() || config.alone {
            return config.peer_address();
        }
        if let Ok(address) = self.address.parse() {
            return Ok(Some(address));
        }
        let refusal = || {
            Error::Config(format!(
                "the other members find this one, {}, at {}, which is no IP:PORT to listen on; say \
                 --listen-peer",
                self.name, self.address
            ))
        };
        config.peer_address()?.map(Some).ok_or_else(refusal)
    }

    /// Tells an operator who has given another address than the one that the others know.
    pub fn tell_of_another_address(&self, config: &ClusterConfig) {
        let Some(own) = config.advertised_peer() else { return };
        let is_any = config.listen_peer.is_some_and(|listen| listen.ip().is_unspecified());
        if config.advertise_peer.is_none() && is_any {
            return;
        }
        if self.has_others && !config.alone && !self.address.is_empty() && own != self.address {
            crate::log::warn(format!(
                "the other members look for this one, {0}, at {1}, and it listens at {own}; \
                 unless {1} leads here, tell them with `quorate member update {0} --peer {own}`",
                self.name, self.address
            ));
        }
    }
}

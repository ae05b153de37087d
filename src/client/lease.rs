//! Calls about leases: grant, revoke, keep alive, what is left of one, and which there are.
//!
//! They are repeated as other calls are. What keeps leases alive by itself is a
//! [`LeaseKeeper`](crate::LeaseKeeper).

use std::time::Duration;

use base::limits::KEEP_ALIVE_MAX;
use wire::{
    Call, LeaseGrant, LeaseKeepAlive, LeaseList, LeaseRevoke, LeaseTimeToLive, Numbers, Reply,
};

use crate::client::Client;
use crate::error::Error;
use crate::result::{
    LeaseGrantResult, LeaseKeepAliveResult, LeaseRevokeResult, LeaseTimeToLiveResult, LeasesResult,
};

/// Whole milliseconds, rounded up: who asks for a little time does not get none.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

impl Client {
    /// Makes a lease that lives `ttl` without being kept alive. The server chooses its id if `lease` is 0.
    ///
    /// A client without a session that loses the answer gets [`Error::OutcomeUnknown`]; the lease, if it
    /// was made, ends by itself.
    pub fn lease_grant(&mut self, lease: i64, ttl: Duration) -> Result<LeaseGrantResult, Error> {
        let request = LeaseGrant { lease, ttl_ms: milliseconds(ttl) };
        self.call(&Call::LeaseGrant(request), |reply| match reply {
            Reply::LeaseGrant(reply) => Some(reply.into()),
            _ => None,
        })
    }

    /// Ends a lease, and the keys that hang on it.
    pub fn lease_revoke(&mut self, lease: i64) -> Result<LeaseRevokeResult, Error> {
        self.call(&Call::LeaseRevoke(LeaseRevoke { lease }), |reply| match reply {
            Reply::LeaseRevoke(reply) => Some(reply.into()),
            _ => None,
        })
    }

    /// Lets leases begin their time anew, with one request for each
    /// [`KEEP_ALIVE_MAX`](base::limits::KEEP_ALIVE_MAX) of them. Their new time counts from when this
    /// was called, not from its answer.
    pub fn lease_keep_alive(&mut self, leases: &[i64]) -> Result<LeaseKeepAliveResult, Error> {
        let mut result = LeaseKeepAliveResult::default();
        for leases in leases.chunks(KEEP_ALIVE_MAX) {
            let request = LeaseKeepAlive { leases: Numbers::Given(leases) };
            let (revision, ttls) = self.call(&Call::LeaseKeepAlive(request), |reply| {
                let Reply::LeaseKeepAlive(reply) = reply else { return None };
                // An answer about other leases is none.
                let ttls = reply.ttls_ms;
                (ttls.len() == leases.len()).then(|| (reply.revision, ttls.iter().collect()))
            })?;
            let ttls: Vec<i64> = ttls;
            let span = |ttl| Duration::from_millis(u64::try_from(ttl).unwrap_or(0));
            result.revision = revision;
            result.ttls.extend(ttls.into_iter().map(span));
        }
        Ok(result)
    }

    /// What is left of a lease, and the keys that hang on it if `keys`. Many keys take several requests;
    /// keys that are attached or deleted meanwhile may be missing or told all the same.
    pub fn lease_time_to_live(
        &mut self,
        lease: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResult, Error> {
        let mut result = LeaseTimeToLiveResult::default();
        loop {
            let after_key = result.keys.last().map_or(&[][..], |key| key.as_slice());
            let request = LeaseTimeToLive { lease, keys, after_key, limit: 0 };
            let (page, more) = self.call(&Call::LeaseTimeToLive(request), |reply| {
                let Reply::LeaseTimeToLive(reply) = reply else { return None };
                let page = LeaseTimeToLiveResult {
                    revision: reply.revision,
                    granted: Duration::from_millis(reply.granted_ms),
                    left: Duration::from_millis(reply.left_ms),
                    key_count: reply.key_count,
                    keys: reply.keys.iter().map(<[u8]>::to_vec).collect(),
                };
                Some((page, reply.more))
            })?;
            let is_last = !keys || !more || page.keys.is_empty();
            let mut known = std::mem::replace(&mut result, page);
            known.keys.append(&mut result.keys);
            result.keys = known.keys;
            if is_last {
                return Ok(result);
            }
        }
    }

    /// The leases that there are. Many of them take several requests.
    pub fn leases(&mut self) -> Result<LeasesResult, Error> {
        let mut result = LeasesResult::default();
        loop {
            let after_lease = result.leases.last().copied().unwrap_or(0);
            let request = LeaseList { after_lease, limit: 0 };
            let (revision, more, page) = self.call(&Call::LeaseList(request), |reply| {
                let Reply::LeaseList(reply) = reply else { return None };
                Some((reply.revision, reply.more, reply.leases.iter().collect::<Vec<i64>>()))
            })?;
            let is_last = !more || page.is_empty();
            result.revision = revision;
            result.leases.extend(page);
            if is_last {
                return Ok(result);
            }
        }
    }
}

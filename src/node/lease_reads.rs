//! Reads about leases: how long one has left and which keys hang on it, and which leases there are.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use base::LeaseId;
use base::limits::REPLY_PIECE_SIZE;
use kv::DueError;
use wire::{
    Keys, Kind, LeaseListReply, LeaseTimeToLive, LeaseTimeToLiveReply, Numbers, Request,
    VerifyLimits,
};

use crate::message::ReplyBody;
use crate::reads::{Task, Work};
use crate::store::{Next, Store};
use crate::translate;

/// Keys or leases of one answer.
const COUNT_MAX: u32 = 4_096;

impl<B: AsRef<[u8]> + AsMut<[u8]>> Store<B> {
    /// Answers a read about leases.
    pub(crate) fn run_lease(&mut self, task: &Task) -> Next {
        let Work::Lease(_, frame, time) = &task.work else {
            unreachable!("the caller matched a read about leases")
        };
        let mut out = Vec::new();
        let limits = &VerifyLimits::REQUEST;
        let kind = match &task.work {
            Work::Lease(crate::ReadKind::Leases, ..) => Kind::LeaseList,
            _ => Kind::LeaseTimeToLive,
        };
        let answered = match Request::verify(kind, frame, limits) {
            Ok(Request::LeaseTimeToLive(request)) => {
                self.time_to_live(task, &request, *time, &mut out)
            }
            Ok(Request::LeaseList(request)) => {
                let limit = within(request.limit);
                let mut leases = Vec::new();
                let listed = self.state.leases(LeaseId::new(request.after_lease), &mut |id| {
                    leases.push(id.get());
                    if leases.len() > limit {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    }
                });
                whole_or_part(listed, leases.len()).map(|whole| {
                    let more = !whole || leases.len() > limit;
                    leases.truncate(limit);
                    let revision = translate::i64_of(self.state.revision());
                    let reply = LeaseListReply { revision, more, leases: Numbers::Given(&leases) };
                    self.writer.lease_list(&mut out, task.ticket.request, &reply);
                })
            }
            Ok(_) | Err(_) => unreachable!("the reactor verified this request"),
        };
        match answered {
            Ok(()) => Next::Finished(ReplyBody::Frames(out)),
            Err(DueError::Miss(miss)) => Next::Miss(miss),
            Err(DueError::Damaged(damage)) => Next::Damaged(damage),
        }
    }

    fn time_to_live(
        &mut self,
        task: &Task,
        request: &LeaseTimeToLive<'_>,
        time: u64,
        out: &mut Vec<u8>,
    ) -> Result<(), DueError> {
        let id = LeaseId::new(request.lease);
        let revision = translate::i64_of(self.state.revision());
        let mut reply = LeaseTimeToLiveReply { revision, ..LeaseTimeToLiveReply::default() };
        let mut found: Vec<Vec<u8>> = Vec::new();
        if let Some(lease) = self.state.lease(id)? {
            reply.granted_ms = lease.ttl_ms;
            // Whole milliseconds, and never 0 before its time is up.
            reply.left_ms = lease.deadline.saturating_sub(time).div_ceil(1_000_000);
            reply.key_count = translate::count_of(self.state.lease_keys_count(id)?);
            if request.keys {
                let limit = within(request.limit);
                let mut size = 0;
                let listed = self.state.lease_keys(id, request.after_key, &mut |key| {
                    reply.more = found.len() == limit || size > REPLY_PIECE_SIZE;
                    if reply.more {
                        return ControlFlow::Break(());
                    }
                    size += key.len();
                    found.push(key.to_vec());
                    ControlFlow::Continue(())
                });
                reply.more |= !whole_or_part(listed, found.len())?;
            }
        }
        let keys: Vec<&[u8]> = found.iter().map(Vec::as_slice).collect();
        reply.keys = Keys::Given(&keys);
        self.writer.lease_time_to_live(out, task.ticket.request, &reply);
        Ok(())
    }
}

/// Whether all was found. Where a page is missing, what there is before it goes out: begun anew once it has
/// come, a long list would need all of its pages in memory at once, and a small cache never has them.
fn whole_or_part(listed: Result<(), DueError>, found: usize) -> Result<bool, DueError> {
    match listed {
        Ok(()) => Ok(true),
        Err(DueError::Miss(_)) if found > 0 => Ok(false),
        Err(error) => Err(error),
    }
}

/// How many of what was asked for one answer has.
fn within(limit: u32) -> usize {
    let limit = if limit == 0 { COUNT_MAX } else { limit.min(COUNT_MAX) };
    usize::try_from(limit).expect("a few thousand")
}

//! A counter: a key whose value is a number, changed with compare and set.

use std::thread;
use std::time::Duration;

use wire::{Compare, CompareResult, CompareTarget, Op, Put, Txn};

use super::RecipeError;
use crate::client::Client;

/// How often a change is tried.
const ATTEMPTS_MAX: u32 = 64;

/// A number under a key, in decimal digits; a key that does not exist is 0.
///
/// Guaranteed: every [`Self::add`] that returned a sum counts once, and no two return the same sum unless
/// something else than 1 or -1 is added. Not guaranteed: anything about an addition that failed with
/// [`Error::OutcomeUnknown`](crate::Error::OutcomeUnknown), which a client with a session
/// ([`Client::with_session`]) hardly ever sees; and speed, for all additions of a key happen one after the
/// other.
#[derive(Clone, Debug)]
pub struct Counter {
    key: Vec<u8>,
}

impl Counter {
    /// The counter under this key.
    pub fn new(key: &[u8]) -> Self {
        Self { key: key.to_vec() }
    }

    /// What it stands at.
    ///
    /// Errors: those of a read; [`RecipeError::NotOurs`]: the value is no number.
    pub fn get(&self, client: &mut Client) -> Result<i64, RecipeError> {
        self.read(client).map(|(number, _)| number)
    }

    /// Adds to it; gives the sum, which does not go beyond 64 bits.
    ///
    /// Errors: those of a write; [`RecipeError::Contended`] after many attempts;
    /// [`RecipeError::NotOurs`]: the value is no number.
    pub fn add(&self, client: &mut Client, addend: i64) -> Result<i64, RecipeError> {
        for attempt in 0..ATTEMPTS_MAX {
            let (number, mod_revision) = self.read(client)?;
            let sum = number.saturating_add(addend);
            let text = sum.to_string();
            let (target, equal) = (CompareTarget::ModRevision, CompareResult::Equal);
            let unchanged = Compare::number(&self.key, target, equal, mod_revision);
            let put = Op::Put(Put::new(&self.key, text.as_bytes()));
            if client.txn(&Txn::new().when(unchanged).then(put))?.succeeded {
                return Ok(sum);
            }
            // Others are at it: let some of them go first.
            thread::sleep(Duration::from_micros(client.random_below(500 * u64::from(attempt + 1))));
        }
        Err(RecipeError::Contended { attempts: ATTEMPTS_MAX })
    }

    /// The number, and the revision of its last change.
    fn read(&self, client: &mut Client) -> Result<(i64, i64), RecipeError> {
        let Some(kv) = client.get(&self.key)? else { return Ok((0, 0)) };
        let number = str::from_utf8(&kv.value).ok().and_then(|text| text.parse().ok());
        match number {
            Some(number) => Ok((number, kv.mod_revision)),
            None => Err(RecipeError::NotOurs { key: kv.key }),
        }
    }
}

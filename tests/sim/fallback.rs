//! What a member would come back with if one of its two meta slots were lost now: what the older checkpoint
//! needs, of pages and of the log, must all still be there (I10, I11).

use base::NodeId;
use node::{Boot, BootError, BootStep, Booted, DataFile};
use tree::{META_SIZE, SLOT_OFFSETS};

use crate::disk::Name;
use crate::member::Node;

impl Node {
    /// Boots from a copy with one slot blank, then with the other; says what goes wrong. A state that came
    /// from another member has one slot only.
    pub fn survives_lost_slots(&mut self, options: &tree::Options) -> Result<(), String> {
        if self.is_damaged || self.took_state || self.disk.size(Name::Incoming) > 0 {
            return Ok(());
        }
        // A crash within the write of a record has taken one already.
        let whole = self.boots_without(None, options);
        let is_torn = whole.is_ok_and(|booted| {
            booted.clear_slots || booted.state.pages().slot_to_clear().is_some()
        });
        // One that was taken so was cleared by a start, and no checkpoint has followed yet.
        let mut is_blank = |slot| {
            let record = self.disk.read(Name::Pages, slot, META_SIZE);
            record.iter().all(|byte| *byte == 0)
        };
        if is_torn || SLOT_OFFSETS.into_iter().any(&mut is_blank) {
            return Ok(());
        }
        for slot in SLOT_OFFSETS {
            self.boots_without(Some(slot), options).map_err(|error| {
                let id = NodeId::new(self.id).get();
                format!("I11: member {id} does not survive the loss of its slot at {slot}: {error}")
            })?;
        }
        Ok(())
    }

    fn boots_without(
        &mut self,
        slot: Option<u64>,
        options: &tree::Options,
    ) -> Result<Booted, BootError> {
        let pages_size = self.disk.size(Name::Pages);
        let mut boot = Boot::new(options.clone(), pages_size, self.files(), self.founders.clone());
        while let BootStep::Read { file, offset, size } = boot.next()? {
            let name = match file {
                DataFile::Pages => Name::Pages,
                DataFile::Wal(file) => Name::Wal(file),
            };
            let mut bytes = self.disk.read(name, offset, size).to_vec();
            if let Some(slot) = slot.filter(|_| name == Name::Pages) {
                for (at, byte) in (offset..).zip(&mut bytes) {
                    if (slot..slot + META_SIZE as u64).contains(&at) {
                        *byte = 0;
                    }
                }
            }
            boot.feed(&bytes)?;
        }
        Ok(boot.finish())
    }
}

//! The second page file: where the state of another member comes in, beside the one that is served from.
//!
//! It is made and removed by its one path, and both take a while. So what the store wanted last is
//! noted, and one task at a time brings the file system there: a path is never removed under an open
//! file in the making, and an older wish never undoes a newer one.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use crate::data_dir::sync_directory_of;
use crate::disk::{DiskFile, halt};

/// What is told of a file that has been made: the number of its transfer, and the file.
type Tell = Box<dyn Fn(u64, Rc<DiskFile>)>;

/// The second page file.
pub struct Incoming {
    wish: Rc<Wish>,
    /// The file, by the number of its transfer.
    file: Option<(u64, Rc<DiskFile>)>,
}

/// What is wanted, for the task that brings it about.
struct Wish {
    path: PathBuf,
    tell: Tell,
    /// The transfer that wants a file, if one does.
    transfer: Cell<Option<u64>>,
    /// What is there may not be what is wanted.
    is_new: Cell<bool>,
    /// The task runs.
    is_busy: Cell<bool>,
}

impl Incoming {
    /// None yet, at this path; `tell` hears of each one that was made.
    pub fn new(path: PathBuf, tell: impl Fn(u64, Rc<DiskFile>) + 'static) -> Self {
        let wish = Wish {
            path,
            tell: Box::new(tell),
            transfer: Cell::new(None),
            is_new: Cell::new(false),
            is_busy: Cell::new(false),
        };
        Self { wish: Rc::new(wish), file: None }
    }

    /// The file of a transfer, if that is the one that is there.
    pub fn of(&self, transfer: u64) -> Option<&Rc<DiskFile>> {
        self.file.as_ref().filter(|(number, _)| *number == transfer).map(|(_, file)| file)
    }

    /// A file was made for a transfer, which may be over.
    pub fn fill(&mut self, transfer: u64, file: Rc<DiskFile>) {
        if self.wish.transfer.get() == Some(transfer) {
            self.file = Some((transfer, file));
        }
    }

    /// Hands the file over; its name stays.
    pub fn take(&mut self) -> Option<Rc<DiskFile>> {
        self.wish.transfer.set(None);
        self.file.take().map(|(_, file)| file)
    }

    /// Has an empty file made, its name durable, in the place of one that is there; or has it removed.
    pub fn want(&mut self, transfer: Option<u64>) {
        self.file = None;
        self.wish.transfer.set(transfer);
        self.wish.is_new.set(true);
        if !self.wish.is_busy.replace(true) {
            let wish = Rc::clone(&self.wish);
            glommio::spawn_local(async move { wish.fulfil().await }).detach();
        }
    }
}

impl Wish {
    async fn fulfil(&self) {
        while self.is_new.replace(false) {
            if let Err(error) = std::fs::remove_file(&self.path)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                halt("removing", &self.path, &error);
            }
            let Some(transfer) = self.transfer.get() else { continue };
            let file = match DiskFile::open(self.path.clone(), false).await {
                Ok(file) => file,
                Err(error) => halt("making", &self.path, &error),
            };
            // The log begins anew behind the state before the file gets its final name: a power cut
            // between the two must find it under this one.
            let named = self.path.clone();
            let synced = glommio::executor().spawn_blocking(move || sync_directory_of(&named));
            if let Err(error) = synced.await {
                halt("syncing the directory of", &self.path, &error);
            }
            if !self.is_new.get() {
                (self.tell)(transfer, file);
            }
        }
        self.is_busy.set(false);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use glommio::LocalExecutorBuilder;
    use glommio::timer::sleep;

    use super::*;

    /// Wishes that overtake each other: the last one counts, and no file loses its path while it is
    /// opened.
    #[test]
    fn of_many_wishes_at_once_the_last_one_is_fulfilled() {
        let folder = std::env::temp_dir().join(format!("quorate-incoming-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("pages.new");
        let checked = path.clone();
        let executor = LocalExecutorBuilder::default().spawn(move || async move {
            let made = Rc::new(Cell::new(0));
            let told = Rc::clone(&made);
            let mut incoming = Incoming::new(path.clone(), move |transfer, _| told.set(transfer));
            let pause = std::time::Duration::from_micros(30);
            for transfer in 1..200 {
                incoming.want(Some(transfer));
                if transfer % 3 == 0 {
                    sleep(pause * u32::try_from(transfer % 7).unwrap()).await;
                }
                incoming.want(None);
            }
            incoming.want(Some(200));
            while incoming.wish.is_busy.get() {
                sleep(pause).await;
            }
            assert!(path.exists());
            assert_eq!(made.get(), 200);
            incoming.want(None);
            while incoming.wish.is_busy.get() {
                sleep(pause).await;
            }
        });
        executor.unwrap().join().unwrap();
        assert!(!checked.exists());
        std::fs::remove_dir_all(folder).unwrap();
    }
}

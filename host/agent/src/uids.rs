//! One user id per guest, from a recorded range. The store writes down who has which.

use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// How many there are.
pub(crate) const RANGE: u32 = 65_536;

#[derive(Default)]
pub(crate) struct Uids {
    first: u32,
    by_guest: HashMap<Uuid, u32>,
    taken: BTreeSet<u32>,
    /// All below it are taken.
    free_from: u32,
}

impl Uids {
    pub fn new(first: u32) -> Self {
        Self {
            first,
            free_from: first,
            ..Self::default()
        }
    }

    pub fn get(&self, guest: Uuid) -> Option<u32> {
        self.by_guest.get(&guest).copied()
    }

    pub fn all(&self) -> impl Iterator<Item = (Uuid, u32)> {
        self.by_guest.iter().map(|(g, u)| (*g, *u))
    }

    pub fn set(&mut self, guest: Uuid, uid: u32) {
        self.free(guest);
        self.by_guest.insert(guest, uid);
        self.taken.insert(uid);
    }

    /// Gives the guest a user id that nobody has. `None` when it has one, or when there is none left.
    pub fn give(&mut self, guest: Uuid) -> Option<u32> {
        if self.by_guest.contains_key(&guest) {
            return None;
        }
        let uid = (self.free_from..self.first.saturating_add(RANGE)).find(|u| !self.taken.contains(u))?;
        self.free_from = uid + 1;
        self.set(guest, uid);
        Some(uid)
    }

    pub fn free(&mut self, guest: Uuid) {
        if let Some(uid) = self.by_guest.remove(&guest) {
            self.taken.remove(&uid);
            self.free_from = self.free_from.min(uid).max(self.first);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_one_and_none_twice() {
        let mut uids = Uids::new(100);
        let guests: Vec<Uuid> = (1..5).map(Uuid::from_u128).collect();
        for (i, g) in guests.iter().enumerate() {
            assert_eq!(uids.give(*g), Some(100 + i as u32));
            assert_eq!(uids.give(*g), None);
        }
        uids.free(guests[1]);
        uids.free(guests[2]);
        assert_eq!(uids.give(Uuid::from_u128(9)), Some(101));
        assert_eq!(uids.give(guests[1]), Some(102));
        assert_eq!(uids.give(guests[2]), Some(104));
        for i in 0..u128::from(RANGE) - 5 {
            assert!(uids.give(Uuid::from_u128(1000 + i)).is_some());
        }
        assert_eq!(uids.give(Uuid::from_u128(5)), None);
    }
}

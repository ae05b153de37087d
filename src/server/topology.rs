//! Which role runs on which core.
//!
//! | cores | `auto` |
//! | --- | --- |
//! | 1, 2 | one executor with all roles, left to the scheduler: on two cores it beat two executors in every figure |
//! | 3 and more | consensus on the first, the store on the second, a reactor on each further one |

use base::ReactorId;

use crate::config::Topology;

/// The roles of one executor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The core it is bound to; none: the scheduler decides.
    pub core: Option<usize>,
    /// The reactor on it.
    pub reactor: Option<ReactorId>,
    /// Whether consensus runs on it.
    pub consensus: bool,
    /// Whether the store runs on it.
    pub store: bool,
}

/// The executors of a server on these cores; `bind` says whether they are bound to them.
pub fn places(topology: Topology, cores: &[usize], bind: bool) -> Vec<Place> {
    let dedicated = match topology {
        Topology::Auto => cores.len() >= 3,
        Topology::Shared => false,
        Topology::Dedicated => true,
    };
    let reactor = |number: usize| {
        Some(ReactorId::new(u16::try_from(number).expect("fewer than 65,536 cores")))
    };
    let core = |index: usize| if bind { cores.get(index).copied() } else { None };
    let mut places = Vec::new();
    if dedicated {
        places.push(Place { core: core(0), reactor: None, consensus: true, store: false });
        places.push(Place { core: core(1), reactor: None, consensus: false, store: true });
        for number in 0..cores.len().saturating_sub(2).max(1) {
            places.push(Place {
                core: core(number + 2),
                reactor: reactor(number),
                consensus: false,
                store: false,
            });
        }
    } else {
        // In `auto` a second core is left to the clients, the kernel and its disk work.
        let count = if topology == Topology::Auto { 1 } else { cores.len().max(1) };
        for number in 0..count {
            let first = number == 0;
            places.push(Place {
                core: core(number),
                reactor: reactor(number),
                consensus: first,
                store: first,
            });
        }
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topology_has_one_consensus_one_store_and_consecutive_reactors() {
        for topology in [Topology::Auto, Topology::Shared, Topology::Dedicated] {
            for count in 1..9 {
                let cores: Vec<usize> = (0..count).collect();
                let places = places(topology, &cores, true);
                assert_eq!(places.iter().filter(|place| place.consensus).count(), 1);
                assert_eq!(places.iter().filter(|place| place.store).count(), 1);
                let reactors: Vec<u16> =
                    places.iter().filter_map(|place| place.reactor).map(ReactorId::get).collect();
                let count = u16::try_from(reactors.len()).expect("few");
                assert!(count > 0, "{topology:?} on {cores:?} has nobody to accept");
                assert_eq!(reactors, (0..count).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn small_machines_run_all_roles_on_one_executor() {
        assert_eq!(places(Topology::Auto, &[0, 1], false).len(), 1);
        assert_eq!(places(Topology::Auto, &[0, 1, 2], true).len(), 3);
    }
}

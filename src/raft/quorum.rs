//! Quorum arithmetic: pure functions over the positions of the voters.

use base::LogIndex;

/// The greatest value that a majority has reached, given what each has (in any order; the slice is
/// reordered). Of booleans: whether a majority says yes.
///
/// With `n` voters that is the `n - quorum`-th smallest value: `quorum` voters lie at or above it.
pub fn majority<T: Ord + Copy>(values: &mut [T]) -> T {
    assert!(!values.is_empty(), "a quorum of no voters");
    values.sort_unstable();
    let quorum = values.len() / 2 + 1;
    values[values.len() - quorum]
}

/// The greatest index that a majority of voters has reached, given what each has.
pub fn committed_by(matched: &mut [LogIndex]) -> LogIndex {
    majority(matched)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition, for every table of up to 5 voters and positions 0..4.
    #[test]
    fn committed_by_is_the_greatest_index_that_a_majority_holds() {
        for voters in 1..=5_u32 {
            for code in 0..4_u64.pow(voters) {
                let mut rest = code;
                let mut matched = Vec::new();
                for _ in 0..voters {
                    matched.push(LogIndex::new(rest % 4));
                    rest /= 4;
                }
                let holds = |index: u64| {
                    let count = matched.iter().filter(|m| m.get() >= index).count();
                    count * 2 > matched.len()
                };
                let naive = (0..4).rev().find(|&index| holds(index)).expect("all hold 0");
                assert_eq!(committed_by(&mut matched.clone()).get(), naive, "{matched:?}");
            }
        }
    }

    #[test]
    fn a_majority_of_yes_is_more_than_half_for_up_to_seven() {
        for voters in 1..=7_usize {
            for yes in 0..=voters {
                let mut votes: Vec<bool> = (0..voters).map(|voter| voter < yes).collect();
                assert_eq!(majority(&mut votes), yes * 2 > voters, "{yes} of {voters}");
            }
        }
    }
}

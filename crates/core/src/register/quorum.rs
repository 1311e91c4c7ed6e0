//! Who must answer: a majority of one set of nodes, or, while a layout changes, of two sets at once.

/// The owners of one register and what counts as enough of them.
///
/// Owners are numbered by their place in the caller's list, so that this and the state machines that
/// use it know nothing of node ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Quorum {
    groups: Vec<Vec<u16>>,
}

impl Quorum {
    /// A majority of the owners `0..count`.
    pub fn majority(count: u16) -> Self {
        Self::joint(vec![(0..count).collect()])
    }

    /// A majority of each group. A group that is empty can never be met.
    pub fn joint(groups: Vec<Vec<u16>>) -> Self {
        Self { groups }
    }

    /// Whether the owners for which `answered` holds are enough.
    pub fn is_met(&self, answered: impl Fn(u16) -> bool) -> bool {
        !self.groups.is_empty()
            && self.groups.iter().all(|group| {
                2 * group.iter().filter(|owner| answered(**owner)).count()
                    > if crate::mutant("majority-of-one") { 0 } else { group.len() }
            })
    }

    /// Whether enough could still answer if those for which `lost` holds never do.
    pub fn is_possible(&self, lost: impl Fn(u16) -> bool) -> bool {
        self.is_met(|owner| !lost(owner))
    }

    /// How many owners must answer, at the least (of the larger group).
    pub fn needed(&self) -> usize {
        self.groups.iter().map(|group| group.len() / 2 + 1).max().unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn majorities() {
        let quorum = Quorum::majority(3);
        assert!(quorum.is_met(|owner| owner != 1));
        assert!(!quorum.is_met(|owner| owner == 1));
        assert!(!Quorum::majority(0).is_met(|_| true));
        assert!(!Quorum::majority(2).is_met(|owner| owner == 0));
    }

    #[test]
    fn joint_majorities_need_both() {
        let quorum = Quorum::joint(vec![vec![0], vec![0, 1]]);
        assert!(!quorum.is_met(|owner| owner == 0));
        assert!(quorum.is_met(|_| true));
        assert!(!quorum.is_possible(|owner| owner == 1));
        assert_eq!(quorum.needed(), 2);
    }
}

//! The endpoints of a cluster as a balanced tree by their names that shares what two versions of it
//! have in common: a change copies the way from its place to the root and nothing else, a clone copies
//! nothing. Every node knows how many endpoints are below it and what they weigh, so a draw by weight is
//! one way down.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use super::Endpoint;

/// A side may have this many times the other's nodes, and is turned once or twice when it has more.
/// These are the one pair of integers for which weight-balanced trees stay balanced (Hirai and
/// Yamamoto, "Balancing weight-balanced trees", 2011).
const UNEVEN_MAX: usize = 3;
/// See [`UNEVEN_MAX`]: an inner grandchild that is this many times the outer one makes two turns of one.
const TURN_TWICE_FROM: usize = 2;

/// The endpoints of one cluster, in the order of their IDs.
#[derive(Clone, Default)]
pub struct Endpoints {
    root: Tree,
}

type Tree = Option<Arc<Node>>;

struct Node {
    endpoint: Arc<Endpoint>,
    left: Tree,
    right: Tree,
    count: usize,
    weight: u64,
}

impl Endpoints {
    pub fn len(&self) -> usize {
        count(&self.root)
    }

    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// The sum of all weights.
    pub fn weight(&self) -> u64 {
        weight(&self.root)
    }

    /// The endpoint of this ID.
    pub fn get(&self, id: &str) -> Option<&Arc<Endpoint>> {
        let mut tree = &self.root;
        while let Some(node) = tree {
            tree = match id.cmp(&node.endpoint.id) {
                Ordering::Equal => return Some(&node.endpoint),
                Ordering::Less => &node.left,
                Ordering::Greater => &node.right,
            };
        }
        None
    }

    /// The endpoint on whose share `point` falls, which lies below [`Self::weight`].
    pub fn at(&self, mut point: u64) -> Option<&Arc<Endpoint>> {
        let mut tree = &self.root;
        while let Some(node) = tree {
            let before = weight(&node.left);
            let own = u64::from(node.endpoint.weight);
            tree = if point < before {
                &node.left
            } else if point - before < own {
                return Some(&node.endpoint);
            } else {
                point -= before + own;
                &node.right
            };
        }
        None
    }

    /// Puts an endpoint in, in the place of the one of the same ID, which is returned.
    pub fn insert(&mut self, endpoint: Arc<Endpoint>) -> Option<Arc<Endpoint>> {
        let mut before = None;
        self.root = Some(insert(&self.root, endpoint, &mut before));
        before
    }

    /// Takes an endpoint out.
    pub fn remove(&mut self, id: &str) -> Option<Arc<Endpoint>> {
        let before = self.get(id).cloned()?;
        self.root = remove(&self.root, id);
        Some(before)
    }

    /// All of them, in the order of their IDs.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        let mut above = Vec::new();
        let mut tree = &self.root;
        std::iter::from_fn(move || {
            while let Some(node) = tree {
                above.push(node);
                tree = &node.left;
            }
            let node = above.pop()?;
            tree = &node.right;
            Some(&node.endpoint)
        })
    }
}

impl FromIterator<Arc<Endpoint>> for Endpoints {
    /// Of several with the same ID the last one stays.
    fn from_iter<I: IntoIterator<Item = Arc<Endpoint>>>(endpoints: I) -> Self {
        let mut sorted: Vec<Arc<Endpoint>> = endpoints.into_iter().collect();
        sorted.sort_by(|a, b| a.id.cmp(&b.id));
        sorted.dedup_by(|later, earlier| {
            let is_same = later.id == earlier.id;
            if is_same {
                std::mem::swap(later, earlier);
            }
            is_same
        });
        Self {
            root: build(&sorted),
        }
    }
}

impl PartialEq for Endpoints {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn count(tree: &Tree) -> usize {
    tree.as_ref().map_or(0, |node| node.count)
}

fn weight(tree: &Tree) -> u64 {
    tree.as_ref().map_or(0, |node| node.weight)
}

fn node(endpoint: Arc<Endpoint>, left: Tree, right: Tree) -> Arc<Node> {
    Arc::new(Node {
        count: count(&left) + 1 + count(&right),
        weight: weight(&left) + u64::from(endpoint.weight) + weight(&right),
        endpoint,
        left,
        right,
    })
}

fn build(sorted: &[Arc<Endpoint>]) -> Tree {
    let (left, rest) = sorted.split_at(sorted.len() / 2);
    let (middle, right) = rest.split_first()?;
    Some(node(middle.clone(), build(left), build(right)))
}

fn insert(tree: &Tree, new: Arc<Endpoint>, before: &mut Option<Arc<Endpoint>>) -> Arc<Node> {
    let Some(at) = tree else {
        return node(new, None, None);
    };
    let (left, right) = (at.left.clone(), at.right.clone());
    match new.id.cmp(&at.endpoint.id) {
        Ordering::Equal => {
            *before = Some(at.endpoint.clone());
            node(new, left, right)
        }
        Ordering::Less => {
            let left = insert(&left, new, before);
            balance(at.endpoint.clone(), Some(left), right)
        }
        Ordering::Greater => {
            let right = insert(&right, new, before);
            balance(at.endpoint.clone(), left, Some(right))
        }
    }
}

fn remove(tree: &Tree, id: &str) -> Tree {
    let at = tree.as_ref()?;
    let (left, right) = (&at.left, &at.right);
    match id.cmp(&at.endpoint.id) {
        Ordering::Less => Some(balance(
            at.endpoint.clone(),
            remove(left, id),
            right.clone(),
        )),
        Ordering::Greater => Some(balance(
            at.endpoint.clone(),
            left.clone(),
            remove(right, id),
        )),
        Ordering::Equal => match first(right) {
            None => left.clone(),
            // The next one takes its place.
            Some(next) => Some(balance(next.clone(), left.clone(), remove(right, &next.id))),
        },
    }
}

fn first(tree: &Tree) -> Option<&Arc<Endpoint>> {
    let mut node = tree.as_ref()?;
    while let Some(left) = &node.left {
        node = left;
    }
    Some(&node.endpoint)
}

/// A node of two sides of which one may have one endpoint too many or too few.
fn balance(endpoint: Arc<Endpoint>, left: Tree, right: Tree) -> Arc<Node> {
    let size = |tree: &Tree| count(tree) + 1;
    let is_heavy = |a: &Tree, b: &Tree| size(a) > UNEVEN_MAX * size(b);
    let is_double = |inner: &Tree, outer: &Tree| size(inner) >= TURN_TWICE_FROM * size(outer);
    match (&left, &right) {
        (_, Some(heavy)) if is_heavy(&right, &left) => {
            let (inner, outer) = (&heavy.left, heavy.right.clone());
            match inner {
                Some(middle) if is_double(inner, &outer) => {
                    let left = node(endpoint, left, middle.left.clone());
                    let right = node(heavy.endpoint.clone(), middle.right.clone(), outer);
                    node(middle.endpoint.clone(), Some(left), Some(right))
                }
                _ => {
                    let left = node(endpoint, left, inner.clone());
                    node(heavy.endpoint.clone(), Some(left), outer)
                }
            }
        }
        (Some(heavy), _) if is_heavy(&left, &right) => {
            let (outer, inner) = (heavy.left.clone(), &heavy.right);
            match inner {
                Some(middle) if is_double(inner, &outer) => {
                    let left = node(heavy.endpoint.clone(), outer, middle.left.clone());
                    let right = node(endpoint, middle.right.clone(), right);
                    node(middle.endpoint.clone(), Some(left), Some(right))
                }
                _ => {
                    let right = node(endpoint, inner.clone(), right);
                    node(heavy.endpoint.clone(), outer, Some(right))
                }
            }
        }
        _ => node(endpoint, left, right),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn endpoint(number: u16, weight: u32) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            id: format!("e{number}").into(),
            address: ([127, 0, 0, 1], number).into(),
            weight,
            zone: "".into(),
            workload: "".into(),
            namespace: "".into(),
            sidecar: None,
        })
    }

    /// Both sides of every node are even enough, and the sums are right. Returns count and weight.
    fn check(tree: &Tree) -> (usize, u64) {
        let Some(node) = tree else {
            return (0, 0);
        };
        let ((left, left_weight), (right, right_weight)) = (check(&node.left), check(&node.right));
        let even = |a: usize, b: usize| a < UNEVEN_MAX * (b + 1);
        assert!(even(left, right) && even(right, left), "{left} and {right}");
        let own = u64::from(node.endpoint.weight);
        let sums = (left + right + 1, left_weight + right_weight + own);
        assert_eq!((node.count, node.weight), sums);
        sums
    }

    proptest! {
        /// Against a map, with every version in between still what it was.
        #[test]
        fn a_tree_is_a_map_that_keeps_its_versions(
            changes in prop::collection::vec((0..60_u16, prop::option::weighted(0.6, 0..4_u32)), 0..300)
        ) {
            let (mut tree, mut map) = (Endpoints::default(), BTreeMap::new());
            let mut versions = Vec::new();
            for (number, weight) in changes {
                versions.push((tree.clone(), map.clone()));
                let id: Arc<str> = format!("e{number}").into();
                let (before, expect) = match weight {
                    Some(weight) => {
                        let new = endpoint(number, weight);
                        (tree.insert(new.clone()), map.insert(id, new))
                    }
                    None => (tree.remove(&id), map.remove(&id)),
                };
                prop_assert_eq!(before, expect);
                check(&tree.root);
            }
            versions.push((tree, map));
            for (tree, map) in versions {
                prop_assert!(tree.iter().eq(map.values()));
                let shares = map.values().flat_map(|endpoint| {
                    std::iter::repeat_n(endpoint, endpoint.weight as usize)
                });
                prop_assert!((0..tree.weight()).map_while(|point| tree.at(point)).eq(shares));
                prop_assert!(tree.at(tree.weight()).is_none());
                for (id, endpoint) in &map {
                    prop_assert_eq!(tree.get(id), Some(endpoint));
                }
            }
        }
    }

    #[test]
    fn many_in_order_stay_balanced() {
        let mut all = Endpoints::default();
        for number in 0..5000 {
            all.insert(endpoint(number, 1));
        }
        assert_eq!(check(&all.root), (5000, 5000));
        let twice = all.iter().map(|one| endpoint(one.address.port(), 7));
        let collected: Endpoints = twice.chain(all.iter().cloned()).collect();
        assert_eq!(check(&collected.root), (5000, 5000));
        assert_eq!(collected, all);
        for number in 0..4990 {
            all.remove(&format!("e{number}"));
            if number % 500 == 0 {
                check(&all.root);
            }
        }
        assert_eq!(check(&all.root), (10, 10));
    }
}

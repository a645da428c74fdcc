//! References between resources.

use std::sync::Arc;

use super::{Key, Origin, Problem, Resource};

/// Checks that routes name ports which their Services have. A Service of `new` counts before the
/// one that `stored` finds. A Service that exists nowhere is no problem here but a condition of the
/// route's status, as in Gateway API.
pub fn check_references(
    new: &[(Origin, Resource)],
    stored: impl Fn(&Key) -> Option<Arc<Resource>>,
) -> Vec<Problem> {
    let _ = (new, stored);
    todo!()
}

//! Composition root of `weft serve`.

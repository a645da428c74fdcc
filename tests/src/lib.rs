//! Scenario-test support.

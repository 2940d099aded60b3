//! Tests of the public API: recorded outcomes, loading, limits and random rules.

mod limits;
mod loading;
mod random;
mod vectors;

//! Why dlt-monitor ends in failure: what its pipeline cannot wait out.

pub use pipeline::Error;

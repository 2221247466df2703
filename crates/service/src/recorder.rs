//! The process's Prometheus recorder: installed once, bucket bounds by unit, drained once a second.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::Info;

/// Samples of histograms wait in memory until drained: at 50,000/s, a second of them is 400 kB.
pub(crate) const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// 100 µs to 60 s.
const SECONDS: &[f64] =
    &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];
/// 64 bytes to 16 MiB.
const BYTES: &[f64] =
    &[64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
/// Counts: records of a batch and the like.
const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the recorder, or gives the one of this process: services that tests run side by side share it, and the
/// bucket bounds are those of the first.
pub(crate) fn install(info: &Info) -> PrometheusHandle {
    HANDLE
        .get_or_init(|| {
            let recorder = build(info).expect("bucket bounds are constants and not empty").build_recorder();
            let handle = recorder.handle();
            // Only another recorder installed by hand could be in the way; then ours renders what reaches it: nothing.
            let _ = metrics::set_global_recorder(recorder);
            metrics::describe_gauge!("build_info", "1, with the version of the service as a label.");
            handle
        })
        .clone()
}

fn build(info: &Info) -> Result<PrometheusBuilder, BuildError> {
    let by_unit = PrometheusBuilder::new()
        .set_buckets(COUNTS)?
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), BYTES)?;
    info.buckets.iter().try_fold(by_unit, |builder, (name, bounds)| {
        builder.set_buckets_for_metric(Matcher::Full((*name).to_owned()), bounds)
    })
}

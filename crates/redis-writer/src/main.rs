//! redis-writer: Kafka to Redis, the live map.

use std::process::ExitCode;

use redis_writer::{Config, INFO, run};

fn main() -> ExitCode {
    service::main::<Config, _, _, _>(INFO, run)
}

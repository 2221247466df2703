//! Kafka to TimescaleDB: the history, completeness first

//! Tests of the whole pipeline on real Kafka, Redis and PostgreSQL

//! Real Kafka, Redis and PostgreSQL without containers, for the demo, the tests and developers

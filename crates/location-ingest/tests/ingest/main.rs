//! location-ingest against a real Kafka; what is in the topic is read back by rskafka, the independent witness.

mod cluster;
mod drain;
mod faults;
mod http;
mod limits;
mod phone;
mod process;
mod times;
mod validation;

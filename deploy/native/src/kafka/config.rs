//! The broker's settings, as server.properties: those of production, sized for two cores and a few brokers.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use super::{KafkaOptions, Listener};

/// One node of the cluster: a broker and a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) id: usize,
    pub(super) port: u16,
    pub(super) controller_port: u16,
}

/// The ports of the options' listeners, in their order.
pub(super) type ExtraPorts = Vec<u16>;

/// What does not depend on the node.
const SETTINGS: [(&str, &str); 16] = [
    ("process.roles", "broker,controller"),
    ("controller.listener.names", "CONTROLLER"),
    ("inter.broker.listener.name", "PLAINTEXT"),
    // A mistyped topic must be an error, not a new topic.
    ("auto.create.topics.enable", "false"),
    ("offsets.topic.num.partitions", "8"),
    ("transaction.state.log.num.partitions", "4"),
    ("share.coordinator.state.topic.num.partitions", "2"),
    // A group of one member would wait 3 s for others at each start.
    ("group.initial.rebalance.delay.ms", "0"),
    // Threads for two cores; the defaults are for a machine of the broker's own.
    ("num.network.threads", "2"),
    ("num.io.threads", "4"),
    ("background.threads", "4"),
    ("group.coordinator.threads", "1"),
    ("share.coordinator.threads", "1"),
    // 128 MiB of the heap by default, for offsets that fit into one.
    ("log.cleaner.dedupe.buffer.size", "16777216"),
    // A broker that was killed is noticed in 6 s instead of 9; below that a busy machine loses healthy ones.
    ("broker.session.timeout.ms", "6000"),
    ("broker.heartbeat.interval.ms", "1000"),
];

/// The text of server.properties for `node` of the cluster `nodes`.
pub(super) fn render(node: Node, nodes: &[Node], data: &Path, options: &KafkaOptions, more: &ExtraPorts) -> String {
    let mut settings: BTreeMap<String, String> =
        SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    settings.extend(of_node(node, nodes, data));
    settings.extend(of_listeners(node, options, more));
    settings.extend(of_replication(nodes.len()));
    settings.extend(options.settings.iter().cloned());
    settings.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a string cannot fail.
        let _fine = writeln!(text, "{name}={}", value.replace('\n', "\\n"));
        text
    })
}

fn of_listeners(node: Node, options: &KafkaOptions, more: &ExtraPorts) -> Vec<(String, String)> {
    let plain = format!("PLAINTEXT://127.0.0.1:{}", node.port);
    let at = |host: &str, listener: &Listener, port: &u16| format!(",{}://{host}:{port}", listener.name);
    let extra = || options.listeners.iter().zip(more);
    let bound: String = extra().map(|(listener, port)| at("127.0.0.1", listener, port)).collect();
    let told: String = extra().map(|(listener, port)| at(&listener.host, listener, port)).collect();
    let protocols: String = options.listeners.iter().map(|listener| format!(",{}", listener.mapping())).collect();
    let mut settings = vec![
        ("listeners".to_owned(), format!("{plain},CONTROLLER://127.0.0.1:{}{bound}", node.controller_port)),
        ("advertised.listeners".to_owned(), format!("{plain}{told}")),
        ("listener.security.protocol.map".to_owned(), format!("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT{protocols}")),
    ];
    settings.extend(options.listeners.iter().flat_map(|listener| listener.rendered(&options.users)));
    settings
}

fn of_node(node: Node, nodes: &[Node], data: &Path) -> [(String, String); 3] {
    let voters: Vec<String> =
        nodes.iter().map(|voter| format!("{}@127.0.0.1:{}", voter.id, voter.controller_port)).collect();
    [
        ("node.id".to_owned(), node.id.to_string()),
        ("controller.quorum.voters".to_owned(), voters.join(",")),
        ("log.dirs".to_owned(), data.to_string_lossy().into_owned()),
    ]
}

/// Three copies and two in step where there are three brokers, as for the topics of the pipeline.
fn of_replication(brokers: usize) -> [(String, String); 7] {
    let copies = brokers.min(3).to_string();
    let in_step = if brokers >= 3 { "2" } else { "1" };
    [
        ("default.replication.factor", copies.as_str()),
        ("offsets.topic.replication.factor", &copies),
        ("transaction.state.log.replication.factor", &copies),
        ("share.coordinator.state.topic.replication.factor", &copies),
        ("min.insync.replicas", in_step),
        ("transaction.state.log.min.isr", in_step),
        ("share.coordinator.state.topic.min.isr", in_step),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;

    const NODES: [Node; 3] = [
        Node { id: 1, port: 11, controller_port: 21 },
        Node { id: 2, port: 12, controller_port: 22 },
        Node { id: 3, port: 13, controller_port: 23 },
    ];

    #[test]
    fn three_brokers_know_each_other_and_keep_three_copies() {
        let text = render(NODES[1], &NODES, Path::new("/d"), &KafkaOptions::three(), &Vec::new());
        assert!(text.contains("\ncontroller.quorum.voters=1@127.0.0.1:21,2@127.0.0.1:22,3@127.0.0.1:23\n"));
        assert!(text.contains("\nlisteners=PLAINTEXT://127.0.0.1:12,CONTROLLER://127.0.0.1:22\n"));
        assert!(text.contains("\noffsets.topic.replication.factor=3\n") && text.contains("\nmin.insync.replicas=2\n"));
    }

    #[test]
    fn settings_of_the_user_win() {
        let options = KafkaOptions::single().set("num.io.threads", 9);
        let text = render(NODES[0], &NODES[..1], Path::new("/d"), &options, &Vec::new());
        assert!(text.contains("\nnum.io.threads=9\n") && !text.contains("num.io.threads=4"));
        assert!(text.contains("\noffsets.topic.replication.factor=1\n"));
    }

    #[test]
    fn a_listener_has_its_port_and_its_settings_in_one_line_each() {
        let tls = Listener::new("TLS", Protocol::Ssl).certificate("one\ntwo\n", "k");
        let text = render(NODES[0], &NODES[..1], Path::new("/d"), &KafkaOptions::single().listener(tls), &vec![31]);
        for line in [
            "listeners=PLAINTEXT://127.0.0.1:11,CONTROLLER://127.0.0.1:21,TLS://127.0.0.1:31",
            "advertised.listeners=PLAINTEXT://127.0.0.1:11,TLS://localhost:31",
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,TLS:SSL",
            "listener.name.tls.ssl.keystore.certificate.chain=one\\ntwo\\n",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
        }
    }
}

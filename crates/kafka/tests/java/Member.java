import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.clients.consumer.CommitFailedException;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.common.Cluster;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RebalanceInProgressException;
import org.apache.kafka.common.errors.RetriableException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * A member of a consumer group that reads, commits and tells what happens to it.
 *
 * <p>Arguments: TOPIC, then consumer settings as NAME=VALUE. In partition.assignment.strategy, "range" and
 * "cooperative-sticky" stand for Java's own assignors, which then also tell when they lead; anything else is a class name.
 *
 * <p>Standard input: the line "close" makes it leave the group; at the end of the input it is gone without a word to the group.
 *
 * <p>Standard output: one line an event, "MILLISECONDS WORD DETAILS". Partitions are "t-0,t-3", nothing where there are none.
 * <pre>
 *   leads 3               it has just shared the partitions out among 3 members (classic protocol only)
 *   joined 7 MEMBER_ID    the generation (or epoch) of what comes next, and who it is
 *   assigned t-0,t-3      these came to it, besides what it had
 *   revoked t-0           these go; their positions are committed
 *   lost t-0              these are gone; nothing was committed
 *   read t-0 5 9          the first and the last offset of what one poll brought
 *   position t-0 10       committed
 *   refused NAME          a commit was refused, with the name of the exception
 *   closed                it has left
 * </pre>
 */
public final class Member implements ConsumerRebalanceListener {
    private static final Duration POLL = Duration.ofMillis(50);
    private static final int FAILED = 1;

    private static volatile boolean closing;

    private final KafkaConsumer<byte[], byte[]> consumer;
    private final Map<TopicPartition, OffsetAndMetadata> uncommitted = new HashMap<>();

    private Member(KafkaConsumer<byte[], byte[]> consumer) {
        this.consumer = consumer;
    }

    public static void main(String[] args) {
        Thread obedience = new Thread(Member::obey, "obey");
        obedience.setDaemon(true);
        obedience.start();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings(args))) {
            new Member(consumer).run(args[0]);
        }
        say("closed", "");
    }

    /** Whoever started this holds the other end of the input: when it ends, nothing may be left running. */
    private static void obey() {
        try (BufferedReader input = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                if (!line.equals("close")) {
                    System.err.println("not a command: " + line);
                    Runtime.getRuntime().halt(FAILED);
                }
                closing = true;
            }
        } catch (IOException error) {
            System.err.println("standard input: " + error);
        }
        Runtime.getRuntime().halt(FAILED);
    }

    private static Map<String, Object> settings(String[] args) {
        Map<String, Object> settings = new HashMap<>();
        settings.put("key.deserializer", ByteArrayDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        for (String arg : List.of(args).subList(1, args.length)) {
            String[] pair = arg.split("=", 2);
            settings.put(pair[0], pair[0].equals("partition.assignment.strategy") ? assignors(pair[1]) : pair[1]);
        }
        return settings;
    }

    private static List<Object> assignors(String names) {
        List<Object> assignors = new ArrayList<>();
        for (String name : names.split(",")) {
            switch (name) {
                case "range" -> assignors.add(Range.class);
                case "cooperative-sticky" -> assignors.add(CooperativeSticky.class);
                default -> assignors.add(name);
            }
        }
        return assignors;
    }

    private void run(String topic) {
        consumer.subscribe(List.of(topic), this);
        while (!closing) {
            ConsumerRecords<byte[], byte[]> records = consumer.poll(POLL);
            for (TopicPartition partition : records.partitions()) {
                List<ConsumerRecord<byte[], byte[]>> read = records.records(partition);
                long last = read.get(read.size() - 1).offset();
                say("read", partition + " " + read.get(0).offset() + " " + last);
            }
            // Also where a poll brought nothing but markers of transactions: the position moves all the same.
            uncommitted.putAll(records.nextOffsets());
            commit();
        }
    }

    private void commit() {
        if (uncommitted.isEmpty()) {
            return;
        }
        try {
            consumer.commitSync(uncommitted);
        } catch (RebalanceInProgressException | CommitFailedException | RetriableException error) {
            say("refused", error.getClass().getSimpleName());
            return;
        }
        uncommitted.forEach((partition, position) -> say("position", partition + " " + position.offset()));
        uncommitted.clear();
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        say("joined", consumer.groupMetadata().generationId() + " " + consumer.groupMetadata().memberId());
        say("assigned", list(partitions));
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        commit();
        uncommitted.keySet().removeAll(partitions);
        say("revoked", list(partitions));
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        uncommitted.keySet().removeAll(partitions);
        say("lost", list(partitions));
    }

    private static String list(Collection<TopicPartition> partitions) {
        return partitions.stream().map(TopicPartition::toString).sorted().collect(Collectors.joining(","));
    }

    private static synchronized void say(String word, String details) {
        System.out.println((System.currentTimeMillis() + " " + word + " " + details).stripTrailing());
    }

    /** Java's own, telling that it leads. */
    public static final class Range extends RangeAssignor {
        @Override
        public GroupAssignment assign(Cluster metadata, GroupSubscription subscriptions) {
            say("leads", String.valueOf(subscriptions.groupSubscription().size()));
            return super.assign(metadata, subscriptions);
        }
    }

    /** Java's own, telling that it leads. */
    public static final class CooperativeSticky extends CooperativeStickyAssignor {
        @Override
        public GroupAssignment assign(Cluster metadata, GroupSubscription subscriptions) {
            say("leads", String.valueOf(subscriptions.groupSubscription().size()));
            return super.assign(metadata, subscriptions);
        }
    }
}

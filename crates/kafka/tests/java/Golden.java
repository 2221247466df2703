import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Assignment;
import org.apache.kafka.clients.consumer.ConsumerPartitionAssignor.Subscription;
import org.apache.kafka.clients.consumer.internals.ConsumerProtocol;
import org.apache.kafka.common.TopicPartition;

/** Prints the bytes that Java's client makes of fixed subscriptions and assignments: "NAME VERSION HEX" a line. */
public final class Golden {
    private static final int NEWEST = 3;
    private static final int GENERATION = 7;

    public static void main(String[] args) {
        List<TopicPartition> owned =
                List.of(new TopicPartition("t", 0), new TopicPartition("t", 3), new TopicPartition("u", 47));
        ByteBuffer data = ByteBuffer.wrap("user data".getBytes(StandardCharsets.UTF_8));
        for (short version = 0; version <= NEWEST; version++) {
            subscription("subscription-bare", new Subscription(List.of("t")), version);
            subscription("subscription-owning",
                    new Subscription(List.of("t", "u"), null, owned, GENERATION, Optional.empty()), version);
            subscription("subscription-full",
                    new Subscription(List.of("t", "u"), data, owned, GENERATION, Optional.of("rack-1")), version);
            assignment("assignment-empty", new Assignment(List.of()), version);
            assignment("assignment-bare", new Assignment(owned), version);
            assignment("assignment-full", new Assignment(owned, data), version);
        }
    }

    private static void subscription(String name, Subscription subscription, short version) {
        print(name, version, ConsumerProtocol.serializeSubscription(subscription, version));
    }

    private static void assignment(String name, Assignment assignment, short version) {
        print(name, version, ConsumerProtocol.serializeAssignment(assignment, version));
    }

    private static void print(String name, short version, ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        System.out.println(name + " " + version + " " + HexFormat.of().formatHex(bytes));
    }
}

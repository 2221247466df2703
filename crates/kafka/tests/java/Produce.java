import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Produces what it is told to.
 *
 * <p>Arguments: producer settings as NAME=VALUE, for all producers.
 *
 * <p>Standard input: one command a line, each answered by one line "MILLISECONDS WORD DETAILS"; it ends with its input.
 * <pre>
 *   producer P CODEC                   makes the producer P (none, gzip, snappy, lz4, zstd)
 *   transactional P CODEC              the same, for transactions only
 *   begin P, commit P, abort P         a transaction
 *   send P t 0 FIRST COUNT KEYS STEP   sends COUNT records with the numbers from FIRST on, one batch if it fits; answers
 *                                      "sent t-0 10 19", the first and the last offset
 * </pre>
 * The record with number n has the key "k" + n % KEYS, the value "record n on the way through town", the header "number" with n,
 * and the timestamp BASE + n * STEP.
 */
public final class Produce {
    /** Some millisecond of the year 2026. */
    private static final long BASE = 1_795_441_000_000L;

    private final Map<String, Object> settings;
    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new HashMap<>();

    private Produce(Map<String, Object> settings) {
        this.settings = settings;
    }

    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = new HashMap<>();
        settings.put("key.serializer", ByteArraySerializer.class);
        settings.put("value.serializer", ByteArraySerializer.class);
        settings.put("linger.ms", "1000");
        for (String arg : args) {
            String[] pair = arg.split("=", 2);
            settings.put(pair[0], pair[1]);
        }
        Produce produce = new Produce(settings);
        try (BufferedReader input = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                System.out.println(System.currentTimeMillis() + " " + produce.obey(line.split(" ")));
            }
        }
    }

    private String obey(String[] words) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producers.get(words[1]);
        switch (words[0]) {
            case "producer" -> producers.put(words[1], make(Map.of("compression.type", words[2])));
            case "transactional" -> {
                String id = words[1] + "-" + ProcessHandle.current().pid();
                producers.put(words[1], make(Map.of("compression.type", words[2], "transactional.id", id)));
                producers.get(words[1]).initTransactions();
            }
            case "begin" -> producer.beginTransaction();
            case "commit" -> producer.commitTransaction();
            case "abort" -> producer.abortTransaction();
            case "send" -> {
                return send(producer, words);
            }
            default -> throw new IllegalArgumentException(String.join(" ", words));
        }
        return "done";
    }

    private KafkaProducer<byte[], byte[]> make(Map<String, Object> own) {
        Map<String, Object> all = new HashMap<>(settings);
        all.putAll(own);
        return new KafkaProducer<>(all);
    }

    private String send(KafkaProducer<byte[], byte[]> producer, String[] words) throws Exception {
        int partition = Integer.parseInt(words[3]);
        int first = Integer.parseInt(words[4]);
        int count = Integer.parseInt(words[5]);
        int keys = Integer.parseInt(words[6]);
        long step = Long.parseLong(words[7]);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (int number = first; number < first + count; number++) {
            byte[] key = bytes("k" + number % keys);
            byte[] value = bytes("record " + number + " on the way through town");
            ProducerRecord<byte[], byte[]> record =
                    new ProducerRecord<>(words[2], partition, BASE + number * step, key, value);
            record.headers().add("number", bytes(String.valueOf(number)));
            sent.add(producer.send(record));
        }
        producer.flush();
        RecordMetadata last = sent.get(count - 1).get();
        return "sent " + words[2] + "-" + partition + " " + sent.get(0).get().offset() + " " + last.offset();
    }

    private static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}

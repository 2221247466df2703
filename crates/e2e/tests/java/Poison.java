import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HexFormat;
import java.util.Map;
import java.util.Random;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Produces records that no producer of ours would make, with Kafka's own client.
 *
 * <p>Arguments: bootstrap servers, topic. Standard input: one record a line,
 * "PARTITION TIMESTAMP KEY VALUE HEADERS SIZE": key and value in hex, "null", or "noise:BYTES"; HEADERS headers of SIZE bytes.
 * Each is answered by its offset.
 */
public final class Poison {
    private static final HexFormat HEX = HexFormat.of();
    private static final Random RANDOM = new Random(4711);

    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = Map.of("bootstrap.servers", args[0], "key.serializer", ByteArraySerializer.class,
                "value.serializer", ByteArraySerializer.class, "max.request.size", 2_000_000);
        try (var producer = new KafkaProducer<byte[], byte[]>(settings);
                var input = new BufferedReader(new InputStreamReader(System.in))) {
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                String[] words = line.split(" ");
                var record = new ProducerRecord<>(args[1], Integer.valueOf(words[0]), Long.valueOf(words[1]),
                        bytes(words[2]), bytes(words[3]));
                for (int header = 0; header < Integer.parseInt(words[4]); header++) {
                    record.headers().add("bomb-" + header, new byte[Integer.parseInt(words[5])]);
                }
                System.out.println(producer.send(record).get().offset());
            }
        }
    }

    private static byte[] bytes(String text) {
        if (text.equals("null")) {
            return null;
        }
        if (text.startsWith("noise:")) {
            byte[] noise = new byte[Integer.parseInt(text.substring(6))];
            RANDOM.nextBytes(noise);
            return noise;
        }
        return HEX.parseHex(text.equals("-") ? "" : text);
    }
}

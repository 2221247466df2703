// Writes the headers of dead letters as Spring Kafka and Kafka Connect make them, one file a letter: "name hex" lines.
// Stack traces are left out: they differ from build to build and nothing reads them.

import java.io.IOException;
import java.io.PrintWriter;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.util.HexFormat;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicReference;

import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.runtime.SinkConnectorConfig;
import org.apache.kafka.connect.runtime.errors.DeadLetterQueueReporter;
import org.apache.kafka.connect.runtime.errors.ErrorHandlingMetrics;
import org.apache.kafka.connect.runtime.errors.ProcessingContext;
import org.apache.kafka.connect.runtime.errors.Stage;
import org.apache.kafka.connect.runtime.isolation.Plugins;
import org.apache.kafka.connect.util.ConnectorTaskId;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaOperations;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.listener.DeadLetterPublishingRecoverer;
import org.springframework.kafka.listener.DeadLetterPublishingRecoverer.HeaderNames.HeadersToAdd;
import org.springframework.kafka.listener.ListenerExecutionFailedException;
import sun.misc.Unsafe;

public class Generate {
    private static final String TOPIC = "driver-location-updates";
    private static final long TIMESTAMP = 1795441689633L;

    public static void main(String[] args) throws Exception {
        ProducerRecord<Object, Object> once = spring(original(TOPIC, 7, 4242, new RecordHeaders()));
        write("spring.txt", once.headers());
        write("spring-twice.txt", spring(original(TOPIC + ".DLT", 3, 99, once.headers())).headers());
        write("connect.txt", connect(original(TOPIC, 7, 4242, new RecordHeaders())));
    }

    private static ConsumerRecord<byte[], byte[]> original(String topic, int partition, long offset, Headers headers) {
        return new ConsumerRecord<>(topic, partition, offset, TIMESTAMP, TimestampType.CREATE_TIME, 1, 1,
                new byte[] {'k'}, new byte[] {'v'}, headers, Optional.empty());
    }

    private static ProducerRecord<Object, Object> spring(ConsumerRecord<byte[], byte[]> record) {
        AtomicReference<ProducerRecord<Object, Object>> letter = new AtomicReference<>();
        var template = new KafkaTemplate<>(new DefaultKafkaProducerFactory<Object, Object>(Map.of()));
        var recoverer = new DeadLetterPublishingRecoverer(template, (in, e) -> new TopicPartition(TOPIC + ".DLT", 7)) {
            @Override
            protected void publish(ProducerRecord<Object, Object> out, KafkaOperations<Object, Object> operations,
                    ConsumerRecord<?, ?> in) {
                letter.set(out);
            }
        };
        recoverer.excludeHeader(HeadersToAdd.EX_STACKTRACE);
        recoverer.accept(record, null, new ListenerExecutionFailedException("Listener failed", "driver-location-redis",
                new IllegalArgumentException("latitude is missing")));
        return letter.get();
    }

    private static Headers connect(ConsumerRecord<byte[], byte[]> record) throws Exception {
        Map<String, String> properties = Map.of("name", "locations-sink", "connector.class", "Sink", "topics", TOPIC,
                "errors.deadletterqueue.topic.name", TOPIC + ".DLT", "errors.deadletterqueue.context.headers.enable", "true");
        var config = new SinkConnectorConfig(new Plugins(Map.of()), properties);
        Constructor<?> constructor = DeadLetterQueueReporter.class.getDeclaredConstructors()[0];
        constructor.setAccessible(true);
        Object reporter = constructor.newInstance(blank(KafkaProducer.class), config, new ConnectorTaskId("locations-sink", 0),
                blank(ErrorHandlingMetrics.class));
        ProcessingContext<ConsumerRecord<byte[], byte[]>> context = new ProcessingContext<>(record);
        context.currentContext(Stage.VALUE_CONVERTER, ByteArraySerializer.class);
        context.error(new DataException("latitude is missing"));
        ProducerRecord<byte[], byte[]> letter = new ProducerRecord<>(TOPIC + ".DLT", null, record.key(), record.value());
        Method populate = DeadLetterQueueReporter.class.getDeclaredMethod("populateContextHeaders", ProducerRecord.class,
                ProcessingContext.class);
        populate.setAccessible(true);
        populate.invoke(reporter, letter, context);
        return letter.headers();
    }

    // Only their presence is checked; making them properly takes a broker and a whole Connect worker.
    private static <T> T blank(Class<T> type) throws Exception {
        Field unsafe = Unsafe.class.getDeclaredField("theUnsafe");
        unsafe.setAccessible(true);
        return type.cast(((Unsafe) unsafe.get(null)).allocateInstance(type));
    }

    private static void write(String file, Headers headers) throws IOException {
        try (PrintWriter out = new PrintWriter(file)) {
            for (Header header : headers) {
                if (!header.key().endsWith("stacktrace")) {
                    out.println(header.key() + " " + HexFormat.of().formatHex(header.value()));
                }
            }
        }
    }
}

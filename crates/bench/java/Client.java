// The Java client under measurement, and the reader of the broker's request counts. Run by the JDK's source launcher;
// what it is told and what it tells: see src/job.rs and src/child.rs.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.locks.LockSupport;
import javax.management.MBeanServerConnection;
import javax.management.ObjectName;
import javax.management.remote.JMXConnectorFactory;
import javax.management.remote.JMXServiceURL;
import com.sun.management.OperatingSystemMXBean;
import com.sun.tools.attach.VirtualMachine;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

public final class Client {
    private static final int DRIVERS = 50_000;
    private static final int VALUE_BYTES = 60;
    /** A run that takes longer has failed. */
    private static final Duration LIMIT = Duration.ofMinutes(3);
    private static final BufferedReader INPUT = new BufferedReader(new InputStreamReader(System.in));
    private static final OperatingSystemMXBean SYSTEM =
            (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();

    private final Map<String, String> job;
    private long startedAt;
    private long startedCpu;

    private Client(Map<String, String> job) {
        this.job = job;
    }

    public static void main(String[] args) throws Exception {
        Map<String, String> job = new HashMap<>();
        for (String arg : args) {
            String[] parts = arg.split("=", 2);
            job.put(parts[0], parts[1]);
        }
        if (job.get("role").equals("requests")) {
            countRequests(job.get("pid"));
            return;
        }
        watch();
        Client client = new Client(job);
        switch (job.get("role")) {
            case "fetch" -> client.fetch();
            case "produce" -> client.produce();
            case "consume" -> client.consume();
            default -> throw new IllegalArgumentException("there is no role " + job.get("role"));
        }
    }

    private static void watch() {
        Thread watch = new Thread(() -> {
            LockSupport.parkNanos(LIMIT.toNanos());
            System.err.println("the Java client did not end in time");
            Runtime.getRuntime().halt(1);
        });
        watch.setDaemon(true);
        watch.start();
    }

    // ---- what is measured ------------------------------------------------------------------------------------------

    private void begin() throws Exception {
        System.out.println("begin");
        if (INPUT.readLine() == null) {
            throw new IllegalStateException("the parent is gone");
        }
        startedAt = System.nanoTime();
        startedCpu = SYSTEM.getProcessCpuTime();
    }

    private void report(long records) throws Exception {
        double seconds = (System.nanoTime() - startedAt) / 1e9;
        double cpu = (SYSTEM.getProcessCpuTime() - startedCpu) / 1e9;
        double rss = Double.NaN;
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                rss = Double.parseDouble(line.replaceAll("[^0-9]", "")) / 1024;
            }
        }
        System.out.println("records=" + records + " seconds=" + seconds + " cpu_s=" + cpu + " peak_rss_mib=" + rss);
    }

    // ---- the three roles -------------------------------------------------------------------------------------------

    private void fetch() throws Exception {
        long wanted = number("records");
        List<TopicPartition> partitions = new ArrayList<>();
        for (int partition = 0; partition < number("partitions"); partition++) {
            partitions.add(new TopicPartition(job.get("topic"), partition));
        }
        for (boolean measured : new boolean[] {false, true}) {
            try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings())) {
                consumer.assign(partitions);
                if (measured) {
                    begin();
                }
                long records = 0;
                long touched = 0;
                while (records < wanted) {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                        touched += record.key().length + record.value().length + (record.timestamp() & 1);
                        records++;
                    }
                }
                if (touched < wanted * VALUE_BYTES) {
                    throw new IllegalStateException("values are missing");
                }
                if (measured) {
                    report(records);
                }
            }
        }
    }

    private void consume() throws Exception {
        Properties settings = settings();
        settings.put("group.id", "bench-java-" + System.nanoTime());
        // The same patience as ours.
        settings.put("fetch.min.bytes", "10240");
        settings.put("fetch.max.wait.ms", String.valueOf(number("linger_ms")));
        settings.put("partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings)) {
            consumer.subscribe(Set.of(job.get("topic")));
            while (count(consumer, Duration.ofMillis(100)) == 0) { }
            count(consumer, Duration.ofMillis(number("warm_ms")));
            begin();
            report(count(consumer, Duration.ofMillis(number("measured_ms"))));
        }
    }

    private static long count(KafkaConsumer<byte[], byte[]> consumer, Duration time) {
        long end = System.nanoTime() + time.toNanos();
        long commitAt = System.nanoTime() + 1_000_000_000L;
        long records = 0;
        long touched = 0;
        while (System.nanoTime() < end) {
            for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(100))) {
                touched += record.key().length + record.value().length + (record.timestamp() & 1);
                records++;
            }
            if (System.nanoTime() >= commitAt) {
                commitAt += 1_000_000_000L;
                consumer.commitAsync();
            }
        }
        if (touched < records * VALUE_BYTES) {
            throw new IllegalStateException("values are missing");
        }
        return records;
    }

    private void produce() throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", job.get("bootstrap"));
        settings.put("acks", "all");
        settings.put("linger.ms", job.get("linger_ms"));
        settings.put("compression.type", "lz4");
        settings.put("key.serializer", ByteArraySerializer.class);
        settings.put("value.serializer", ByteArraySerializer.class);
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings)) {
            byte[][][] pool = pool();
            paced(producer, pool, Duration.ofMillis(number("warm_ms")));
            begin();
            report(paced(producer, pool, Duration.ofMillis(number("measured_ms"))));
        }
    }

    private long paced(KafkaProducer<byte[], byte[]> producer, byte[][][] pool, Duration time) {
        AtomicLong acknowledged = new AtomicLong();
        long rate = number("rate");
        long goal = rate * time.toMillis() / 1_000;
        long start = System.nanoTime();
        long sent = 0;
        while (sent < goal) {
            long due = Math.min(goal, (System.nanoTime() - start) / 1_000 * rate / 1_000_000);
            long now = System.currentTimeMillis();
            for (; sent < due; sent++) {
                byte[][] record = pool[(int) (sent % DRIVERS)];
                producer.send(new ProducerRecord<>(job.get("topic"), null, now, record[0], record[1]), (done, error) -> {
                    if (error == null) {
                        acknowledged.incrementAndGet();
                    }
                });
            }
            LockSupport.parkNanos(1_000_000);
        }
        producer.flush();
        if (acknowledged.get() != goal) {
            throw new IllegalStateException(goal - acknowledged.get() + " records were not acknowledged");
        }
        return goal;
    }

    private long number(String name) {
        return Long.parseLong(job.get(name));
    }

    private Properties settings() {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", job.get("bootstrap"));
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("isolation.level", "read_committed");
        settings.put("key.deserializer", ByteArrayDeserializer.class);
        settings.put("value.deserializer", ByteArrayDeserializer.class);
        return settings;
    }

    /** The same records as in src/payload.rs. */
    private static byte[][][] pool() {
        byte[][][] pool = new byte[DRIVERS][][];
        long[] random = {42};
        for (int driver = 0; driver < DRIVERS; driver++) {
            String key = String.format("driver-%05d", driver);
            long latitude = next(random);
            long longitude = next(random);
            long speed = next(random);
            String value = String.format("%s|48.%09d|11.%09d|%03d.%06d", key, latitude, longitude, speed % 360,
                    speed / 360 % 1_000_000);
            value = String.format("%-" + VALUE_BYTES + "s", value);
            pool[driver] = new byte[][] {key.getBytes(StandardCharsets.UTF_8), value.getBytes(StandardCharsets.UTF_8)};
        }
        return pool;
    }

    private static long next(long[] random) {
        random[0] = (random[0] * 1_664_525L + 1_013_904_223L) & 0xffff_ffffL;
        return random[0] % 1_000_000_000L;
    }

    // ---- the broker's requests -------------------------------------------------------------------------------------

    private static void countRequests(String pid) throws Exception {
        VirtualMachine machine = VirtualMachine.attach(pid);
        JMXServiceURL address = new JMXServiceURL(machine.startLocalManagementAgent());
        machine.detach();
        try (var connector = JMXConnectorFactory.connect(address)) {
            MBeanServerConnection beans = connector.getMBeanServerConnection();
            System.out.println("begin");
            while (INPUT.readLine() != null) {
                Map<String, Long> counts = new TreeMap<>();
                ObjectName all = new ObjectName("kafka.network:type=RequestMetrics,name=RequestsPerSec,*");
                for (ObjectName name : beans.queryNames(all, null)) {
                    String request = name.getKeyProperty("request");
                    // Fetch counts both kinds of fetches once more; the others are the brokers' and controllers' own.
                    if (Set.of("Fetch", "FetchFollower", "BrokerHeartbeat", "BrokerRegistration").contains(request)) {
                        continue;
                    }
                    counts.merge(request, (Long) beans.getAttribute(name, "Count"), Long::sum);
                }
                StringBuilder line = new StringBuilder();
                counts.forEach((request, count) -> line.append(request).append('=').append(count).append(' '));
                System.out.println(line);
            }
        }
    }
}

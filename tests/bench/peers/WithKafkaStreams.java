import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.net.URI;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.time.Duration;
import java.time.LocalDate;
import java.time.OffsetDateTime;
import java.time.ZoneId;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/**
 * Kafka Streams: a table of records' contributions, grouped by cell, aggregated with an adder and a
 * subtractor, onto a topic of results; a sink as Kafka Connect's for JDBC has it takes them into
 * PostgreSQL (read committed, upserts in batches of 3,000, offsets after the write).
 *
 * As its documentation has it: exactly_once_v2 with its own commit interval of 100 ms, the default
 * caches, topology optimisation, and as many threads as there are cores. The session timeout is the
 * one that all peers have.
 */
public final class WithKafkaStreams {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final ZoneId ZONE = ZoneId.of("America/New_York");
    private static final int SESSION_MS = 10_000;
    private static final int PARTITIONS = 8;
    private static final int AT_ONCE = 3_000;
    private static final String UPSERT =
        "INSERT INTO result VALUES (?, ?, ?, ?, ?) ON CONFLICT (person, day) DO UPDATE SET"
            + " deals = EXCLUDED.deals, revenue = EXCLUDED.revenue, calls = EXCLUDED.calls";

    /** What is counted of a cell, or what one record adds to it. */
    record Totals(long deals, long revenue, long calls) {
        Totals plus(Totals other) {
            return new Totals(deals + other.deals, revenue + other.revenue, calls + other.calls);
        }

        Totals minus(Totals other) {
            return new Totals(deals - other.deals, revenue - other.revenue, calls - other.calls);
        }
    }

    /** A record's contribution; `cell` is null when it counts nowhere. */
    record Contribution(long version, String cell, Totals totals) {
        Contribution orNewer(Contribution other) {
            return other.version > version ? other : this;
        }
    }

    private WithKafkaStreams() {}

    public static void main(String[] arguments) throws Exception {
        String kafka = System.getenv("PEER_KAFKA");
        String group = System.getenv("PEER_GROUP");
        String results = group + "-results";
        create(kafka, results);

        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, group);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, kafka);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, System.getenv("PEER_STATE"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.TOPOLOGY_OPTIMIZATION_CONFIG, StreamsConfig.OPTIMIZE);
        settings.put(
            StreamsConfig.NUM_STREAM_THREADS_CONFIG, Runtime.getRuntime().availableProcessors());
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, SESSION_MS);

        KafkaStreams streams =
            new KafkaStreams(topology(System.getenv("PEER_TOPIC"), results).build(settings), settings);
        streams.setUncaughtExceptionHandler(
            problem -> {
                problem.printStackTrace();
                return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
            });
        streams.start();
        sink(kafka, group + "-sink", results);
    }

    private static StreamsBuilder topology(String records, String results) {
        StreamsBuilder builder = new StreamsBuilder();
        Serde<String> text = Serdes.String();
        Serde<Totals> totals = serde(Totals.class);
        Serde<Contribution> contributions = serde(Contribution.class);
        builder.stream(records, Consumed.with(text, Serdes.ByteArray()))
            .mapValues(WithKafkaStreams::contribution)
            .groupByKey(Grouped.with(text, contributions))
            .reduce(Contribution::orNewer, Materialized.with(text, contributions))
            .groupBy((key, one) -> KeyValue.pair(one.cell, one.totals), Grouped.with(text, totals))
            .aggregate(
                () -> new Totals(0, 0, 0),
                (cell, one, sum) -> sum.plus(one),
                (cell, one, sum) -> sum.minus(one),
                Materialized.with(text, totals))
            .toStream()
            .to(results, Produced.with(text, totals));
        return builder;
    }

    private static Contribution contribution(byte[] message) {
        try {
            JsonNode record = JSON.readTree(message);
            JsonNode fields = record.get("fields");
            long version = record.get("version").asLong();
            String type = record.get("type").asText();
            if (record.path("deleted").asBoolean()) {
                return new Contribution(version, null, null);
            }
            if (type.equals("opportunity") && field(fields, "status").asText().equals("won")) {
                BigDecimal amount = new BigDecimal(field(fields, "amount").asText());
                long revenue = amount.movePointRight(2).longValueExact();
                return new Contribution(
                    version, cell(fields, "closed_at"), new Totals(1, revenue, 0));
            }
            if (type.equals("call") && field(fields, "done").asBoolean()) {
                return new Contribution(version, cell(fields, "occurred_at"), new Totals(0, 0, 1));
            }
            return new Contribution(version, null, null);
        } catch (IOException problem) {
            throw new UncheckedIOException(problem);
        }
    }

    private static JsonNode field(JsonNode fields, String name) {
        return fields.path(name).path(1);
    }

    private static String cell(JsonNode fields, String at) {
        OffsetDateTime instant = OffsetDateTime.parse(field(fields, at).asText());
        LocalDate day = instant.atZoneSameInstant(ZONE).toLocalDate();
        return "p" + field(fields, "owner_id").asText() + "/" + day;
    }

    private static void sink(String kafka, String group, String results) throws Exception {
        Map<String, Object> settings =
            Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, kafka,
                ConsumerConfig.GROUP_ID_CONFIG, group,
                ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest",
                ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false,
                ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed",
                ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, SESSION_MS,
                ConsumerConfig.MAX_POLL_RECORDS_CONFIG, AT_ONCE);
        try (KafkaConsumer<String, Totals> consumer =
                new KafkaConsumer<>(
                    settings, new StringDeserializer(), serde(Totals.class).deserializer());
            Connection database = connect();
            PreparedStatement upsert = database.prepareStatement(UPSERT)) {
            consumer.subscribe(List.of(results));
            while (true) {
                Map<String, Totals> last = new HashMap<>();
                consumer.poll(Duration.ofSeconds(1)).forEach(one -> last.put(one.key(), one.value()));
                if (last.isEmpty()) {
                    continue;
                }
                for (Map.Entry<String, Totals> one : last.entrySet()) {
                    String[] cell = one.getKey().split("/");
                    upsert.setString(1, cell[0]);
                    upsert.setDate(2, Date.valueOf(cell[1]));
                    upsert.setLong(3, one.getValue().deals);
                    upsert.setLong(4, one.getValue().revenue);
                    upsert.setLong(5, one.getValue().calls);
                    upsert.addBatch();
                }
                upsert.executeBatch();
                database.commit();
                consumer.commitSync();
            }
        }
    }

    private static Connection connect() throws Exception {
        URI address = URI.create(System.getenv("PEER_DATABASE"));
        String[] user = address.getUserInfo().split(":", 2);
        Properties settings = new Properties();
        settings.put("user", user[0]);
        settings.put("password", user.length > 1 ? user[1] : "");
        settings.put("reWriteBatchedInserts", "true");
        String place = address.getHost() + ":" + address.getPort() + address.getPath();
        Connection database = DriverManager.getConnection("jdbc:postgresql://" + place, settings);
        database.setAutoCommit(false);
        return database;
    }

    private static void create(String kafka, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, kafka))) {
            NewTopic made = new NewTopic(topic, Optional.of(PARTITIONS), Optional.empty());
            admin.createTopics(List.of(made)).all().get();
        } catch (ExecutionException problem) {
            if (!(problem.getCause() instanceof TopicExistsException)) {
                throw problem;
            }
        }
    }

    private static <T> Serde<T> serde(Class<T> type) {
        Deserializer<T> read =
            (topic, bytes) -> {
                try {
                    return bytes == null ? null : JSON.readValue(bytes, type);
                } catch (IOException problem) {
                    throw new UncheckedIOException(problem);
                }
            };
        return Serdes.serdeFrom(
            (topic, value) -> {
                try {
                    return value == null ? null : JSON.writeValueAsBytes(value);
                } catch (IOException problem) {
                    throw new UncheckedIOException(problem);
                }
            },
            read);
    }
}

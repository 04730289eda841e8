// Produces three events about each of five orders, for hookline to deliver.
//
//   java -cp 'kafka-clients.jar:slf4j-api.jar:...' Produce.java BOOTSTRAP TOPIC

import java.time.Instant;
import java.util.ArrayList;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

public class Produce {
    public static void main(String[] args) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", args[0],
            "acks", "all",                 // stored on all in-sync replicas before it counts as sent
            "enable.idempotence", true);   // the client's own retries neither repeat nor reorder
        var strings = new StringSerializer();
        try (var producer = new KafkaProducer<>(config, strings, strings)) {
            var sent = new ArrayList<Future<RecordMetadata>>();
            for (int order = 1; order <= 5; order++) {
                for (String what : new String[] {"placed", "paid", "shipped"}) {
                    String event = """
                        {"type": "order.%s", "id": "java-%d-%s", "at": "%s", "order": {"id": "java-%d"}}"""
                        .formatted(what, order, what, Instant.now(), order);
                    // One key for all events of an order: one partition, hence one order of events.
                    sent.add(producer.send(new ProducerRecord<>(args[1], "java-" + order, event)));
                }
            }
            for (var result : sent) {
                result.get();              // throws where an event was not stored
            }
            System.out.println("produced " + sent.size() + " events");
        }
    }
}

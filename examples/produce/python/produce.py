"""Produces three events about each of five orders, for hookline to deliver.

pip install confluent-kafka; python produce.py BOOTSTRAP TOPIC
"""
import datetime
import json
import sys

from confluent_kafka import Producer

bootstrap, topic = sys.argv[1:]
producer = Producer({
    "bootstrap.servers": bootstrap,
    "acks": "all",               # stored on all in-sync replicas before it counts as sent
    "enable.idempotence": True,  # the client's own retries neither repeat nor reorder
})
errors, sent = [], 0


def stored(error, _record):
    if error is not None:
        errors.append(error)


for order in range(1, 6):
    for what in ("placed", "paid", "shipped"):
        event = {
            "type": f"order.{what}",
            "id": f"python-{order}-{what}",
            "at": datetime.datetime.now(datetime.timezone.utc).isoformat(),
            "order": {"id": f"python-{order}"},
        }
        # One key for all events of an order: one partition, hence one order of events.
        producer.produce(topic, key=f"python-{order}", value=json.dumps(event), on_delivery=stored)
        producer.poll(0)  # runs the callbacks of what is stored by now
        sent += 1

if producer.flush(30) > 0 or errors:
    sys.exit(f"not all events were stored: {errors or 'no answer within 30 s'}")
print(f"produced {sent} events")

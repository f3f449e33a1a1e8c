"""What services are assembled from; it knows no business word.

settings    shared settings: Kafka, authentication, clock, logs
clock       the business clock; a time map lets a rehearsal play days in seconds
logs        structlog once: JSON in production, colour on a terminal
telemetry   the Prometheus instruments that every service has
database    the engine, the one transaction, locks, migrations at start
kafka       addresses and topics: creates what the registry declares
publisher   keyed states onto their topics, batched by partition, acknowledged by all
consumer    batches of states into one transaction, then out; what can fail and what happens then
replica     the last known state of every key of a small topic, kept beside what it is applied to
rebuild     drop a store and make it again from the topics; list and replay dead letters
jobs        work done by the clock
auth        who is asking: tokens, API keys, roles
http        problem+json, body limits, the application's frame
server      how long and how large a request's head may be, and how slow the whole
pages       cursors of lists, ETags
service     a service from its parts, in the right order of start and stop
"""

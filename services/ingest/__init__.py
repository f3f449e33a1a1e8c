"""ingest: what happens in a company's CRM becomes facts on Kafka.

Consumes   crm.received.v1 (its own raw log), crm.backfill.v1 (the same for what nobody waits for,
           in a lane of its own), crm.directory.v1, crm.sources.v1 and crm.discards.v1 (its own
           state)
Publishes  crm.received.v1, crm.backfill.v1, crm.records.v1, crm.directory.v1, crm.sources.v1,
           crm.discards.v1
Owns       each record's last known state, every event's trace, the quarantine, what is to be read
           from CRMs again, sources, people, teams, territories, owners
Promises   a request is answered after Kafka has it, and kept as it came; a record's state depends
           on the vendor's positions and never on order, repetition or lateness of arrival; what
           can't be read is put aside alone, with its reason and bytes, and can be replayed; what an
           event doesn't say is asked of its CRM
"""

"""ingest: what happens in a company's CRM becomes facts on Kafka.

Consumes   crm.received.v1 (its own raw log), crm.directory.v1 (its own state)
Publishes  crm.received.v1, crm.records.v1, crm.directory.v1
Owns       each record's last known state, the quarantine, people, teams, memberships, owners
Promises   a request is answered after Kafka has it, and kept as it came; a record's state depends
           on the vendor's positions and never on order, repetition or lateness of arrival; what
           can't be read is put aside alone, with its reason and bytes, and can be replayed
"""

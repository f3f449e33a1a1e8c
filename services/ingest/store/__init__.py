"""Every SQL statement of ingest, one module per thing that is kept.

records     the last known state of each record
events      what was said, one row per fact as it came in: the trace, and duplicates
trace       what else the tables know of an event
quarantine  what could not be read
rereads     what is to be asked of the CRM
sources     the sources set by API, as last published
directory   people, teams and owners as last published
digest      the checksum of all that is derived
"""

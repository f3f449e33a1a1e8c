"""HTTP routes of ingest.

receive     what CRMs call; bytes in, an acknowledgement out
directory   people, teams, memberships and owner mappings
quarantine  what could not be read, and reading it again
records     one record as it is now; owners that nobody is mapped to
"""

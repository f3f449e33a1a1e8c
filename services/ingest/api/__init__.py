"""HTTP routes of ingest.

receive     what CRMs call; bytes in, an acknowledgement out
sources     the CRMs that may send, their secrets and limits (source_changes, vault)
preview     what a request would become
events      what happened to an event
duplicates  which events came in more than once
quarantine  what could not be read: reading it again, or giving it up
rereads     what is to be asked of the CRMs
directory   people, teams, territories, and who belongs where as what
owners      the CRMs' owners whom nobody is mapped to, and mapping them
records     one record as it is now
parts       what all routes are given to work with
"""

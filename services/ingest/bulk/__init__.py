"""Bulk import: the rows of a file or a topic become messages of the backfill lane.

Whatever can't be read is a row with a problem, and is put aside with its number like any other item
that can't be read. A message carries all that its rows' meaning depends on, and its id follows from
what is imported, so that an import that was killed, or that is run again, doubles nothing.

rows        what stands in CSV, JSON Lines and Parquet files
topic       what stands on a Kafka topic
messages    rows → messages
checkpoint  how far an import has come
importing   from the first row to the last, or from where a former run ended
forecast    what an import would change
command     `python -m services import`
"""

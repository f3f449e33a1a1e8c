"""Other ways to do the same job, beside ours in one run: `python -m tests.bench.peers --help`.

The job, small enough that everybody can do it: from states of deals and calls on one topic, per
person and day in the organisation's zone, how many deals are won, for how much, and how many calls
were made; corrected when a record changes, queryable in PostgreSQL. Messages come twice and in the
wrong order. What must come out is said by `oracle.sql`.

Each peer is a process of its own in its own style. They share nothing but `job`, which says what
one record contributes.
"""

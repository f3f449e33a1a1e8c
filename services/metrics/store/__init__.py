"""Every SQL statement of the metrics service.

facts       what each record contributes, and the deltas that changes leave
counters    folded numbers, and reading them exactly
publishing  which numbers are to be published
context     directory and goals, as everything else here uses them
digest      what two equal stores have in common
"""

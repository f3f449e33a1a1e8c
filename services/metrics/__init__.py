"""Facts into live numbers: what every record contributes, counters, goals, boards.

Consumes   crm.records.v1, crm.directory.v1, spm.goals.v1, spm.metrics.v1, spm.boards.v1,
           spm.contests.v1
Publishes  spm.measures.v1, spm.goals.v1, spm.metrics.v1, spm.boards.v1, spm.contests.v1
Owns       database `metrics`: facts, counters, goals, own metrics, boards, contests, displays
Promises   a number is the sum of its records, whatever order, repetition or lateness they came in
"""

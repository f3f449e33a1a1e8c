"""Turn records, goals and plans into incentive pay that explains itself to the cent.

Consumes   crm.records.v1, crm.directory.v1, spm.goals.v1, spm.plans.v1
Publishes  spm.earnings.v1, spm.plans.v1
Owns       database `payouts`: credits, statements, the ledger
Promises   the same statements for any order and repetition of events; every cent on them opens into
           records, rule, tier and rounding; the ledger only grows and always adds up to them
"""

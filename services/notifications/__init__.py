"""Facts → messages to people, never twice.

Consumes   crm.records.v1, crm.directory.v1, spm.goals.v1, spm.measures.v1, spm.earnings.v1,
           spm.alerts.v1 (its own: what has been raised and sent, for a rebuild)
Publishes  spm.alerts.v1
Owns       database `notifications`
Promises   one alert per rule, subject and window, and one message per alert, channel and recipient,
           however often facts arrive, however many replicas run, restart or are rebuilt; a message
           is only begun while what it says is true. A webhook that we died on is sent again, under
           the same id
"""

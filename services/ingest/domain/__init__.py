"""What CRMs say and what it means; pure.

sources     one configured CRM
signatures  whether a request is the vendor's
facts       what a reader gives: facts, things ignored by name, things it can't read
values      vendors' values as canonical ones
readers     a request as received → its facts
hubspot, pipedrive, cloudevents   one reader each
merge       known state + fact → known state, whatever the order
"""

"""What CRMs say and what it means; pure.

sources         one configured CRM
vendors         one module per vendor: what proves its requests, what they hold, what that means
answers         the same for what CRMs answer when they are asked
mapping         how a body that no reader knows is read
imports         what an imported row says, by the mapping that came with it
readers         a request as received → its facts, whoever it is of
facts           what a reader gives: facts, things ignored by name, things it can't read
canonical       a fact as people and tests see it
merge           known state + fact → known state, whatever the order
stages          what a deal's stage means: whether it is won, and since when
directory       entries about people and teams, from what people write

What readers are made of:

items           a body → its items, unread
fields          the canonical fields: their converters, and the signals that they give
values          vendors' values as canonical ones
signatures      comparing what a request proves with what is expected
shared_secrets  secrets that are only repeated: header, query, HTTP Basic

What the doors are made of:

rates           how often somebody may come
sealing         secrets at rest
"""

"""The published language: every message on a topic, and the topics themselves.

* A topic carries one type, and each message is the full current state of one keyed thing.
* `version` only grows per key; a reader that has seen the highest version knows everything.
* Within a major version (`….v1`) a change may only add optional fields with a default; readers
  ignore what they don't know. Anything else is a new topic with the next major version.
* A committed example is never edited: what was once valid stays valid.
* Money is decimal text, instants are UTC, days are ISO dates, ids are strings.
"""

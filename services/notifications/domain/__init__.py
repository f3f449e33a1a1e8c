"""The vocabulary of this service.

A *rule* says what is worth telling whom. A *finding* is a rule's condition being true of a subject
in a *window* now; an *alert* remembers that it once was: `firing` while it is, `resolved` when it
no longer is. A *watch* is a window that waits for its due time. A *delivery* is one message of one
alert on one channel to one recipient.
"""

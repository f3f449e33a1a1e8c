"""The one error of the local stack.

Whatever goes wrong (no Java, a taken port, a full disk) reaches the caller as one
`StackError` that says in one message what happened and what to do about it.
"""

from __future__ import annotations


class StackError(Exception):
    """Something kept the stack from doing what was asked; the text is for a person."""

    def __init__(self, happened: str, remedy: str) -> None:
        super().__init__(f"{happened} {remedy}")
        self.happened = happened
        self.remedy = remedy

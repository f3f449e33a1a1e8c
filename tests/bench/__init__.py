"""Each stage of the way of an event beside its bare floor, in one run: `make bench`.

The floor does the same input and output with the plain clients and decides nothing: for HTTP a bare
Starlette route and a bare produce with acks=all; for consumers a bare `getmany` loop that writes
the same rows in the same number of transactions by plain asyncpg, and produces the same messages.
Figures are ratios to that floor; seconds depend on the machine.
"""

"""Plays believable days of a sales organisation into Pacesetter, and checks what comes out.

* `organisation`, `days` - who sells, and what happens to their deals, calls, e-mails and meetings;
* `vendors`, `delivery` - the CRMs' own signed webhooks, and what a network does to them;
* `player` - sends them at their time; `system` - the running services, `demo` - all of it at once;
* `oracle` - computes every number a second time from what was sent, with nothing of the services'.

Everything up to the player is a pure function of a seed.
"""

"""Forecasts: what a subject will have won by the end of a period, as a distribution.

What is won already + open deals, each by the chance to be won inside the period + run rate, the
deals that will be created and won in what is left of it.

deals       what facts say of opportunities, in columns
learning    chances by stage, age, person and team from the tenant's own history
simulation  from chances to a distribution, reproducibly
forecaster  one subject's forecast, with its reasons and categories, and what-if
backtest    what would have been said in past periods, and how wrong that was

Not in it: seasons, the company's plans, and what people say of their deals. When a deal is expected
to close decides its category, not its chance: facts don't keep what was expected before, so that no
backtest could tell how good these dates are.
"""

"""Plans for tests, as people write them."""

PLAN = """\
plan: ae-2026
name: Account executive 2026
currency: USD
period: quarter
effective: {from: 2026-01-01, to: 2027-01-01}
payees: {role: rep}
rounding: half_up_per_line
components:
  - id: new-business
    credit:
      {record: opportunity, when: {status: won}, basis: amount, date: closed_at, share: 100}
    rate:
      type: tiers_marginal
      measure: attainment
      boundary: upper
      tiers: [{from: 0, rate: 0.05}, {from: 1, rate: "0.08"}, {from: "1.5", rate: "0.1"}]
    quota: {goal: revenue_won}
"""

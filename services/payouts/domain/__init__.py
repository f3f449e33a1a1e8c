"""The vocabulary of pay. Pure: the standard library and the published language.

plan        who is paid for what: components, each with a credit rule, a rate and perhaps a quota
credit      what one record counts in one component of a plan, for one payee and period
finding     why a record, or a statement, counts for less than somebody may expect
line        one credit's pay: the rate applied to it after all earlier credits, rounded once
statement   all lines of a payee in a plan's period
tier        a range of the measure (credited amount, or attainment) that has its own rate
slice       the part of one credit that falls into one tier
"""

"""The words of this service.

metric        what is counted, as data: a *base* metric adds up over records, a *derived* one is a
              formula over base metrics, or a statistic of one, computed on read
contribution  what one record adds to one base metric: a unit, an instant that places it, a value
credit        a contribution with who gets it: the local day, the person, the teams upwards
fact          a record's version with its credits; what is retracted when the record changes
delta         the difference between a fact's old and new credits, to be added to counters
counter       the sum of all deltas of a subject, metric, unit and period
board         subjects ranked by a metric in the current period, as data
"""

"""How a round's updates become one: robust rules, server optimizers, and what is refused before either.

* `settings`: which rule, how many devices it stands, how much memory it may take
* `rows`: a round's updates as the rows of a matrix, decoded a stretch of columns at a time
* `pairwise`, `krum`, `geometric_median`, `mixing`, `clipping`, `coordinatewise`: the rules
* `rule`: one of them over a round's rows
* `plausible`: updates too long to be honest
* `optimizers`: the coordinator's step

docs/aggregation.md says what each rule stops, and what none of them does.
"""

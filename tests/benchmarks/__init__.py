"""What measuring costs and how right it is: ``python -m tests.benchmarks`` prints tables of ratios.

Each figure of cost is a ratio against a reference measured in the same run, in turns with it, so that a slow or busy machine
moves both. Nothing here fails: a table says ``ok`` or ``over`` beside the limit, and a person looks at it.
"""

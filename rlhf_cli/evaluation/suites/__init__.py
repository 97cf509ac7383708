"""Published suites on harm, bias and truth: their files, and what is computed of answers to them.

No network is run here, and nothing is sampled: stages/evaluate/ asks the models.
"""

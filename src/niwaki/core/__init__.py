"""What everything else stands on: errors, the notation of methods, plans, mixings, budgets, and the
record of a run.
"""

"""Gradual pruning as callbacks of other people's training loops. Each file needs the library that
it is named after, and is imported by its own name: `niwaki.integrations.transformers`.
"""

"""Deciding: numbers and budgets in, selection out. Sees numbers, never text."""

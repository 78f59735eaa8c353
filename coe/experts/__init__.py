"""Experts: one verb, several homes."""

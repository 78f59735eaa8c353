"""Experts on many machines: supervised in one place, followed by every gateway."""

"""Meters of this machine: found, read, and sampled while requests are answered."""

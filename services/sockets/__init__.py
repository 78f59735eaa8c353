"""Connections: accepted, read up to bounds, served."""

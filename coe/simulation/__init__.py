"""Fleets replayed: requests arrive, a policy asks an expert, a replica answers in its turn."""

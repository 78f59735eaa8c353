"""Where the ledger is kept: a journal in SQLite on each gateway, Redis among many."""

"""The outside world: HTTP, engine processes, files to fetch, the command line."""

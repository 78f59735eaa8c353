"""What breaks experts, Redis, networks and gateways, watches it, and adds up what was lost."""

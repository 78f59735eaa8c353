"""Learning: text in, numbers out. Never sees a budget."""

"""Hard budgets over time: what requests hold and have spent, exactly, in whole numbers."""

"""One gateway of several processes: who starts and ends them, and what they tell each other."""

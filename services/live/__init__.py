"""What changes while a gateway serves: its files are watched, read, checked, and swapped in."""

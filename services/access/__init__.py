"""Who is let in: the file of keys, and the porter of a gateway."""

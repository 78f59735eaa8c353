"""Who may ask a gateway for what: nouns and policies, without clock, file or network."""

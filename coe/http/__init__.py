"""HTTP/1.1 as a client speaks it: requests of one answer each, over connections that are kept."""

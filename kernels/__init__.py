"""Arrays in, arrays out. `coe.kernels.reference` holds the slow, obvious twin of each."""

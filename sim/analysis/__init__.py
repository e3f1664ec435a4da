"""Analysis of a round: drift measures, and the probes that show them."""

"""What Avalanche's training lacks for some of the protocols and baselines."""

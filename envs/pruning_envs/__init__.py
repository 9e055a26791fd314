"""Runtime pruning as Markov decision processes, in gymnasium's interface."""

"""Runtime pruning of CNNs: the accuracy-speed frontier, executed and measured."""

"""Learning: a batch of training runs as one compiled program."""

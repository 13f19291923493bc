"""Learning: the training loop, evaluation, cost of a model, the teacher store."""

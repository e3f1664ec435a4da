"""Training: the one loop that clients and student both run, its losses, optimisers, evaluation."""

"""Peers: learners of any architecture that teach each other on the same batches, in lock-step."""

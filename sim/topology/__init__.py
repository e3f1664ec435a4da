"""Who talks to whom in a federation without a server, with which weights, and who is there.

Nothing is imported here: availability alone needs neither networkx nor scipy.
"""

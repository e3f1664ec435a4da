"""Workers: pools of processes, inline or over Ray, that run groups of clients; frozen states."""

"""Strategies without a server: peers over a graph exchange answers, parameters or networks."""

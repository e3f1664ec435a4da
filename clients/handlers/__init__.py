"""Handlers: what a client does with each type of message, and what makes a reply of it a fault."""

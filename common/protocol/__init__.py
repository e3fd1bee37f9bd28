"""The conversation of two nodes as a sans-I/O state machine: messages in, effects out, one table for both roles.

Imports values and `config` only. Start with `transitions.py` (the table), then `session.py` (what moves along it).
"""

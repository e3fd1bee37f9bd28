"""The conversation of two nodes as a sans-I/O state machine: messages in, effects out, one table for both roles.

A block (`block.py`) takes its stages from `postprocessing` (the words of `postprocessing.reconciliation` are messages
here), its key length from `security` and its certificate from `keys`. Start with `transitions.py` (the table) and
`story.py` (how the life of a block is told), then `session.py` (what both ends share).
"""

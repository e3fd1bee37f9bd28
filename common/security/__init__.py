"""The proof as arithmetic: one equation, one function. Imports only `math`, `scipy.special`, dataclasses.

Read `README.md` first: it maps each theorem to its function and lists the assumptions and the epsilon ledger.
"""

"""The proof as arithmetic: one equation, one function. Imports the standard library and `scipy` alone.

Read `README.md` first: it maps each theorem to its function and lists the assumptions and the epsilon ledger.
"""

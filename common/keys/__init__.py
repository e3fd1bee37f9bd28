"""The key manager's rules, without input or output: which bytes become which application's key, and when they are gone.

May import config, keybits and errors. Start with `inventory.py`; `common/node/keystore.py` keeps what it decides.
"""

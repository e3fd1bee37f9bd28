"""The key manager's rules, without input or output: which bytes become which application's key, and when they are gone.

A key's certificate (`certificate.py`) takes its ledger from `security`. Start with `inventory.py`;
`common/node/keystore.py` keeps what it decides.
"""

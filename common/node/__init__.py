"""The only impure corner of `common`: the asyncio shell that both daemons share.

runtime (clock, signals, TaskGroup), compute (worker threads), keystore (SQLite), etsi014 (HTTPS).
"""

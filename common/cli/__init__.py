"""The operator's command `qkd`: one file per command, loaded only when called.

Commands are found through the entry-point group `qkd_node.commands`, so that any package (hardware, a laboratory's
own) contributes commands without being imported by `common`. Start with `main.py`.
"""

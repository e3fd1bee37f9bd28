"""What an auditor is given: one file that judges key certificates alone, and a policy to begin with.

Imports nothing of ours and is imported by `common.cli` only, so that it doubts the node's software from outside. Start
with the docstring of `verify_certificate.py`, with `common/security/README.md` beside it.
"""

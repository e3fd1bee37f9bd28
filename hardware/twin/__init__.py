"""The digital twin of the link: simulated light behind the same Protocols as real devices.

May import common and `hardware.interfaces`; only the device registry names it. `physics.py` is arithmetic with an
explicit generator; `fibre.py` carries Alice's symbols to Bob's process; `devices.py` gives both the shape of devices.
Start with `physics.py`.
"""

"""The only package that knows a device: interfaces, drivers, file formats, recorded runs, and the digital twin.

Imports `common` only. Start with `interfaces.py`; `registry.py` turns a manifest into devices.
"""

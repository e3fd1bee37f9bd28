"""Real devices, one file each; the vendor's package is imported inside `open()` so that others need not have it."""

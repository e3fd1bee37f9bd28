"""Time-tag files: read and write, one file per format."""

"""Data sets on disk: downloaded, prepared in TFDS's format, opened again, and their decoded arrays cached."""

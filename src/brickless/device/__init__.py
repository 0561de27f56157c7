"""The runtime of a device: standard library only, and little of it."""

#: What the device calls itself at its hub; a test holds it to pyproject.toml.
VERSION = "0.1.0"

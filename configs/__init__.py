"""TOML files over the dataclasses that live beside the code that reads them."""

"""Offline training of tokenizers and models: python -m trainer --help. It never imports csp."""

"""Property tests look for new examples on a developer's machine; where CI is set they repeat the same ones."""

import os

from hypothesis import settings

settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

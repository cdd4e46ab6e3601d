"""The pipeline's stages, one script each."""

import ccai  # noqa: F401  # Ctrl-C while a stage is imported

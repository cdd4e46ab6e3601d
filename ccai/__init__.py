"""Contemplative constitutional AI: conversations, completions, preference pairs, training and evaluation."""

import logging
import os

__version__ = "0.1.0"

# Before torch is imported: OpenMP threads that wait by spinning starve each other as soon as anything else runs on
# the machine; sleeping ones lose little when nothing does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Before PEFT imports it: on a CPU it warns of a kernel that nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

"""Contemplative constitutional AI: conversations, completions, preference pairs, training and evaluation."""

import logging
import os
import warnings

__version__ = "0.1.0"

# Before torch is imported: OpenMP threads that wait by spinning starve each other as soon as anything else runs on
# the machine, and threads that sleep at once wake up late in every small operation. So: spin for about 0.1 ms.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "30000")

# Before PEFT imports it: on a CPU it warns of a kernel that nothing here uses.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

# PEFT and TRL use names of transformers that will go; nothing a user could do about it.
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

"""Sources of prompts, and which prompts are used."""

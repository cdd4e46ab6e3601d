"""Sources of prompts, and the choice of prompts from them."""

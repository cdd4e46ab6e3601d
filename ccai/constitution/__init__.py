"""The constitution's principles, and the conversations built from them."""

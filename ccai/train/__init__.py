"""Training on the pairs: phases, checkpoints, rewards, and the model card."""

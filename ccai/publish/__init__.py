"""Publishing: the trained model as one folder or file, and uploads to the Hugging Face Hub."""

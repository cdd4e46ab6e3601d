"""The principles, and the conversations that they are put into."""

"""What is read of a run: pages, charts, summary, samples, traces."""

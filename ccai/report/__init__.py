"""Views of a run: the report, comparisons, curves, charts, summary, samples, traces."""

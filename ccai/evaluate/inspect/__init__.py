"""Tasks of inspect_evals, run by inspect_ai on our engines and journal; both are optional packages."""

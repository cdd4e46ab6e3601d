"""Generation of completions: the journal, jobs, rounds of critique and revision."""

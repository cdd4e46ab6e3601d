"""From conversations to completions: the journal, generation, rounds of critique and revision."""

"""Where finished measurements go: spans, metrics, the journal, the summary."""

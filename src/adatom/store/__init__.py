"""Store: the campaign directory and its ledger; all persistence."""

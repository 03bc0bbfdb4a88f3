"""What training and serving share about evidence: the prompt, and the check of what it yields."""

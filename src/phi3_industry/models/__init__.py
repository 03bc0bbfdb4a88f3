"""What a Phi-3 model is: its checkpoints, chat format, loading and adapters."""

"""Who computes tokens: engines generate, score and embed, and know nothing of LlamaIndex."""

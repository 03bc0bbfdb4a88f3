"""LoRA and QLoRA adapters from a user's own documents and questions."""

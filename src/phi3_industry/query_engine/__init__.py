"""Answers from documents, from fine-tuned weights, or from both."""

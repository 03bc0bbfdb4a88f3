"""A Phi-3 model as a LlamaIndex LLM."""

from phi3_industry.llms.phi3 import Phi3LLM

__all__ = ["Phi3LLM"]

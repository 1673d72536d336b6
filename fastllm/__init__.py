"""FastLLM: speculative decoding you can watch, and the distillation that makes it pay.

Importing this package is cheap: no weights, no network, no gradio.
"""

__version__ = "0.1.0"

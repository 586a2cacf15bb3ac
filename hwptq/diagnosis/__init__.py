"""What a quantization loses, where, by what, and what would mend it."""

"""How well two towers agree: retrieval, ranks and noise, beside float32."""

"""The rules of LowerToInteger: the operator with exact semantics that stands for a node between Q and DQ."""

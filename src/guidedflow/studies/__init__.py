"""Many runs from one plan: what they are, where each one stands, and the engines that carry them out."""

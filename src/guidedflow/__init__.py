"""Train, evaluate and deploy offline-RL policies with flow models."""
